"""Tasks: what is not final."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..states import LiveStatus
from .base import clock_of
from .display import duration
from .lists import LIVE_FILTERS
from .records import TaskRecordAdmin
from .verbs import CANCEL, CANCEL_BY_FORCE, RUN_NOW


@admin.register(QueuedTask)
class QueuedTaskAdmin(TaskRecordAdmin):
    """Live tasks, and their cancelling."""

    other_model = FinishedTask
    empty_text = gettext_lazy(
        "No task is waiting or running. Those that have ended are among the results."
    )
    verbs = (RUN_NOW, CANCEL, CANCEL_BY_FORCE)

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

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.may(request, CANCEL.permission)

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
