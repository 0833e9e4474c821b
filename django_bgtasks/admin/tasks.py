"""Tasks: what is not final."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from .. import transitions
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..states import LiveStatus
from .base import clock_of
from .display import duration, moment
from .records import TaskRecordAdmin


@admin.register(QueuedTask)
class QueuedTaskAdmin(TaskRecordAdmin):
    """Live tasks, and their cancelling."""

    other_model = FinishedTask
    verb = "cancel"
    verb_label = gettext_lazy("Cancel")
    transition = staticmethod(transitions.cancel)
    verb_done = ngettext_lazy(
        "%(count)d task was cancelled.", "%(count)d tasks were cancelled.", "count"
    )
    verb_logged = gettext_lazy("Cancelled.")

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
    actions = ("cancel",)
    time_fields = (
        ("enqueued", "run_after_shown", "due"),
        ("started", "last_started", "lease"),
        ("waited", "took"),
    )
    internal_fields = ("rank", "claim_id")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.has_verb_permission(request)

    def is_open_to_verb(self, request: HttpRequest, obj: Any) -> bool:
        return obj.status != LiveStatus.RUNNING and self.has_cancel_permission(request)

    def list_order(self, request: HttpRequest) -> list[str]:
        # Those of one status in the order in which they are claimed, as their index
        # has them: to sort a million of them took four seconds.
        if request.GET.get("status"):
            return ["queue_name", "rank", "pk"]
        return super().list_order(request)

    @admin.action(permissions=["cancel"], description=gettext_lazy("Cancel the ticked tasks"))
    def cancel(self, request: HttpRequest, queryset: Any) -> None:
        self.perform_on_ticked(request, queryset)

    @admin.display(description=gettext_lazy("status"))
    def state(self, obj: Any) -> str:
        if obj.status == LiveStatus.RUNNING and obj.lease_until < clock_of(obj):
            return _("Lost")
        if obj.status == LiveStatus.SCHEDULED and obj.failures:
            return _("Waiting to retry")
        return super().state(obj)

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
