"""What became of the due times of a schedule: as a word, as dots, as a table, as a filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..models import FinishedTask, QueuedTask
from ..models.schedule import RunKind, RunStatus, ScheduleRun
from ..schedules.watching import Outcome
from ..states import FinalStatus
from .display import duration, moment, visible

#: The words of a run's state: of its task, or of itself if it has none.
STATES = {
    "SKIPPED": gettext_lazy("skipped"),
    "MISSED": gettext_lazy("missed"),
    "HELD": gettext_lazy("waits for the one before"),
    "GONE": gettext_lazy("pruned"),
    "SUCCESSFUL": gettext_lazy("successful"),
    "FAILED": gettext_lazy("failed"),
    "CANCELLED": gettext_lazy("cancelled"),
    "SCHEDULED": gettext_lazy("scheduled"),
    "WAITING": gettext_lazy("waiting"),
    "READY": gettext_lazy("ready"),
    "RUNNING": gettext_lazy("running"),
}

#: A shape and a class for a state: who sees no colours sees shapes.
_DOTS = {
    "SUCCESSFUL": ("●", "ok"),
    "FAILED": ("✕", "bad"),
    "CANCELLED": ("⊘", "warn"),
    "RUNNING": ("◐", "run"),
    "MISSED": ("–", "idle"),
    "GONE": ("·", "idle"),
}
_OTHER = ("○", "idle")

#: Makes a link to a task of its id, a content and the state.
Linker = Callable[[Any, str, str], str]


def word_of(outcome: Outcome) -> str:
    """Return the state of a run as a word."""
    return str(STATES.get(outcome.state, outcome.state))


def runs_html(outcomes: Sequence[Outcome], now: datetime, link: Linker) -> SafeString:
    """Return the last runs, the newest first: as dots in the order of time, then as a table."""
    return format_html(
        '<section class="bgt" aria-label="{}"><ul class="bgt-shapes">{}</ul>'
        '<div class="bgt-scroll">{}</div></section>',
        _("Last runs"),
        format_html_join("", "<li>{}</li>", ((_dot(o, now, link),) for o in reversed(outcomes))),
        _table(outcomes, now, link),
    )


def _dot(outcome: Outcome, now: datetime, link: Linker) -> str:
    shape, name = _DOTS.get(outcome.state, _OTHER)
    dot = format_html(
        '<span class="bgt-shape bgt-shape-{}"><span aria-hidden="true">{}</span>'
        '<span class="bgt-shape-word">{}, {}</span></span>',
        name,
        shape,
        word_of(outcome),
        moment(outcome.run.due_at, now),
    )
    return link(outcome.run.task_id, dot, outcome.state)


def _table(outcomes: Sequence[Outcome], now: datetime, link: Linker) -> SafeString:
    rows = (
        (
            moment(outcome.run.due_at, now),
            link(outcome.run.task_id, word_of(outcome), outcome.state),
            # What was done by hand is not late.
            duration(outcome.drift) if outcome.run.kind == RunKind.PLAN else "-",
            _remark(outcome),
        )
        for outcome in outcomes
    )
    return format_html(
        '<table class="bgt-table"><thead><tr><th>{}</th><th>{}</th><th>{}</th><th>{}</th></tr>'
        "</thead><tbody>{}</tbody></table>",
        _("Due"),
        _("Outcome"),
        _("Fired after"),
        _("Remark"),
        format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", rows),
    )


def _remark(outcome: Outcome) -> str:
    run = outcome.run
    said = [visible(run.reason)] if run.reason else []
    if run.late:
        said.append(_("It was missed, and made up for."))
    if run.missed and run.status != RunStatus.MISSED:
        said.append(
            ngettext(
                "Stands for %(count)d missed run, too.",
                "Stands for %(count)d missed runs, too.",
                run.missed,
            )
            % {"count": run.missed}
        )
    return " ".join(said) or "-"


class OutcomeFilter(admin.SimpleListFilter):
    """Schedules by what came of their last planned run."""

    title = gettext_lazy("outcome of the last run")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        names = [status.value for status in FinalStatus]
        return [
            *((name.lower(), STATES[name]) for name in names),
            ("live", _("not ended")),
            *((name.lower(), STATES[name]) for name in ("HELD", "SKIPPED", "MISSED")),
            ("none", _("never run")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value == "none":
            return queryset.filter(last_due_at=None)
        last = ScheduleRun.objects.using(queryset.db).filter(
            schedule=OuterRef("pk"), due_at=OuterRef("last_due_at")
        )
        task: Any = (QueuedTask if value == "live" else FinishedTask)._default_manager
        tasks = task.using(queryset.db).filter(pk=OuterRef("task_id"))
        if value == "live":
            last = last.filter(Exists(tasks), status=RunStatus.FIRED)
        elif value.upper() in FinalStatus.values:
            last = last.filter(Exists(tasks.filter(status=value.upper())), status=RunStatus.FIRED)
        else:
            last = last.filter(status=value.upper())
        return queryset.filter(Exists(last))
