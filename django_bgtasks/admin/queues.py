"""Queues: what waits in them, which are paused and by whom, and pausing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import path
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import queues as api
from ..models.queue import Queue
from ..models.queued import QueuedTask
from ..models.worker import Worker
from ..monitoring.limits import LimitFigures, limit_figures
from ..monitoring.queues import QueueFigures, queue_figures
from ..states import LiveStatus
from .base import BoundedChangeList
from .display import duration, relative, visible
from .meters import meter
from .pages import PageAdmin
from .policies import limit_in_words
from .queue_words import counted, pause_in_words, state_badge

REASON_LENGTH = Queue._meta.get_field("reason").max_length


class TargetForm(forms.Form):
    """When a queue counts as late; empty: as the settings say."""

    target = forms.FloatField(required=False, min_value=1, max_value=api.LONGEST_TARGET)


class QueueChangeList(BoundedChangeList):
    """Reads the figures of all queues of a page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        page: Any = self.model_admin
        rows = list(self.result_list)
        figures = queue_figures(page.alias, [row.pk for row in rows])
        for row, found in zip(rows, figures, strict=True):
            row.figures = found
            row.links = page.may_see_tasks(request)
        self.result_list = rows


@admin.register(Queue)
class QueueAdmin(PageAdmin):
    """Queues; running tasks of a paused queue finish, no other starts."""

    list_display = (
        "shown_name",
        "state",
        "waiting",
        "oldest",
        "running",
        "listening",
        "target",
    )
    actions = ("pause", "resume")

    class Media:
        css = {"all": ("bgtasks/bgtasks.css", "bgtasks/queues.css")}

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "pause_queue")

    def may_see_tasks(self, request: HttpRequest) -> bool:
        """Say whether numbers of tasks are links to them."""
        return self.may(request, "view_queuedtask")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return QueueChangeList

    # Verbs

    @admin.action(permissions=["pause"], description=gettext_lazy("Pause the ticked queues…"))
    def pause(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        rows = list(queryset)
        if request.POST.get("confirmed"):
            self._pause(request, rows)
            return None
        hidden = [("action", "pause"), *((ACTION_CHECKBOX_NAME, row.pk) for row in rows)]
        return self._pause_page(request, rows, hidden, back=self.address("changelist"))

    @admin.action(permissions=["pause"], description=gettext_lazy("Resume the ticked queues"))
    def resume(self, request: HttpRequest, queryset: Any) -> None:
        self._resume(request, list(queryset))

    def _changed(
        self, request: HttpRequest, queues: list[Queue], act: Callable[[str], bool]
    ) -> list[Queue] | None:
        """Do it to each queue; return those that it changed, None after it said what is wrong."""
        try:
            return [queue for queue in queues if act(queue.pk)]
        except api.UnknownQueue as error:  # Such as a name that is not printable.
            self.message_user(request, visible(error), messages.ERROR)
            return None

    def _pause(self, request: HttpRequest, queues: list[Queue]) -> None:
        reason = request.POST.get("reason", "").replace("\x00", "").strip()[:REASON_LENGTH]
        by = request.user.get_username()
        done = self._changed(
            request,
            queues,
            lambda name: api.pause(name, reason=reason, by=by, database=self.alias),
        )
        if done is None:
            return
        self.log(request, done, f"Paused: {reason}" if reason else gettext_lazy("Paused."))
        skipped = len(queues) - len(done)
        self.answer(
            request,
            ngettext(
                "%(count)d queue is paused. Its running tasks finish.",
                "%(count)d queues are paused. Their running tasks finish.",
                len(done),
            )
            % {"count": len(done)}
            if done
            else "",
            [
                ngettext(
                    "%(count)d was skipped: it was paused already.",
                    "%(count)d were skipped: they were paused already.",
                    skipped,
                )
                % {"count": skipped}
            ]
            if skipped
            else [],
        )

    def _resume(self, request: HttpRequest, queues: list[Queue]) -> None:
        done = self._changed(request, queues, lambda name: api.resume(name, database=self.alias))
        if done is None:
            return
        self.log(request, done, gettext_lazy("Resumed."))
        skipped = len(queues) - len(done)
        self.answer(
            request,
            ngettext("%(count)d queue goes on.", "%(count)d queues go on.", len(done))
            % {"count": len(done)}
            if done
            else "",
            [
                ngettext(
                    "%(count)d was skipped: it was not paused.",
                    "%(count)d were skipped: they were not paused.",
                    skipped,
                )
                % {"count": skipped}
            ]
            if skipped
            else [],
        )

    def _set_target(self, request: HttpRequest, queues: list[Queue]) -> None:
        form = TargetForm(request.POST)
        if not form.is_valid():
            text = _("%(value)s is no latency target: type seconds, 1 or more, or nothing.") % {
                "value": repr(visible(request.POST.get("target", ""))[:50])
            }
            self.message_user(request, text, messages.ERROR)
            return
        seconds = form.cleaned_data["target"]
        done = self._changed(
            request,
            queues,
            lambda name: api.set_latency_target(name, seconds, database=self.alias),
        )
        if done is None:
            return
        said = "as the settings say" if seconds is None else f"{seconds:g} s"
        self.log(request, done, f"Latency target: {said}.")
        self.answer(request, _("The latency target is changed.") if done else "", [])

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/pause/", view(self.pause_view), name=f"{prefix}_pause"),
            path("<path:object_id>/resume/", view(self.resume_view), name=f"{prefix}_resume"),
            path("<path:object_id>/target/", view(self.target_view), name=f"{prefix}_target"),
            *super().get_urls(),
        ]

    def pause_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Ask for a reason, and pause one queue."""
        if request.method != "GET":
            return self._verb_view(request, object_id, "pause_queue", self._pause)
        if not self.has_pause_permission(request):
            raise PermissionDenied
        queue = self.row_of_page(request, object_id)
        if isinstance(queue, HttpResponseBase):
            return queue
        return self._pause_page(request, [queue], [], back=self.address("change", quote(queue.pk)))

    def _pause_page(
        self,
        request: HttpRequest,
        rows: Sequence[Queue],
        hidden: Iterable[tuple[str, str]],
        *,
        back: str,
    ) -> HttpResponse:
        def context() -> dict[str, Any]:
            figures = queue_figures(self.alias, [row.pk for row in rows])
            return {
                "queues": [
                    {
                        "name": visible(found.name),
                        "waiting": counted(found, "waiting"),
                        "running": counted(found, "running"),
                    }
                    for found in figures
                ],
                "are_paused": any(found.is_paused for found in figures),
                "reason_length": REASON_LENGTH,
                "hidden": list(hidden),
                "back": back,
            }

        if len(rows) == 1:
            title = _("Pause the queue %(name)s") % {"name": visible(rows[0].pk)}
        else:
            title = ngettext("Pause %(count)d queue", "Pause %(count)d queues", len(rows)) % {
                "count": len(rows)
            }
        return self.page(request, "admin/bgtasks/queue_pause.html", title=title, context=context)

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Resume one queue."""
        return self._verb_view(request, object_id, "pause_queue", self._resume)

    def target_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Change when one queue counts as late."""
        return self._verb_view(request, object_id, "change_queue", self._set_target)

    def _verb_view(
        self,
        request: HttpRequest,
        object_id: str,
        codename: str,
        act: Callable[[HttpRequest, list[Queue]], None],
    ) -> HttpResponseBase:
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not (self.has_view_permission(request) and self.may(request, codename)):
            raise PermissionDenied
        queue = self.get_object(request, unquote(object_id))
        if queue is None:
            return HttpResponseRedirect(self.address("changelist"))
        act(request, [queue])
        return HttpResponseRedirect(self.address("change", quote(queue.pk)))

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
        queue = self.row_of_page(request, object_id)
        if isinstance(queue, HttpResponseBase):
            return queue
        (figures,) = queue_figures(self.alias, [queue.pk])

        def context() -> dict[str, Any]:
            return {
                "name": visible(queue.pk),
                "figures": figures,
                "state": state_badge(figures),
                "pause": pause_in_words(figures),
                "tiles": self._tiles(request, figures),
                "workers": self._workers(request, figures),
                "limits": self._limits(request, figures),
                # As an input of numbers has them, whatever the language.
                "own_target": f"{figures.latency_target:g}" if figures.has_own_target else "",
                "target": f"{figures.latency_target:g}",
                "may_pause": self.has_pause_permission(request),
                "may_change": self.may(request, "change_queue"),
                "back": self.address("changelist"),
                "addresses": {
                    name: self.address(name, quote(queue.pk))
                    for name in ("pause", "resume", "target", "history")
                },
            }

        return self.page(
            request,
            "admin/bgtasks/queue.html",
            title=_("Queue %(name)s") % {"name": visible(queue.pk)},
            context=context,
            stamp=lambda: _stamp(figures),
        )

    def _tiles(self, request: HttpRequest, figures: QueueFigures) -> list[dict[str, Any]]:
        """Return the numbers of a queue with their links."""
        linked = self.may_see_tasks(request)
        age = figures.oldest_age
        tiles = [
            {
                "label": label,
                "number": counted(figures, name),
                "address": self._tasks_address(figures.name, status) if linked else "",
                "note": "",
            }
            for name, status, label in (
                ("waiting", LiveStatus.READY, _("Waiting")),
                ("running", LiveStatus.RUNNING, _("Running")),
                ("scheduled", LiveStatus.SCHEDULED, _("Scheduled")),
                ("held", LiveStatus.WAITING, _("Blocked")),
            )
        ]
        if age is not None:
            tiles[0]["note"] = _("the oldest for %(time)s") % {"time": duration(age)}
        tiles[3]["note"] = _("at limits and in workflows")
        return tiles

    def _workers(self, request: HttpRequest, figures: QueueFigures) -> list[dict[str, Any]]:
        """Return those that listen to a queue, the ones that take from it first."""
        linked = self.may(request, "view_worker")
        return [
            {
                "name": visible(worker.name),
                "address": self.address("change", worker.pk, model=Worker) if linked else "",
                "takes": takes,
                "busy": meter(worker.running, worker.slots),
            }
            for takes, group in ((True, figures.workers), (False, figures.resting))
            for worker in group
        ]

    def _limits(self, request: HttpRequest, figures: QueueFigures) -> list[dict[str, Any]]:
        """Return the limits that have tasks of a queue, in words."""
        may_see = self.may(request, "view_payload")
        return [
            {
                "words": limit_in_words(found.sample, found.digest, figures.now, may_see=may_see),
                "running": number_format(found.running),
                "waiting": number_format(found.waiting) + "+" * found.is_capped,
                "next": _next_start(found, figures),
            }
            for found in limit_figures(self.alias, figures.name)
        ]

    # Columns

    def _tasks_address(self, name: str, status: str) -> str:
        url = self.address("changelist", model=QueuedTask)
        return url and f"{url}?{urlencode({'status': status, 'queue': name})}"

    def _tasks(self, obj: Any, name: str, status: str) -> str:
        shown = counted(obj.figures, name)
        url = self._tasks_address(obj.name, status) if obj.links else ""
        return format_html('<a href="{}">{}</a>', url, shown) if url else shown

    @admin.display(description=gettext_lazy("name"))
    def shown_name(self, obj: Queue) -> str:
        return visible(obj.name)

    @admin.display(description=gettext_lazy("state"))
    def state(self, obj: Any) -> str:
        return format_html("{} {}", state_badge(obj.figures), pause_in_words(obj.figures))

    @admin.display(description=gettext_lazy("waiting"))
    def waiting(self, obj: Any) -> str:
        return self._tasks(obj, "waiting", LiveStatus.READY)

    @admin.display(description=gettext_lazy("oldest"))
    def oldest(self, obj: Any) -> str:
        return duration(obj.figures.oldest_age)

    @admin.display(description=gettext_lazy("running"))
    def running(self, obj: Any) -> str:
        return self._tasks(obj, "running", LiveStatus.RUNNING)

    @admin.display(description=gettext_lazy("workers"))
    def listening(self, obj: Any) -> str:
        return number_format(len(obj.figures.workers))

    @admin.display(description=gettext_lazy("latency target"))
    def target(self, obj: Any) -> str:
        return duration(obj.figures.latency_target)


def _next_start(found: LimitFigures, figures: QueueFigures) -> str:
    if found.next_at is None or found.next_at <= figures.now:
        return "-"
    return relative(found.next_at, figures.now)


def _stamp(figures: QueueFigures) -> Sequence[Any]:
    """Return what the page of a queue depends on; ages are shown to the minute at rest."""
    at_work = figures.waiting or figures.running or figures.held
    moment = figures.now.timestamp()
    return [
        int(moment) if at_work else int(moment // 60),
        figures.waiting,
        figures.running,
        figures.scheduled,
        figures.held,
        figures.paused_at,
        figures.paused_by,
        figures.reason,
        figures.latency_target,
        *((worker.pk, worker.state, worker.running) for worker in figures.workers),
        *((worker.pk, worker.state, worker.running) for worker in figures.resting),
    ]
