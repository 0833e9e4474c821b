"""The dashboard: whether all is well, what waits, what ran, what failed, who works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Max
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import failures as causes
from ..models import (
    BulkVerb,
    Dashboard,
    FailureGroup,
    FinishedTask,
    Queue,
    QueuedTask,
    Schedule,
    Worker,
)
from ..models.queue import Queue as QueueRow
from ..monitoring.health import MOST, Finding, Health, Level, Noun, examine
from ..monitoring.snapshot import Counted, Snapshot, take_snapshot
from ..statistics.reading import WINDOWS, Series, TaskSums, Window, read_series, read_tasks
from ..workers import condition_of
from . import badges, charts
from .bulk_page import may_act
from .display import duration, moment, relative, short_moment, visible
from .pages import PageAdmin

#: Schedules that are due next.
UPCOMING = 5
#: Queues of a worker that are named.
SHOWN_QUEUES = 10


@dataclass(frozen=True, slots=True)
class Tile:
    """A number with its name above and what belongs to it below."""

    name: Any
    number: Any
    note: Any = ""
    address: str = ""
    color: str = ""


@admin.register(Dashboard)
class DashboardAdmin(PageAdmin):
    """One page in the place of a list."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        window = _window(request)
        return self.page(
            request,
            "admin/bgtasks/dashboard.html",
            title=_("Dashboard"),
            context=lambda: {**self.figures(request, window), **(extra_context or {})},
            stamp=lambda: self.stamp(window),
        )

    def get_urls(self) -> list[Any]:
        # There are no rows: no page to add one or to change one.
        return [url for url in super().get_urls() if url.name == f"{self._prefix}_changelist"]

    @property
    def _prefix(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def stamp(self, window: Window) -> Sequence[Any]:
        """Return what the page depends on, by probes of indexes: workers change it every beat."""
        tasks = QueuedTask.objects.using(self.alias).order_by("-pk").values_list("pk", flat=True)
        done = FinishedTask.objects.using(self.alias).order_by("-pk").values_list("pk", flat=True)
        return [
            window.hours,
            tasks.first(),
            done.first(),
            *Worker.objects.using(self.alias).aggregate(at=Max("heartbeat_at")).values(),
            *QueueRow.objects.using(self.alias).aggregate(at=Max("paused_at")).values(),
            *FailureGroup.objects.using(self.alias).aggregate(at=Max("last_seen")).values(),
        ]

    def figures(self, request: HttpRequest, window: Window) -> dict[str, Any]:
        """Return the context of the page."""
        snapshot = take_snapshot(self.alias)
        now = snapshot.now
        series = read_series(self.alias, window, now=now)
        has_run = bool(series.ended or snapshot.day.count or snapshot.holds_tasks)
        if not has_run:
            has_run = FinishedTask.objects.using(self.alias).exists()
        links = Links(self, request)
        health = examine(self.alias, snapshot=snapshot)
        return {
            "has_run": has_run,
            "health": health_in_words(health, links),
            "windows": [(w, _window_name(w.hours), w == window) for w in WINDOWS.values()],
            "window_name": _window_name(window.hours),
            "tiles": _tiles(snapshot, series, links),
            "throughput": throughput(series) if series.ended else "",
            "waiting": waiting(series) if series.ended else "",
            "causes": self._causes(links, now),
            "queues": _queues(snapshot, series, links),
            "workers": _workers(snapshot, links),
            "tasks": _tasks(read_tasks(self.alias, window, now=now), links),
            "upcoming": self._upcoming(links, now),
        }

    def _causes(self, links: Links, now: datetime) -> dict[str, Any] | None:
        if not links.may(FailureGroup):
            return None
        found = causes.top(self.alias, now=now)
        may_retry = links.may(FinishedTask) and may_act(self, links.request, BulkVerb.RETRY)
        return {
            "rows": [
                {
                    "name": visible(cause.group.exception_name),
                    "message": visible(cause.group.message),
                    "task": visible(cause.group.task_path.rpartition(".")[2]),
                    "task_path": visible(cause.group.task_path),
                    "count": cause.count,
                    "trend": charts.spark(
                        cause.hours,
                        ngettext(
                            "%(count)d failure in 24 hours",
                            "%(count)d failures in 24 hours",
                            cause.count,
                        )
                        % {"count": cause.count},
                    ),
                    "first": short_moment(cause.group.first_seen, now),
                    "last": short_moment(cause.group.last_seen, now),
                    "address": links.to(FailureGroup, "change", cause.group.pk),
                    "retry_address": links.to(
                        FinishedTask, "bulk", cause=cause.group.pk, verb=BulkVerb.RETRY.value
                    )
                    if may_retry
                    else "",
                }
                for cause in found.open
            ],
            "muted": found.muted,
            "address": links.to(FailureGroup),
        }

    def _upcoming(self, links: Links, now: datetime) -> list[dict[str, Any]] | None:
        if not links.may(Schedule):
            return None
        rows = Schedule.objects.using(self.alias).filter(enabled=True, next_due_at__isnull=False)
        return [
            {
                "name": visible(row.name),
                "address": links.to(Schedule, "change", row.pk),
                "when": moment(row.next_due_at, now),
            }
            for row in rows.order_by("next_due_at")[:UPCOMING]
        ]


class Links:
    """Addresses of the pages that a user may see; "" for the others."""

    def __init__(self, page: PageAdmin, request: HttpRequest) -> None:
        self._page = page
        self.request = request
        self._seen: dict[Any, bool] = {}

    def may(self, model: Any) -> bool:
        """Say whether the user may see the pages of a model on this site."""
        if model not in self._seen:
            registered = self._page.admin_site._registry.get(model)
            self._seen[model] = registered is not None and registered.has_view_permission(
                self.request
            )
        return self._seen[model]

    def to(self, model: Any, name: str = "changelist", *args: Any, **query: Any) -> str:
        """Return the address of a page, with a query."""
        if not self.may(model):
            return ""
        address = self._page.address(name, *args, model=model)
        return f"{address}?{urlencode(query)}" if query and address else address

    def anchor(self, address: str, text: Any) -> SafeString:
        """Return text as a link, or as it is where there is no address."""
        if not address:
            return conditional_escape(text)
        return format_html('<a href="{}">{}</a>', address, text)

    def of_noun(self, noun: Noun) -> str:
        """Return the address of what a noun of a finding is about."""
        if noun.kind == "worker":
            return self.to(Worker, "change", noun.key)
        if noun.kind == "queue":
            return self.to(Queue, "change", noun.key)
        if noun.kind == "ready":
            query = {"status": "READY", **({"queue": noun.key} if noun.key else {})}
            return self.to(QueuedTask, **query)
        models: dict[str, Any] = {
            "workers": Worker,
            "waiting": QueuedTask,
            "failures": FailureGroup,
            "schedule": Schedule,
            "results": FinishedTask,
        }
        return self.to(models[noun.kind]) if noun.kind in models else ""


def health_in_words(health: Health, links: Links) -> dict[str, Any]:
    """Return the level and the sentence of health, each noun a link."""
    shown = list(health.findings[:MOST]) or [health.summary]
    rest = len(health.findings) - MOST
    return {
        "level": health.level.value,
        "lead": _("Needs attention.") if health.level != Level.OK else "",
        "findings": [_finding(finding, links) for finding in shown],
        "rest": max(rest, 0),
    }


def _finding(finding: Finding, links: Links) -> SafeString:
    nouns = {
        name: links.anchor(links.of_noun(noun), visible(noun.text))
        for name, noun in finding.nouns.items()
    }
    # The template is ours, the nouns are escaped.
    return mark_safe(str(conditional_escape(finding.template)) % nouns)


# Regions


def _tiles(snapshot: Snapshot, series: Series, links: Links) -> list[Tile]:
    now = snapshot.now
    slots = snapshot.slots
    day = snapshot.day
    share = day.failure_share
    minutes = series.window.hours * 60
    rate = series.ended / minutes
    wait = series.wait(0.95)
    return [
        Tile(
            _("Waiting"),
            snapshot.ready.text,
            _("oldest %(age)s") % {"age": duration(snapshot.oldest)}
            if snapshot.oldest is not None
            else "",
            links.to(QueuedTask, status="READY"),
        ),
        Tile(
            _("Running"),
            snapshot.running.text,
            ngettext("of %(count)d slot", "of %(count)d slots", slots) % {"count": slots},
            links.to(QueuedTask, status="RUNNING"),
        ),
        Tile(
            _("Scheduled"),
            snapshot.scheduled.text,
            _next(snapshot.next_due, now),
            links.to(QueuedTask, status="SCHEDULED"),
        ),
        Tile(
            _("Retrying"),
            snapshot.retrying.text,
            _next(snapshot.next_retry, now),
            links.to(QueuedTask, status="retrying"),
            badges.WARN if snapshot.retrying.count else "",
        ),
        Tile(
            _("Failed in 24 h"),
            number_format(day.failed, force_grouping=True),
            _("%(share)s%% of %(count)s")
            % {
                "share": number_format(round(100 * share, 1), 1),
                "count": number_format(day.count, force_grouping=True),
            }
            if share is not None
            else "",
            links.to(FinishedTask, status="FAILED"),
            badges.BAD if day.failed else "",
        ),
        Tile(
            _("Throughput"),
            _("%(number)s/min") % {"number": _rate(rate)},
            _("p95 wait %(time)s") % {"time": duration(wait)} if wait is not None else "",
            links.to(FinishedTask),
        ),
    ]


def throughput(series: Series) -> dict[str, Any]:
    """Return the chart of what ended when, and its table."""
    intervals = series.intervals
    clock = [_clock(i.start, series.window) for i in intervals]
    stacks = [
        (badges.OK, _("successful"), [i.successful for i in intervals]),
        (badges.BAD, _("failed"), [i.failed for i in intervals]),
        (badges.WARN, _("cancelled"), [i.cancelled for i in intervals]),
    ]
    peak = max(i.ended for i in intervals)
    titles = [
        f"{at}: " + ", ".join(f"{values[n]:,} {name}" for _c, name, values in stacks if values[n])
        for n, at in enumerate(clock)
    ]
    sentence = _(
        "%(ended)s tasks ended in %(window)s, %(failed)s of them failed; at most %(peak)s "
        "in one interval."
    ) % {
        "ended": f"{series.ended:,}",
        "window": _window_name(series.window.hours),
        "failed": f"{series.failed:,}",
        "peak": f"{peak:,}",
    }
    heads = [_("From"), *(name.capitalize() for _c, name, _v in stacks)]
    rows = [
        [at, *(values[n] for _c, _n, values in stacks)]
        for n, at in enumerate(clock)
        if intervals[n].ended
    ]
    return {
        "drawing": charts.bars([(c, v) for c, _n, v in stacks], titles, sentence),
        "legend": [(c, name) for c, name, values in stacks if sum(values)],
        "peak": f"{peak:,}",
        "first": clock[0],
        "last": clock[-1],
        "table": charts.as_table(_("Throughput"), heads, rows),
    }


def waiting(series: Series) -> dict[str, Any]:
    """Return the chart of how long tasks waited for their first attempt, and its table."""
    from ..statistics.histograms import percentile

    intervals = series.intervals
    clock = [_clock(i.start, series.window) for i in intervals]
    p95 = [percentile(i.wait, 0.95) for i in intervals]
    median = [percentile(i.wait, 0.5) for i in intervals]
    peak = max((v for v in p95 if v is not None), default=None)
    sentence = _("Half of the tasks waited %(median)s at most, 95%% of them %(p95)s.") % {
        "median": duration(series.wait(0.5)),
        "p95": duration(series.wait(0.95)),
    }
    rows = [
        [at, duration(median[n]), duration(p95[n])]
        for n, at in enumerate(clock)
        if p95[n] is not None
    ]
    return {
        "drawing": charts.lines(
            [("bgt-line-run", p95), ("bgt-line-idle", median)], len(intervals), sentence
        ),
        "legend": [(badges.RUN, _("95th percentile")), (badges.IDLE, _("median"))],
        "peak": duration(peak),
        "first": clock[0],
        "last": clock[-1],
        "table": charts.as_table(
            _("Time waiting in queue"), [_("From"), _("Median"), _("95th percentile")], rows
        ),
    }


def _queues(snapshot: Snapshot, series: Series, links: Links) -> list[dict[str, Any]]:
    minutes = series.window.hours * 60
    found = []
    for queue in snapshot.queues:
        trend = series.queues.get(queue.name, [0] * series.window.intervals)
        rate = sum(trend) / minutes
        found.append(
            {
                "name": visible(queue.name),
                "address": links.to(Queue, "change", queue.name),
                "waiting": links.anchor(
                    links.to(QueuedTask, status="READY", queue=queue.name),
                    Counted.of([queue], "waiting").text,
                ),
                "oldest": duration(queue.oldest_age),
                "running": links.anchor(
                    links.to(QueuedTask, status="RUNNING", queue=queue.name),
                    Counted.of([queue], "running").text,
                ),
                "rate": _rate(rate),
                "trend": charts.spark(
                    trend,
                    _("%(count)s tasks ended in %(window)s")
                    % {
                        "count": f"{sum(trend):,}",
                        "window": _window_name(series.window.hours),
                    },
                ),
                "listeners": len(queue.workers),
                "paused": badges.badge(badges.WARN, _("Paused")) if queue.is_paused else "",
            }
        )
    return found


def _workers(snapshot: Snapshot, links: Links) -> list[dict[str, Any]]:
    found = []
    for worker in [*snapshot.live_workers, *snapshot.lost_workers]:
        condition = condition_of(worker, snapshot.now)
        found.append(
            {
                "name": visible(worker.name),
                "pid": worker.pid,
                "host": visible(worker.hostname),
                "address": links.to(Worker, "change", worker.pk),
                "queues": _listed(worker.queues) or _("all"),
                "busy": charts.meter(
                    worker.running,
                    worker.slots,
                    _("%(running)d of %(slots)d slots are busy")
                    % {"running": worker.running, "slots": worker.slots},
                ),
                "running": worker.running,
                "slots": worker.slots,
                "heard": short_moment(worker.heartbeat_at, snapshot.now),
                "version": visible(worker.version),
                "state": badges.badge(_CONDITIONS[condition], condition.label),
            }
        )
    return found


_CONDITIONS = {
    "STARTING": badges.IDLE,
    "RUNNING": badges.OK,
    "QUIET": badges.IDLE,
    "STOPPING": badges.WARN,
    "LOST": badges.BAD,
    "STOPPED": badges.IDLE,
}


def _tasks(sums: Sequence[TaskSums], links: Links) -> list[dict[str, Any]]:
    return [
        {
            "name": visible(one.task_path.rpartition(".")[2]),
            "path": visible(one.task_path),
            "address": links.to(FinishedTask, task=one.task_path),
            "runs": number_format(one.runs, force_grouping=True),
            "failed": number_format(one.failed, force_grouping=True),
            "total": duration(one.run_seconds),
            "p50": duration(one.p50),
            "p95": duration(one.p95),
            "longest": duration(one.longest),
        }
        for one in sums
    ]


# Words


def _listed(names: Sequence[Any]) -> str:
    """Return names in a row, the first ones of many."""
    shown = visible(", ".join(str(name)[:100] for name in names[:SHOWN_QUEUES]))
    return f"{shown}, …" if len(names) > SHOWN_QUEUES else shown


def _rate(number: float) -> Any:
    digits = 0 if number >= 10 else 1
    return number_format(round(number, digits), digits, force_grouping=True)


def _next(due: datetime | None, now: datetime) -> Any:
    if due is None:
        return ""
    return _("next %(when)s") % {"when": relative(due, now)} if due > now else _("due now")


def _window(request: HttpRequest) -> Window:
    try:
        return WINDOWS[int(request.GET.get("h", "1"))]
    except (ValueError, KeyError):
        return WINDOWS[1]


def _window_name(hours: int) -> str:
    if hours == 168:
        return _("7 days")
    return ngettext("%(count)d hour", "%(count)d hours", hours) % {"count": hours}


def _clock(start: datetime, window: Window) -> str:
    local = timezone.localtime(start)
    return date_format(local, "Y-m-d H:i" if window.hours > 24 else "H:i")
