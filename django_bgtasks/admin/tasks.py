"""Tasks: what is not final."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models.cancellation import Cancellation
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..states import LiveStatus
from . import policies
from .base import clock_of
from .display import duration, moment, visible
from .lists import LIVE_FILTERS
from .records import TaskRecordAdmin
from .verbs import CANCEL, CANCEL_BY_FORCE


@admin.register(QueuedTask)
class QueuedTaskAdmin(TaskRecordAdmin):
    """Live tasks, and their cancelling."""

    other_model = FinishedTask
    empty_text = gettext_lazy(
        "No task is waiting or running. Those that have ended are among the results."
    )
    verbs = (CANCEL, CANCEL_BY_FORCE)
    verb_permission = "cancel_queuedtask"

    list_display = (
        "name",
        "state",
        "queue",
        "enqueued_briefly",
        "why_briefly",
        "waited",
        "took",
        "attempt",
        "worker",
    )
    list_filter = LIVE_FILTERS
    # Those of one status and queue in the order of their claim; of one status the few
    # that have failed before are looked for.
    indexed = (frozenset(), frozenset({"status"}), frozenset({"status", "queue"}))
    actions = ("cancel",)
    time_fields = (
        ("enqueued", "run_after_shown", "due"),
        ("started", "last_started", "lease"),
        ("waited", "took"),
    )
    internal_fields = ("rank", "claim_id")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.has_verb_permission(request)

    def present_facts(self, obj: Any, may_see: bool) -> list[str]:
        found = []
        if obj.status == LiveStatus.WAITING:
            found.append("waits_at" if may_see else "waits_at_unseen")
        if _request_to_end(obj) is not None:
            found.append("request_to_end")
        return [*found, *super().present_facts(obj, may_see)]

    def list_order(self, request: HttpRequest) -> list[str]:
        # Those of one status in the order in which they are claimed, as their index
        # has them: to sort a million of them took four seconds.
        if request.GET.get("status"):
            return ["queue_name", "rank", "pk"]
        return super().list_order(request)

    @admin.action(permissions=["cancel"], description=gettext_lazy("Cancel the ticked tasks"))
    def cancel(self, request: HttpRequest, queryset: Any) -> None:
        self.perform_on_ticked(request, CANCEL, queryset)

    @admin.display(description=gettext_lazy("waited"))
    def waited(self, obj: Any) -> str:
        if obj.started_at is None and obj.status == LiveStatus.SCHEDULED:
            return "-"
        return super().waited(obj)

    @admin.display(description=gettext_lazy("took"))
    def took(self, obj: Any) -> str:
        if obj.status != LiveStatus.RUNNING or obj.last_attempted_at is None:
            return "-"
        return duration((clock_of(obj) - obj.last_attempted_at).total_seconds())

    @admin.display(description=gettext_lazy("due at"))
    def due(self, obj: Any) -> str:
        return moment(obj.due_at, clock_of(obj))

    @admin.display(description=gettext_lazy("lease until"))
    def lease(self, obj: Any) -> str:
        return moment(obj.lease_until, clock_of(obj))

    @admin.display(description=gettext_lazy("waits at"))
    def waits_at(self, obj: Any) -> str:
        return policies.waits_at(obj, clock_of(obj), may_see=True)

    @admin.display(description=gettext_lazy("waits at"))
    def waits_at_unseen(self, obj: Any) -> str:
        return policies.waits_at(obj, clock_of(obj), may_see=False)

    @admin.display(description=gettext_lazy("asked to end"))
    def request_to_end(self, obj: Any) -> str:
        asked = _request_to_end(obj)
        if asked is None:
            return "-"
        parts = [visible(asked.reason), moment(asked.asked_at, clock_of(obj))]
        if asked.force:
            parts.append(_("by force: its process is killed if it does not end in time"))
        return format_html_join(" · ", "{}", ((part,) for part in parts))


def _request_to_end(obj: QueuedTask) -> Cancellation | None:
    """Return the request to end a live task; read once for a row."""
    if "_request_read" not in obj.__dict__:
        rows = Cancellation.objects.using(obj._state.db)
        obj.__dict__["_request_read"] = rows.filter(pk=obj.pk).first()
    return obj.__dict__["_request_read"]
