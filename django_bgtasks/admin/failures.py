"""Failures by cause: how often, since when, where, and what people say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import path
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import failures as api
from ..db import operations_for
from ..filtering import RETRYING
from ..models.bulk import BulkVerb
from ..models.failure import FailureGroup, FailureState
from ..models.finished import FinishedTask
from ..models.queue import Queue
from ..models.queued import QueuedTask
from . import charts
from .badges import BAD, IDLE, OK, WARN, badge
from .base import BoundedChangeList, clock_of
from .bulk_page import may_act
from .display import cut, moment, short_moment, visible
from .pages import PageAdmin

#: Tasks that tell which queues and workers are affected, and those that are listed.
LATEST, LISTED = 100, 10
#: The chart: days, and hours of one bar.
DAYS, STEP = 7, 6
#: Causes whose tasks the filter offers.
CHOICES = 500
#: Characters of a traceback that the page shows.
TRACEBACK = 100_000
#: Seconds of a mute by what the button says.
MUTES = {"day": 86_400, "week": 604_800}

_COLORS: dict[str, str] = {
    FailureState.OPEN: BAD,
    FailureState.ACKNOWLEDGED: WARN,
    FailureState.MUTED: IDLE,
}


class StateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return FailureState.choices

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = operations_for(queryset.db).now_expression(None)
        muted = {"muted_until__gt": now}
        match self.value():
            case FailureState.MUTED:
                return queryset.filter(**muted)
            case FailureState.ACKNOWLEDGED:
                return queryset.filter(acknowledged_at__isnull=False).exclude(**muted)
            case FailureState.OPEN:
                return queryset.filter(acknowledged_at__isnull=True).exclude(**muted)
        return queryset


class FailedTaskFilter(admin.SimpleListFilter):
    title = gettext_lazy("task")
    parameter_name = "task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        rows = FailureGroup.objects.using(model_admin.alias).order_by("-last_seen")
        paths = sorted(set(rows.values_list("task_path", flat=True)[:CHOICES]))
        return [(name, visible(name)) for name in paths]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        return queryset if value is None else queryset.filter(task_path=value)


class FailureChangeList(BoundedChangeList):
    """Reads the counts of all causes of a page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        page: Any = self.model_admin
        rows = list(self.result_list)
        if rows:
            hours = api.series(page.alias, [row.pk for row in rows], now=clock_of(rows[0]))
            for row in rows:
                row.hours = hours.get(row.pk, ())
                row.links = page.may(request, "view_finishedtask")
        self.result_list = rows


