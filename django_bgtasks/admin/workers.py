"""Workers: who is alive, what each runs, and asking one to take no more, or to stop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import path
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import workers as api
from ..models.queue import Queue
from ..models.queued import QueuedTask
from ..models.worker import Worker, WorkerRequest, WorkerState
from ..states import LiveStatus
from ..workers import Condition
from .badges import BAD, IDLE, OK, OUTLINE, RUN, WARN, badge, badge_of
from .base import clock_of
from .display import duration, moment, relative, short_moment, visible
from .meters import meter
from .pages import PageAdmin

COLORS: dict[Condition, str] = {
    Condition.STARTING: RUN,
    Condition.RUNNING: OK,
    Condition.QUIET: WARN + OUTLINE,
    Condition.STOPPING: WARN,
    Condition.LOST: BAD,
    Condition.STOPPED: IDLE,
}
#: Tasks of a worker that are listed.
MOST_TASKS = 200
#: Queues that a page links to, and characters that a name of one has.
MOST_QUEUES, LONGEST_QUEUE = 50, 100
#: The columns of a task that are shown.
_SHOWN = ("task_path", "queue_name", "status", "lease_until", "last_attempted_at", "attempt")


@admin.register(Worker)
class WorkerAdmin(PageAdmin):
    """What each runworker says of itself, and which have fallen silent."""

    list_display = (
        "shown_name",
        "state_shown",
        "served",
        "busy",
        "heard_briefly",
        "memory_shown",
        "version_shown",
        "finished_shown",
    )
    actions = ("quiet", "stop")

    class Media:
        css = {"all": ("bgtasks/bgtasks.css", "bgtasks/queues.css")}

    def has_stop_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "stop_worker")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if (
            request.method == "GET"
            and self.has_view_permission(request)
            and not Worker.objects.using(self.alias).exists()
        ):
            self.message_user(
                request,
                format_html(
                    "{} <code>python manage.py runworker</code>",
                    _("No worker has reported. Start one:"),
                ),
                messages.INFO,
            )
        return super().changelist_view(request, extra_context)

    # Verbs

    @admin.action(
        permissions=["stop"], description=gettext_lazy("Have the ticked workers take no more")
    )
    def quiet(self, request: HttpRequest, queryset: Any) -> None:
        self._ask(request, WorkerRequest.QUIET, list(queryset))

    @admin.action(permissions=["stop"], description=gettext_lazy("Stop the ticked workers…"))
    def stop(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        rows = list(queryset)
        if request.POST.get("confirmed"):
            self._ask(request, WorkerRequest.STOP, rows)
            return None
        hidden = [("action", "stop"), *((ACTION_CHECKBOX_NAME, str(row.pk)) for row in rows)]
        return self._stop_page(request, rows, hidden, back=self.address("changelist"))

    def _ask(self, request: HttpRequest, wanted: WorkerRequest, rows: Sequence[Worker]) -> None:
        done, skipped = [], []
        by = request.user.get_username()
        for row in rows:
            try:
                if api.ask(row, wanted, by=by):
                    done.append(row)
                else:
                    skipped.append(
                        _("%(name)s was asked before, or does so already.")
                        % {"name": visible(row.name)}
                    )
            except api.CannotObey as error:
                skipped.append(visible(error))
        if wanted == WorkerRequest.QUIET:
            self.log(request, done, gettext_lazy("Asked to take no more tasks."))
            text = ngettext(
                "%(count)d worker is asked to take no more tasks. It obeys within seconds.",
                "%(count)d workers are asked to take no more tasks. They obey within seconds.",
                len(done),
            )
        else:
            self.log(request, done, gettext_lazy("Asked to stop."))
            text = ngettext(
                "%(count)d worker is asked to stop. It obeys within seconds.",
                "%(count)d workers are asked to stop. They obey within seconds.",
                len(done),
            )
        self.answer(request, text % {"count": len(done)} if done else "", skipped)

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/quiet/", view(self.quiet_view), name=f"{prefix}_quiet"),
            path("<path:object_id>/stop/", view(self.stop_view), name=f"{prefix}_stop"),
            *super().get_urls(),
        ]

    def quiet_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Ask one worker to take no more."""
        return self._verb_view(request, object_id, WorkerRequest.QUIET)

    def stop_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Say what stopping one worker does, and ask it to."""
        if request.method != "GET":
            return self._verb_view(request, object_id, WorkerRequest.STOP)
        if not self.has_stop_permission(request):
            raise PermissionDenied
        row = self.row_of_page(request, object_id)
        if isinstance(row, HttpResponseBase):
            return row
        back = self.address("change", quote(row.pk))
        return self._stop_page(request, [row], [], back=back)

    def _verb_view(
        self, request: HttpRequest, object_id: str, wanted: WorkerRequest
    ) -> HttpResponseBase:
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not (self.has_view_permission(request) and self.has_stop_permission(request)):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        self._ask(request, wanted, [row])
        return HttpResponseRedirect(self.address("change", quote(row.pk)))

    def _stop_page(
        self,
        request: HttpRequest,
        rows: Sequence[Worker],
        hidden: Iterable[tuple[str, str]],
        *,
        back: str,
    ) -> HttpResponse:
        def context() -> dict[str, Any]:
            alone = api.only_served_by(rows, api.known(self.alias))
            return {
                "workers": [self._in_short(row) for row in rows],
                "running": sum(row.running for row in rows),
                "alone": [visible(name) for name in alone[:MOST_QUEUES]],
                "hidden": list(hidden),
                "back": back,
            }

        count = len(rows)
        title = ngettext("Stop %(count)d worker", "Stop %(count)d workers", count)
        return self.page(
            request,
            "admin/bgtasks/worker_stop.html",
            title=title % {"count": count},
            context=context,
        )

    def _in_short(self, row: Worker) -> dict[str, Any]:
        return {
            "name": visible(row.name),
            "state": self.state_shown(row),
            "queues": self.served(row),
            "busy": self.busy(row),
        }

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
        row = self.row_of_page(request, object_id)
        if isinstance(row, HttpResponseBase):
            return row

        def context() -> dict[str, Any]:
            condition = api.condition_of(row)
            alive = condition in api.ALIVE
            may_ask = alive and self.has_stop_permission(request)
            return {
                "name": visible(row.name),
                "state": self.state_shown(row),
                "is_lost": condition == Condition.LOST,
                "silence": duration(api.silence(row)),
                "is_quiet": condition == Condition.QUIET,
                "asked": asked_in_words(row),
                "clock": clock_in_words(row) if alive else "",
                "facts": self._facts(request, row),
                "busy": self.busy(row),
                "running": row.running,
                "tasks": self._tasks(request, row),
                "may_quiet": may_ask and not row.request and row.state == WorkerState.RUNNING,
                "may_stop": may_ask
                and row.request != WorkerRequest.STOP
                and row.state != WorkerState.STOPPING,
                "back": self.address("changelist"),
                "addresses": {
                    name: self.address(name, quote(row.pk)) for name in ("quiet", "stop", "history")
                },
            }

        return self.page(
            request,
            "admin/bgtasks/worker.html",
            title=_("Worker %(name)s") % {"name": visible(row.name)},
            context=context,
            stamp=lambda: _stamp(row),
        )

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponseRedirect:
        text = _("There is no such worker. One that ended is forgotten after an hour.")
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self.address("changelist"))

    def _facts(self, request: HttpRequest, row: Worker) -> list[tuple[Any, Any]]:
        """Return what is known of a worker, each with its name."""
        now = clock_of(row)
        duties = [
            words
            for has, words in (
                (row.scheduler, _("fires schedules")),
                (row.maintenance, _("rescues, prunes, starts what is due")),
            )
            if has
        ]
        return [
            (_("Queues"), self._queues(request, row)),
            (
                _("Slots"),
                _("%(slots)d (%(processes)d × %(threads)d)")
                % {"slots": row.slots, "processes": row.processes, "threads": row.threads},
            ),
            (_("Tasks done"), number_format(row.finished)),
            (_("Last heard of"), moment(row.heartbeat_at, now)),
            (_("Started"), moment(row.started_at, now)),
            (_("Memory"), self.memory_shown(row)),
            (_("Also"), ", ".join(duties) or "-"),
            (
                _("Host"),
                _("%(host)s, process %(pid)d") % {"host": visible(row.hostname), "pid": row.pid},
            ),
            (_("Version"), visible(row.version)),
            (_("Backend"), visible(row.backend)),
            (_("Counts as lost after"), duration(row.lease)),
            (_("Clock"), offset_in_words(row)),
            (_("Id"), format_html("<code>{}</code>", row.pk)),
        ]

    def _queues(self, request: HttpRequest, row: Worker) -> Any:
        short = all(len(str(name)) <= LONGEST_QUEUE for name in row.queues[:MOST_QUEUES])
        if not row.queues or not short or not self.may(request, "view_queue"):
            return self.served(row)
        links = (
            (self.address("change", quote(name), model=Queue), visible(name))
            for name in map(str, row.queues[:MOST_QUEUES])
        )
        shown = format_html_join(", ", '<a href="{}">{}</a>', links)
        return format_html("{}, …", shown) if len(row.queues) > MOST_QUEUES else shown

    def _tasks(self, request: HttpRequest, row: Worker) -> list[dict[str, Any]]:
        """Return the tasks that workers of this name have taken, the longest first."""
        now = clock_of(row)
        linked = self.may(request, "view_queuedtask")
        tasks = (
            QueuedTask.objects.using(self.alias)
            .filter(status=LiveStatus.RUNNING, worker_id=row.name)
            .only(*_SHOWN)
            .order_by("last_attempted_at", "pk")[:MOST_TASKS]
        )
        return [
            {
                "name": visible(task.task_name),
                "path": visible(task.task_path),
                "id": task.short_id,
                "address": self.address("change", task.pk, model=QueuedTask) if linked else "",
                "state": badge_of(task, now),
                "queue": visible(task.queue_name),
                "since": short_moment(task.last_attempted_at, now),
                "attempt": task.attempt,
            }
            for task in tasks
        ]

    # Columns

    @admin.display(description=gettext_lazy("name"))
    def shown_name(self, obj: Worker) -> str:
        return visible(obj.name)

    @admin.display(description=gettext_lazy("state"))
    def state_shown(self, obj: Worker) -> str:
        condition = api.condition_of(obj, clock_of(obj))
        return badge(COLORS[condition], condition.label)

    @admin.display(description=gettext_lazy("queues"))
    def served(self, obj: Worker) -> str:
        return visible(", ".join(map(str, obj.queues))) if obj.queues else _("All")

    @admin.display(description=gettext_lazy("busy"))
    def busy(self, obj: Worker) -> str:
        return meter(obj.running, obj.slots)

    @admin.display(description=gettext_lazy("last heard of"))
    def heard_briefly(self, obj: Worker) -> str:
        return short_moment(obj.heartbeat_at, clock_of(obj))

    @admin.display(description=gettext_lazy("memory"))
    def memory_shown(self, obj: Worker) -> str:
        return "-" if obj.memory is None else filesizeformat(obj.memory)

    @admin.display(description=gettext_lazy("version"))
    def version_shown(self, obj: Worker) -> str:
        return visible(obj.version)

    @admin.display(description=gettext_lazy("tasks done"))
    def finished_shown(self, obj: Worker) -> str:
        return number_format(obj.finished)


def asked_in_words(row: Worker) -> str:
    """Return what was asked of a worker, when and by whom; "" for nothing."""
    if not row.request or row.requested_at is None:
        return ""
    words = {
        "when": relative(row.requested_at, clock_of(row)),
        "who": visible(row.requested_by) or _("somebody"),
    }
    if row.request == WorkerRequest.QUIET:
        return _("Asked to take no more tasks %(when)s by %(who)s.") % words
    return _("Asked to stop %(when)s by %(who)s.") % words


def clock_in_words(row: Worker) -> str:
    """Return a warning about a clock that is off, "" for one that isn't."""
    if not api.clock_differs(row):
        return ""
    return _(
        "The clock of its machine differs from the database's: it is %(offset)s. Set both by "
        "NTP, or times in its log and in what its tasks write can't be compared."
    ) % {"offset": offset_in_words(row)}


def offset_in_words(row: Worker) -> str:
    """Return by how much the clock of a worker's machine is off the database's."""
    if abs(row.clock_offset) < 0.1:
        return _("right")
    time = {"time": duration(abs(row.clock_offset))}
    return (_("%(time)s fast") if row.clock_offset > 0 else _("%(time)s slow")) % time


def _stamp(row: Worker) -> Sequence[Any]:
    """Return what the page of a worker depends on: ages are shown as of its last beat."""
    silent = api.condition_of(row) not in api.ALIVE
    now = clock_of(row).timestamp()
    return [
        int(now // 60) if silent else int(now // 5),
        row.heartbeat_at,
        row.state,
        row.request,
        row.requested_at,
        row.running,
        row.finished,
    ]
