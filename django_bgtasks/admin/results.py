"""Results: what has ended."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.step import Step
from ..states import FinalStatus
from .base import clock_of
from .display import duration, short_moment
from .records import TaskRecordAdmin
from .verbs import RETRY


@admin.register(FinishedTask)
class FinishedTaskAdmin(TaskRecordAdmin):
    """Finished tasks: they can be retried, and deleted."""

    other_model = QueuedTask
    empty_text = gettext_lazy("No task has ended yet.")
    verbs = (RETRY,)

    list_display = (
        "name",
        "state",
        "queue",
        "ended_briefly",
        "why_briefly",
        "waited",
        "took",
        "attempt",
        "worker",
    )
    indexed = (frozenset(), frozenset({"status"}), frozenset({"cause"}))
    actions = ("retry",)
    deferred = (*TaskRecordAdmin.deferred, "return_value")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "delete_finishedtask")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.may(request, RETRY.permission)

    def list_order(self, request: HttpRequest) -> list[str]:
        # Those of one status by when they ended, as their index has them.
        if request.GET.get("status") and not self.needs_window(request):
            return ["-finished_at", "-pk"]
        return super().list_order(request)

    @admin.action(permissions=["retry"], description=gettext_lazy("Retry the ticked tasks"))
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        self.perform_on_ticked(request, RETRY, queryset)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.delete_queryset(request, FinishedTask.objects.using(self.alias).filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete results and their steps: no foreign key does."""
        with transaction.atomic(using=self.alias):
            # Locked: of a task that is retried meanwhile the steps must stay.
            ids = list(queryset.select_for_update().values_list("pk", flat=True))
            Step.objects.using(self.alias).filter(task_id__in=ids)._raw_delete(self.alias)
            rows = FinishedTask.objects.using(self.alias).filter(pk__in=ids)
            super().delete_queryset(request, rows)

    @admin.display(description=gettext_lazy("took"))
    def took(self, obj: Any) -> str:
        if obj.status == FinalStatus.CANCELLED or obj.last_attempted_at is None:
            return "-"
        return duration((obj.finished_at - obj.last_attempted_at).total_seconds())

    @admin.display(description=gettext_lazy("finished"))
    def ended_briefly(self, obj: Any) -> str:
        return short_moment(obj.finished_at, clock_of(obj))
