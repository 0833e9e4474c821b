"""Bulk operations: who asked for what, how far it is, and aborting it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import SEARCH_VAR
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import path
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import workers
from ..bulk.asking import OPEN, abort
from ..bulk.verbs import in_words
from ..filtering import typed
from ..models.bulk import BulkOperation, BulkState, BulkVerb
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from . import charts
from .badges import BAD, IDLE, OK, OUTLINE, RUN, WARN, badge
from .base import clock_of
from .display import cut, duration, moment, short_moment, visible
from .filters import ColumnFilter
from .pages import PageAdmin

#: Reasons why tasks were skipped that a page shows.
REASONS = 50

_COLORS: dict[str, str] = {
    BulkState.WAITING: IDLE,
    BulkState.RUNNING: RUN,
    BulkState.DONE: OK,
    BulkState.ABORTED: WARN + OUTLINE,
    BulkState.FAILED: BAD,
}


class StateFilter(ColumnFilter):
    title = gettext_lazy("state")
    parameter_name = "state"
    column = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return BulkState.choices


class VerbFilter(ColumnFilter):
    title = gettext_lazy("action")
    parameter_name = "verb"
    column = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return BulkVerb.choices


@admin.register(BulkOperation)
class BulkOperationAdmin(PageAdmin):
    """The record of all bulk operations."""

    list_display = ("title", "state_shown", "progress", "by", "asked", "took")
    list_filter = (StateFilter, VerbFilter)

    class Media:
        css = {"all": ("bgtasks/bgtasks.css", "bgtasks/failures.css")}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        looks = request.method == "GET" and self.has_view_permission(request)
        if looks and not BulkOperation.objects.using(self.alias).exists():
            text = _(
                "Nothing was done in bulk yet. To begin, filter the tasks or the results, "
                "and choose “Act on all that match…”."
            )
            self.message_user(request, text, messages.INFO)
        return super().changelist_view(request, extra_context)

    @admin.display(description=gettext_lazy("operation"))
    def title(self, obj: BulkOperation) -> str:
        return visible(obj)

    @admin.display(description=gettext_lazy("state"))
    def state_shown(self, obj: BulkOperation) -> str:
        return badge(_COLORS[obj.state], obj.get_state_display())

    @admin.display(description=gettext_lazy("done"))
    def progress(self, obj: BulkOperation) -> str:
        done = number_format(obj.done, force_grouping=True)
        skipped = sum(obj.skipped.values())
        if not skipped:
            return done
        return _("%(done)s, %(skipped)s skipped") % {
            "done": done,
            "skipped": number_format(skipped, force_grouping=True),
        }

    @admin.display(description=gettext_lazy("asked by"))
    def by(self, obj: BulkOperation) -> str:
        return visible(obj.asked_by) or "-"

    @admin.display(description=gettext_lazy("asked"))
    def asked(self, obj: BulkOperation) -> str:
        return short_moment(obj.asked_at, clock_of(obj))

    @admin.display(description=gettext_lazy("took"))
    def took(self, obj: BulkOperation) -> str:
        return duration(_seconds(obj, clock_of(obj)))

    # Abort

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view(self.abort_view)
        return [
            path("<path:object_id>/abort/", view, name=f"{prefix}_abort"),
            *super().get_urls(),
        ]

    def abort_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Have an operation stop."""
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not self.may(request, "change_bulkoperation"):
            raise PermissionDenied
        operation = self.row_of_page(request, object_id)
        if isinstance(operation, HttpResponseBase):
            return operation
        if abort(self.alias, operation.pk, by=request.user.get_username()):
            self.log(request, [operation], gettext_lazy("Aborted."))
            self.answer(request, _("It is aborted. What was done stays done."), [])
        else:
            self.answer(request, "", [_("It had ended already.")])
        return HttpResponseRedirect(self.address("change", quote(operation.pk)))

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
        operation = self.row_of_page(request, object_id)
        if isinstance(operation, HttpResponseBase):
            return operation
        now = clock_of(operation)

        def context() -> dict[str, Any]:
            is_open = operation.state in OPEN
            may_abort = is_open and self.may(request, "change_bulkoperation")
            return {
                "operation": operation,
                "page_name": cut(operation.name or operation.get_verb_display()),
                "verb": operation.get_verb_display(),
                "state": badge(_COLORS[operation.state], operation.get_state_display()),
                "is_open": is_open,
                "has_no_worker": is_open and not workers.live(self.alias),
                "abort_address": self.address("abort", quote(operation.pk)) if may_abort else "",
                "words": cut(operation.words),
                "filter_address": self._filter_address(request, operation),
                "skipped": [
                    cut(in_words(reason, count))
                    for reason, count in sorted(operation.skipped.items())[:REASONS]
                ],
                "error": cut(operation.error),
                "asked_by": cut(operation.asked_by) or "-",
                "abort_by": cut(operation.abort_by),
                "asked": moment(operation.asked_at, now),
                "started": moment(operation.started_at, now),
                "ended": moment(operation.finished_at, now),
                "took": duration(_seconds(operation, now)),
                "speed": _speed(operation, now),
                "back": self.address("changelist"),
                "history": self.address("history", quote(operation.pk)),
                **_progress(operation),
            }

        return self.page(
            request,
            "admin/bgtasks/bulk_operation.html",
            title=_("Bulk operation: %(verb)s") % {"verb": operation.get_verb_display().lower()},
            context=context,
            stamp=lambda: _stamp(operation, now),
        )

    def _filter_address(self, request: HttpRequest, operation: BulkOperation) -> str:
        model = FinishedTask if operation.finished else QueuedTask
        if not self.may(request, f"view_{model._meta.model_name}"):
            return ""
        address = self.address("changelist", model=model)
        text = typed(operation.filter if isinstance(operation.filter, dict) else {})
        return f"{address}?{urlencode({SEARCH_VAR: text})}" if address and text else address


