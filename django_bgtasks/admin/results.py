"""Results: what has ended."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from .. import transitions
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..states import FinalStatus
from . import payload
from .base import clock_of
from .display import duration, moment, short_moment
from .records import TaskRecordAdmin


@admin.register(FinishedTask)
class FinishedTaskAdmin(TaskRecordAdmin):
    """Finished tasks: they can be retried, and deleted."""

    other_model = QueuedTask
    verb = "retry"
    verb_label = gettext_lazy("Retry")
    transition = staticmethod(transitions.retry)
    verb_done = ngettext_lazy(
        "%(count)d task will be retried.", "%(count)d tasks will be retried.", "count"
    )
    verb_logged = gettext_lazy("Retried.")

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
    actions = ("retry",)
    deferred = (*TaskRecordAdmin.deferred, "return_value")
    time_fields = (
        ("enqueued", "run_after_shown", "ended"),
        ("started", "last_started"),
        ("waited", "took"),
    )
    internal_fields = ("claim_id",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "delete_finishedtask")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.has_verb_permission(request)

    def is_open_to_verb(self, request: HttpRequest, obj: Any) -> bool:
        return obj.status != FinalStatus.SUCCESSFUL and self.has_retry_permission(request)

    def list_order(self, request: HttpRequest) -> list[str]:
        # Those of one status by when they ended, as their index has them.
        if request.GET.get("status"):
            return ["-finished_at", "-pk"]
        return super().list_order(request)

    @admin.action(permissions=["retry"], description=gettext_lazy("Retry the ticked tasks"))
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        self.perform_on_ticked(request, queryset)

    def content_fields(self, may_see: bool) -> list[str]:
        arguments, attempts = super().content_fields(may_see)
        return [arguments, "value" if may_see else "value_unseen", attempts]

    @admin.display(description=gettext_lazy("took"))
    def took(self, obj: Any) -> str:
        if obj.status == FinalStatus.CANCELLED or obj.last_attempted_at is None:
            return "-"
        return duration((obj.finished_at - obj.last_attempted_at).total_seconds())

    @admin.display(description=gettext_lazy("finished at"))
    def ended(self, obj: Any) -> str:
        return moment(obj.finished_at, clock_of(obj))

    @admin.display(description=gettext_lazy("finished"))
    def ended_briefly(self, obj: Any) -> str:
        return short_moment(obj.finished_at, clock_of(obj))

    @admin.display(description=gettext_lazy("return value"))
    def value(self, obj: Any) -> str:
        return payload.return_value(obj) if obj.status == FinalStatus.SUCCESSFUL else "-"

    @admin.display(description=gettext_lazy("return value"))
    def value_unseen(self, obj: Any) -> str:
        return _("You may not see return values.")