@admin.register(FailureGroup)
class FailureGroupAdmin(PageAdmin):
    """Causes of failures; workers write them, people acknowledge and mute them."""

    list_display = ("cause", "task", "recent", "in_all", "last", "state", "first")
    list_filter = (StateFilter, FailedTaskFilter)
    deferred = ("traceback",)

    class Media:
        css = {"all": ("bgtasks/bgtasks.css", "bgtasks/failures.css")}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return FailureChangeList

    def may_change(self, request: HttpRequest) -> bool:
        """Say whether the user may acknowledge and mute."""
        return self.may(request, "change_failuregroup")

    # The list

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if request.method == "GET" and self.has_view_permission(request):
            day = timezone.now() - timedelta(hours=api.RECENT)
            rows = FailureGroup.objects.using(self.alias).filter(last_seen__gte=day)
            if not rows.exists():
                calm = badge(OK, _("No failures in the last 24 hours."))
                self.message_user(request, calm, messages.INFO)
        return super().changelist_view(request, extra_context)

    @admin.display(description=gettext_lazy("cause"))
    def cause(self, obj: FailureGroup) -> str:
        return format_html(
            '<span title="{}">{}</span> <span class="bgt-said">{}</span>',
            visible(obj.exception_class),
            visible(obj.exception_name),
            visible(obj.message),
        )

    @admin.display(description=gettext_lazy("task"))
    def task(self, obj: FailureGroup) -> str:
        return format_html(
            '<span title="{}">{}</span>',
            visible(obj.task_path),
            _breakable(visible(obj.task_path.rpartition(".")[2])),
        )

    @admin.display(description=gettext_lazy("24 h"))
    def recent(self, obj: Any) -> str:
        return self._number(obj, sum(obj.hours), since="24h")

    @admin.display(description=gettext_lazy("total"))
    def in_all(self, obj: Any) -> str:
        return self._number(obj, obj.total)

    def _number(self, obj: Any, count: int, **more: str) -> str:
        shown = number_format(count, force_grouping=True)
        url = self.address("changelist", model=FinishedTask) if obj.links and count else ""
        query = urlencode({"cause": obj.pk, **more})
        return format_html('<a href="{}?{}">{}</a>', url, query, shown) if url else shown

    @admin.display(description=gettext_lazy("first seen"))
    def first(self, obj: FailureGroup) -> str:
        return short_moment(obj.first_seen, clock_of(obj))

    @admin.display(description=gettext_lazy("last seen"))
    def last(self, obj: FailureGroup) -> str:
        return short_moment(obj.last_seen, clock_of(obj))

    @admin.display(description=gettext_lazy("state"))
    def state(self, obj: FailureGroup) -> str:
        found = obj.state(clock_of(obj))
        return badge(_COLORS[found], found.label)

    # Verbs

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        return [
            *(
                path(f"<path:object_id>/{name}/", view(act), name=f"{prefix}_{name}")
                for name, act in (
                    ("acknowledge", self.acknowledge_view),
                    ("reopen", self.reopen_view),
                    ("mute", self.mute_view),
                    ("unmute", self.unmute_view),
                )
            ),
            *super().get_urls(),
        ]

    def acknowledge_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Write down that somebody knows of a cause, with a note."""
        note = request.POST.get("note", "")

        def act(group: FailureGroup) -> tuple[bool, Any]:
            by = request.user.get_username()
            changed = api.acknowledge(self.alias, group.pk, by=by, note=note)
            said = visible(note.strip())
            return changed, f"Acknowledged: {said}" if said else gettext_lazy("Acknowledged.")

        return self._verb_view(request, object_id, act, _("The failure is acknowledged."))

    def reopen_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Take an acknowledgement and a mute back."""

        def act(group: FailureGroup) -> tuple[bool, Any]:
            return api.reopen(self.alias, group.pk), gettext_lazy("Reopened.")

        return self._verb_view(request, object_id, act, _("The failure is open again."))

    def mute_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Leave a cause out of the dashboard for a day or a week."""
        length = request.POST.get("for", "")

        def act(group: FailureGroup) -> tuple[bool, Any]:
            if length not in MUTES:
                return False, ""
            changed = api.mute(self.alias, group.pk, MUTES[length])
            return changed, gettext_lazy("Muted for a day.") if length == "day" else gettext_lazy(
                "Muted for a week."
            )

        return self._verb_view(request, object_id, act, _("The failure is muted."))

    def unmute_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """End a mute."""

        def act(group: FailureGroup) -> tuple[bool, Any]:
            return api.unmute(self.alias, group.pk), gettext_lazy("Unmuted.")

        return self._verb_view(request, object_id, act, _("The failure is no longer muted."))

    def _verb_view(
        self,
        request: HttpRequest,
        object_id: str,
        act: Callable[[FailureGroup], tuple[bool, Any]],
        done: str,
    ) -> HttpResponseBase:
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not self.may_change(request):
            raise PermissionDenied
        group = self.row_of_page(request, object_id)
        if isinstance(group, HttpResponseBase):
            return group
        changed, sentence = act(group)
        if changed:
            self.log(request, [group], sentence)
            self.answer(request, done, [])
        else:
            self.answer(request, "", [_("Nothing was changed.")])
        return HttpResponseRedirect(self.address("change", quote(group.pk)))

    # The page of one

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> Any:
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        group = self.row_of_page(request, object_id)
        if isinstance(group, HttpResponseBase):
            return group
        now = clock_of(group)
        state = group.state(now)

        def context() -> dict[str, Any]:
            return {
                "group": group,
                "page_name": _("%(exception)s in %(task)s")
                % {
                    "exception": visible(group.exception_name),
                    "task": visible(group.task_path.rpartition(".")[2]),
                },
                "exception": visible(group.exception_class),
                "task": visible(group.task_path),
                "message": cut(group.message),
                "state": badge(_COLORS[state], state.label),
                "is_open": state == FailureState.OPEN,
                "is_muted": state == FailureState.MUTED,
                "note": visible(group.note),
                "note_length": FailureGroup._meta.get_field("note").max_length,
                "acknowledged_by": visible(group.acknowledged_by),
                "acknowledged": moment(group.acknowledged_at, now),
                "muted_until": moment(group.muted_until, now),
                "total": number_format(group.total, force_grouping=True),
                "first": moment(group.first_seen, now),
                "last": moment(group.last_seen, now),
                "may_see": self.may(request, "view_payload"),
                "traceback": cut(group.traceback, most=TRACEBACK),
                "may_change": self.may_change(request),
                "addresses": self._addresses(request, group),
                **self._chart(group, now),
                **self._affected(request, group, now),
            }

        return self.page(
            request,
            "admin/bgtasks/failure.html",
            # Short: the name of a task is one word, and the theme's heading breaks none.
            title=Truncator(visible(group.exception_name)).chars(30),
            context=context,
            stamp=lambda: _stamp(group, now, state),
        )

    def _addresses(self, request: HttpRequest, group: FailureGroup) -> dict[str, str]:
        found = {
            name: self.address(name, quote(group.pk))
            for name in ("acknowledge", "reopen", "mute", "unmute", "history")
        }
        found["list"] = self.address("changelist")
        if self.may(request, "view_finishedtask"):
            url = self.address("changelist", model=FinishedTask)
            found["results"] = f"{url}?{urlencode({'cause': group.pk})}" if url else ""
        if may_act(self, request, BulkVerb.RETRY):
            query = urlencode({"cause": group.pk, "verb": BulkVerb.RETRY.value})
            found["retry"] = f"{self.address('bulk', model=FinishedTask)}?{query}"
        if may_act(self, request, BulkVerb.CANCEL):
            query = urlencode(
                {
                    "status": RETRYING,
                    "task": group.task_path,
                    "error": group.exception_class,
                    "verb": BulkVerb.CANCEL.value,
                }
            )
            found["cancel"] = f"{self.address('bulk', model=QueuedTask)}?{query}"
        return found

    def _chart(self, group: FailureGroup, now: datetime) -> dict[str, Any]:
        """Return how many tasks failed in each six hours of a week, none left out."""
        hours = DAYS * 24
        counts = api.series(self.alias, [group.pk], now=now, hours=hours).get(
            group.pk, (0,) * hours
        )
        starts = api.hours_until(now, hours)[::STEP]
        sums = [sum(counts[n : n + STEP]) for n in range(0, hours, STEP)]
        names = [date_format(timezone.localtime(start), "Y-m-d H:i") for start in starts]
        shown = [number_format(count, force_grouping=True) for count in sums]
        total = sum(sums)
        sentence = ngettext(
            "%(count)s failure in 7 days, in bars of 6 hours; at most %(most)s in one of them",
            "%(count)s failures in 7 days, in bars of 6 hours; at most %(most)s in one of them",
            total,
        ) % {
            "count": number_format(total, force_grouping=True),
            "most": number_format(max(sums), force_grouping=True),
        }
        titles = [f"{name}: {count}" for name, count in zip(names, shown, strict=True)]
        rows = list(zip(names, shown, strict=True))
        return {
            "chart": charts.bars([(BAD, sums)], titles, sentence),
            "chart_table": charts.as_table(sentence, [_("From"), _("Failures")], rows),
            "chart_first": names[0],
            "chart_last": date_format(timezone.localtime(now), "Y-m-d H:i"),
            "chart_peak": number_format(max(sums), force_grouping=True),
            "chart_total": total,
        }

    def _affected(self, request: HttpRequest, group: FailureGroup, now: datetime) -> dict[str, Any]:
        """Return queues, workers and the latest tasks, from the newest ones alone."""
        # Above "", too: SQLite takes a partial index only for its own condition.
        caused = {"fingerprint": group.pk, "fingerprint__gt": ""}
        rows = FinishedTask.objects.using(self.alias).filter(**caused)
        columns = ("task_path", "queue_name", "worker_id", "finished_at", "attempt", "reason")
        latest = list(rows.order_by("-pk").only(*columns)[:LATEST])
        linked = self.may(request, "view_finishedtask")
        queues_linked = self.may(request, "view_queue")
        return {
            "looked_at": len(latest),
            "queues": [
                {
                    "name": visible(name),
                    "count": count,
                    "address": self.address("change", quote(name), model=Queue)
                    if queues_linked
                    else "",
                }
                for name, count in Counter(row.queue_name for row in latest).most_common(10)
            ],
            "workers": [
                {"name": visible(name) or "-", "count": count}
                for name, count in Counter(row.worker_id for row in latest).most_common(10)
            ],
            "tasks": [
                {
                    "id": row.short_id,
                    "address": self.address("change", row.pk, model=FinishedTask) if linked else "",
                    "queue": visible(row.queue_name),
                    "worker": visible(row.worker_id) or "-",
                    "attempts": row.attempt,
                    "ended": short_moment(row.finished_at, now),
                    "reason": visible(row.reason),
                }
                for row in latest[:LISTED]
            ],
        }


def _breakable(name: str) -> SafeString:
    """Return a name that may go on in the next line after each of its words."""
    words = ((word,) for word in name.split("_"))
    return format_html_join(SafeString("_<wbr>"), "{}", words)


def _stamp(group: FailureGroup, now: datetime, state: FailureState) -> Sequence[Any]:
    """Return what the page depends on; ages are as they are of the last minute."""
    return [
        int(now.timestamp() // 60),
        group.total,
        group.last_seen,
        state,
        group.acknowledged_at,
        group.note,
        group.muted_until,
    ]