def _seconds(operation: BulkOperation, now: datetime) -> float | None:
    if operation.started_at is None:
        return None
    return ((operation.finished_at or now) - operation.started_at).total_seconds()


def _speed(operation: BulkOperation, now: datetime) -> str:
    """Return how fast it went so far, and how fast it may go."""
    seconds = _seconds(operation, now)
    parts = []
    if seconds and operation.done:
        speed = operation.done / max(seconds, 1.0)
        shown = number_format(round(speed, 1 if speed < 10 else 0), force_grouping=True)
        parts.append(_("%(number)s tasks a second") % {"number": shown})
    if operation.rate:
        shown = number_format(f"{operation.rate:g}")
        parts.append(_("at most %(number)s a second") % {"number": shown})
    return ", ".join(parts) or "-"


def _progress(operation: BulkOperation) -> dict[str, Any]:
    """Return how many tasks were looked at of how many, as words and as a bar."""
    seen = operation.done + sum(operation.skipped.values())
    ended = operation.state == BulkState.DONE
    # The estimate may have been too low, and nobody believes 103 %.
    total = seen if ended else max(operation.estimate or 0, seen + 1)
    label = _("%(seen)s of about %(total)s tasks") % {
        "seen": number_format(seen, force_grouping=True),
        "total": number_format(total, force_grouping=True),
    }
    looked_at = ngettext("%(seen)s task was looked at", "%(seen)s tasks were looked at", seen) % {
        "seen": number_format(seen, force_grouping=True)
    }
    full = max(total, 1)
    return {
        "bar": charts.meter(full if ended else seen, full, label, OK if ended else RUN),
        "progress": looked_at if ended else label,
        "done": number_format(operation.done, force_grouping=True),
        "estimate": "-"
        if operation.estimate is None
        else number_format(operation.estimate, force_grouping=True),
    }


def _stamp(operation: BulkOperation, now: datetime) -> Sequence[Any]:
    moving = operation.state in OPEN
    return [
        int(now.timestamp()) if moving else int(now.timestamp() // 60),
        operation.state,
        operation.done,
        operation.cursor,
    ]
