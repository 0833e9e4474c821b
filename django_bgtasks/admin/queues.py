"""Queues: which are paused, by whom, and pausing them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import path
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import queues as api
from ..models.queue import Queue
from ..models.queued import QueuedTask
from .base import BaseAdmin, clock_of
from .display import moment, visible
from .filters import configured_queues

REASON_LENGTH = Queue._meta.get_field("reason").max_length


class PauseForm(BaseAdmin.action_form):
    """The choice of the action, and why a queue is paused."""

    reason = forms.CharField(
        label=gettext_lazy("Reason of a pause:"), required=False, max_length=REASON_LENGTH
    )


@admin.register(Queue)
class QueueAdmin(BaseAdmin):
    """Queues; running tasks of a paused queue finish, no other starts."""

    list_display = ("shown_name", "state", "paused", "by", "why", "tasks")
    actions = ("pause", "resume")
    action_form = PauseForm

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "pause_queue")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fields: list[Any] = [("shown_name", "state"), ("paused", "by"), "why", "tasks"]
        if obj is not None and self.has_pause_permission(request):
            fields.insert(0, "resume_button" if obj.paused_at else "pause_button")
        return [(None, {"fields": fields})]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if request.method == "GET" and self.has_view_permission(request):
            self._add_configured()
        return super().changelist_view(request, extra_context)

    def _add_configured(self) -> None:
        """
        Add the rows of configured queues, so that they can be paused before a worker came.

        A row says no more than no row: not paused.
        """
        names = configured_queues()
        rows = Queue.objects.using(self.alias)
        missing = set(names) - set(rows.filter(pk__in=names).values_list("pk", flat=True))
        if missing:
            try:
                with transaction.atomic(using=self.alias):
                    rows.bulk_create(
                        [Queue(name=n) for n in names if n in missing], ignore_conflicts=True
                    )
            except DatabaseError:
                pass  # A database that can only be read: the list shows what there is.

    # Verbs

    @admin.action(permissions=["pause"], description=gettext_lazy("Pause the ticked queues"))
    def pause(self, request: HttpRequest, queryset: Any) -> None:
        self._pause(request, list(queryset))

    @admin.action(permissions=["pause"], description=gettext_lazy("Resume the ticked queues"))
    def resume(self, request: HttpRequest, queryset: Any) -> None:
        self._resume(request, list(queryset))

    def _pause(self, request: HttpRequest, queues: list[Queue]) -> None:
        reason = request.POST.get("reason", "").replace("\x00", "").strip()[:REASON_LENGTH]
        by = request.user.get_username()
        done = [q for q in queues if api.pause(q.pk, reason=reason, by=by, database=self.alias)]
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
        done = [q for q in queues if api.resume(q.pk, database=self.alias)]
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

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/pause/", view(self.pause_view), name=f"{prefix}_pause"),
            path("<path:object_id>/resume/", view(self.resume_view), name=f"{prefix}_resume"),
            *super().get_urls(),
        ]

    def pause_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Pause one queue."""
        return self._verb_view(request, object_id, self._pause)

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Resume one queue."""
        return self._verb_view(request, object_id, self._resume)

    def _verb_view(self, request: HttpRequest, object_id: str, act: Any) -> HttpResponseBase:
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not (self.has_view_permission(request) and self.has_pause_permission(request)):
            raise PermissionDenied
        queue = self.get_object(request, unquote(object_id))
        if queue is None:
            return HttpResponseRedirect(self.address("changelist"))
        act(request, [queue])
        return HttpResponseRedirect(self.address("change", object_id))

    @admin.display(description=gettext_lazy("action"))
    def pause_button(self, obj: Queue) -> str:
        return format_html(
            '<input type="text" name="reason" maxlength="{}" aria-label="{}" placeholder="{}"> '
            '<input type="submit" class="button" formaction="{}" value="{}">',
            REASON_LENGTH,
            _("Reason"),
            _("Reason"),
            self.address("pause", obj.pk),
            _("Pause"),
        )

    @admin.display(description=gettext_lazy("action"))
    def resume_button(self, obj: Queue) -> str:
        return format_html(
            '<input type="submit" class="button" formaction="{}" value="{}">',
            self.address("resume", obj.pk),
            _("Resume"),
        )

    # Columns and facts

    @admin.display(description=gettext_lazy("name"))
    def shown_name(self, obj: Queue) -> str:
        return visible(obj.name)

    @admin.display(description=gettext_lazy("state"))
    def state(self, obj: Queue) -> str:
        return _("Paused") if obj.paused_at else _("Open")

    @admin.display(description=gettext_lazy("paused at"))
    def paused(self, obj: Queue) -> str:
        return moment(obj.paused_at, clock_of(obj))

    @admin.display(description=gettext_lazy("paused by"))
    def by(self, obj: Queue) -> str:
        return visible(obj.paused_by) or "-"

    @admin.display(description=gettext_lazy("reason"))
    def why(self, obj: Queue) -> str:
        return visible(obj.reason) or "-"

    @admin.display(description=gettext_lazy("tasks"))
    def tasks(self, obj: Queue) -> str:
        url = self.address("changelist", model=QueuedTask)
        if not url:
            return "-"
        query = urlencode({"queue": obj.name})
        return format_html('<a href="{}?{}">{}</a>', url, query, _("Show tasks"))
