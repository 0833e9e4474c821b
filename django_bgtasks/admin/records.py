"""What the pages of tasks and of results share: columns, facts, search, history, one verb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import SEARCH_VAR
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import path
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from . import payload
from .base import BaseAdmin, clock_of
from .display import duration, lines, moment, short_moment, visible
from .filters import QueueFilter, StatusFilter
from .searching import matches

_SKIPPED: dict[str, Any] = {
    "SCHEDULED": ngettext_lazy(
        "%(count)d was skipped: it is scheduled.",
        "%(count)d were skipped: they are scheduled.",
        "count",
    ),
    "WAITING": ngettext_lazy(
        "%(count)d was skipped: it is waiting.",
        "%(count)d were skipped: they are waiting.",
        "count",
    ),
    "READY": ngettext_lazy(
        "%(count)d was skipped: it is ready already.",
        "%(count)d were skipped: they are ready already.",
        "count",
    ),
    "RUNNING": ngettext_lazy(
        "%(count)d was skipped: it is running.",
        "%(count)d were skipped: they are running.",
        "count",
    ),
    "SUCCESSFUL": ngettext_lazy(
        "%(count)d was skipped: it was successful.",
        "%(count)d were skipped: they were successful.",
        "count",
    ),
    "FAILED": ngettext_lazy(
        "%(count)d was skipped: it has failed.",
        "%(count)d were skipped: they have failed.",
        "count",
    ),
    "CANCELLED": ngettext_lazy(
        "%(count)d was skipped: it is cancelled already.",
        "%(count)d were skipped: they are cancelled already.",
        "count",
    ),
    "": ngettext_lazy(
        "%(count)d was skipped: it is no longer here.",
        "%(count)d were skipped: they are no longer here.",
        "count",
    ),
}


class TaskRecordAdmin(BaseAdmin):
    """
    Either table of tasks. An address of a task keeps working when its row moves
    to the other one.
    """

    #: The table to which rows move.
    other_model: type[QueuedTask] | type[FinishedTask]
    #: What can be done to a task here: the name of the action and of its address.
    verb: str
    verb_label: Any
    #: The transition, the answer that counts, and the sentence for the history.
    transition: Callable[..., list[str]]
    verb_done: Any
    verb_logged: Any

    list_filter = (StatusFilter, QueueFilter)
    # Shows the search box; get_search_results() doesn't ask it.
    search_fields = ("pk",)
    deferred: tuple[str, ...] = ("args", "kwargs", "options", "errors")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        may_see = self.may(request, "view_payload")
        facts: list[Any] = [
            "task_path_shown",
            ("state", "queue", "priority"),
            "why",
            ("id", "worker_ids_shown"),
        ]
        if obj is not None and self.is_open_to_verb(request, obj):
            facts.insert(0, "button")
        return [
            (None, {"fields": facts}),
            (_("Content"), {"fields": self.content_fields(may_see)}),
            (_("Times"), {"fields": self.time_fields}),
            (
                _("Details"),
                {
                    "fields": [
                        ("attempt", "failures", "lost_count"),
                        ("policy", "options_shown"),
                        ("backend_shown", *self.internal_fields),
                    ]
                },
            ),
        ]

    time_fields: Sequence[Any] = ()
    internal_fields: Sequence[str] = ()

    def content_fields(self, may_see: bool) -> list[str]:
        """Return the fields of the payload as the viewer may see them."""
        if may_see:
            return ["arguments", "attempts"]
        return ["arguments_unseen", "attempts_unseen"]

    # The verb: an action of the list, a button of the page

    def is_open_to_verb(self, request: HttpRequest, obj: Any) -> bool:
        """Say whether the viewer may, and the state allows it."""
        raise NotImplementedError

    def has_verb_permission(self, request: HttpRequest) -> bool:
        return self.may(request, f"{self.verb}_{self.opts.model_name}")

    def get_urls(self) -> list[Any]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_{self.verb}"
        view = self.admin_site.admin_view(self.verb_view)
        return [path(f"<path:object_id>/{self.verb}/", view, name=name), *super().get_urls()]

    def verb_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Do it to one task, and show where it is then."""
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not (self.has_view_permission(request) and self.has_verb_permission(request)):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            for state in filter(None, self._states([unquote(object_id)])):
                self.answer(request, "", [_SKIPPED[state] % {"count": 1}])
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        self.perform(request, [obj])
        return self._to_where_it_is(request, obj.pk)

    def perform(self, request: HttpRequest, rows: Iterable[Any], *, missing: int = 0) -> None:
        """Do it to rows, count what came of it; missing rows were ticked but have left."""
        by_id = {str(row.pk): row for row in rows}
        done = type(self).transition(self.alias, list(by_id), by=request.user.get_username())
        self.log(request, [by_id[pk] for pk in by_id if pk in set(done)], self.verb_logged)
        skipped = Counter(self._states([pk for pk in by_id if pk not in set(done)]))
        skipped[""] += missing
        self.answer(
            request,
            self.verb_done % {"count": len(done)} if done else "",
            [
                _SKIPPED[state] % {"count": count}
                for state, count in sorted(skipped.items())
                if count
            ],
        )

    def perform_on_ticked(self, request: HttpRequest, queryset: Any) -> None:
        """Do it to the ticked rows of the list."""
        rows = list(queryset)
        self.perform(request, rows, missing=len(self.ticked(request) - {str(r.pk) for r in rows}))

    def _states(self, ids: Sequence[str]) -> Iterator[str]:
        keys = [pk for pk in ids if self._is_key(pk)]
        if not keys:
            return
        found: dict[str, str] = {}
        for model in (QueuedTask, FinishedTask):
            rows = model._default_manager.using(self.alias).filter(pk__in=keys)
            found.update((str(pk), status) for pk, status in rows.values_list("pk", "status"))
        yield from (found.get(pk, "") for pk in ids)

    @admin.display(description=gettext_lazy("action"))
    def button(self, obj: Any) -> str:
        # Inside the page's own form, which carries the CSRF token: no template of
        # ours, so each theme shows it.
        return format_html(
            '<input type="submit" class="button" formaction="{}" value="{}">',
            self.address(self.verb, obj.pk),
            self.verb_label,
        )

    # Where a task is

    def _other(self, request: HttpRequest) -> Any:
        """Return the ModelAdmin of the other table, None if the viewer may not see it."""
        if not self.admin_site.is_registered(self.other_model):
            return None
        other = self.admin_site.get_model_admin(self.other_model)
        return other if other.has_view_permission(request) else None

    def _to_where_it_is(self, request: HttpRequest, pk: Any) -> HttpResponseRedirect:
        other = self._other(request)
        if self.get_object(request, str(pk)) is None and other is not None:
            return HttpResponseRedirect(self.address("change", pk, model=self.other_model))
        if other is None:
            return HttpResponseRedirect(self.address("changelist"))
        return HttpResponseRedirect(self.address("change", pk))

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponseRedirect:
        # Called by Django's views of one row, and by ours, when there is none.
        pk = unquote(object_id)
        other = self._other(request)
        if other is not None and other.get_object(request, pk) is not None:
            return HttpResponseRedirect(self.address("change", pk, model=self.other_model))
        text = _("There is no task %(id)s. It may have been pruned.") % {"id": visible(pk)[:100]}
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self.address("changelist"))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        term = request.GET.get(SEARCH_VAR, "")
        if request.method == "GET" and term and self.has_view_permission(request):
            target = self._only_hit(request, term)
            if target:
                return HttpResponseRedirect(target)
        return super().changelist_view(request, extra_context)

    def _only_hit(self, request: HttpRequest, term: str) -> str:
        """Return the address of the one task that term means, or of the list that has it."""
        here = matches(term, self.get_queryset(request))
        other = self._other(request)
        there = other and matches(term, other.get_queryset(request))
        if here and len(here) == 1 and not there:
            return self.address("change", here[0])
        if there and not here:
            if len(there) == 1:
                return self.address("change", there[0], model=self.other_model)
            query = urlencode({SEARCH_VAR: term})
            return f"{self.address('changelist', model=self.other_model)}?{query}"
        return ""

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        if not search_term.strip():
            return queryset, False
        found = matches(search_term, self.get_queryset(request))
        if found is None:
            self.message_user(
                request,
                _("Search for an id, its first 13 characters or its last 6 or more digits."),
                messages.WARNING,
            )
        return queryset.filter(pk__in=found or ()), False

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """Show what was done to the task in either table."""
        types = ContentType.objects.get_for_models(QueuedTask, FinishedTask).values()
        entries = (
            LogEntry.objects.filter(object_id=unquote(object_id), content_type__in=list(types))
            .select_related("user", "content_type")
            .order_by("action_time", "pk")
        )
        paginator = Paginator(entries, 100)
        page = paginator.get_page(request.GET.get("p", 1))
        return super().history_view(
            request,
            object_id,
            {
                "action_list": page,
                "page_range": paginator.get_elided_page_range(page.number),
                "pagination_required": paginator.count > 100,
                **(extra_context or {}),
            },
        )

    # Columns and facts

    @admin.display(description=gettext_lazy("task"))
    def name(self, obj: Any) -> str:
        return format_html(
            '<span title="{} {}">{}</span>', visible(obj.task_path), obj.pk, visible(obj.task_name)
        )

    @admin.display(description=gettext_lazy("task"))
    def task_path_shown(self, obj: Any) -> str:
        return visible(obj.task_path)

    @admin.display(description=gettext_lazy("status"))
    def state(self, obj: Any) -> str:
        return obj.get_status_display()

    @admin.display(description=gettext_lazy("queue"))
    def queue(self, obj: Any) -> str:
        return visible(obj.queue_name)

    @admin.display(description=gettext_lazy("backend"))
    def backend_shown(self, obj: Any) -> str:
        return visible(obj.backend)

    @admin.display(description=gettext_lazy("worker"))
    def worker(self, obj: Any) -> str:
        return visible(obj.worker_id) or "-"

    @admin.display(description=gettext_lazy("workers"))
    def worker_ids_shown(self, obj: Any) -> str:
        return lines(visible(name) for name in obj.worker_ids) or "-"

    @admin.display(description=gettext_lazy("reason"))
    def why(self, obj: Any) -> str:
        return visible(obj.reason) or "-"

    @admin.display(description=gettext_lazy("reason"))
    def why_briefly(self, obj: Any) -> str:
        return Truncator(self.why(obj)).chars(80)

    @admin.display(description=gettext_lazy("enqueued at"))
    def enqueued(self, obj: Any) -> str:
        return moment(obj.enqueued_at, clock_of(obj))

    @admin.display(description=gettext_lazy("enqueued"))
    def enqueued_briefly(self, obj: Any) -> str:
        return short_moment(obj.enqueued_at, clock_of(obj))

    @admin.display(description=gettext_lazy("run after"))
    def run_after_shown(self, obj: Any) -> str:
        return moment(obj.run_after, clock_of(obj))

    @admin.display(description=gettext_lazy("first started at"))
    def started(self, obj: Any) -> str:
        return moment(obj.started_at, clock_of(obj))

    @admin.display(description=gettext_lazy("last started at"))
    def last_started(self, obj: Any) -> str:
        return moment(obj.last_attempted_at, clock_of(obj))

    @admin.display(description=gettext_lazy("waited"))
    def waited(self, obj: Any) -> str:
        """From when it might have started to when it did, or until now."""
        since = max(filter(None, (obj.enqueued_at, obj.run_after)))
        until = obj.started_at or getattr(obj, "finished_at", None) or clock_of(obj)
        if obj.started_at is None and until < since:
            return "-"
        return duration((until - since).total_seconds())

    @admin.display(description=gettext_lazy("took"))
    def took(self, obj: Any) -> str:
        raise NotImplementedError

    @admin.display(description=gettext_lazy("retries"))
    def policy(self, obj: Any) -> str:
        return payload.retry_policy(obj)

    @admin.display(description=gettext_lazy("options"))
    def options_shown(self, obj: Any) -> str:
        pairs = sorted((obj.options or {}).items())
        return lines(visible(f"{name} = {value}") for name, value in pairs) or "-"

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, obj: Any) -> str:
        return payload.arguments(obj)

    @admin.display(description=gettext_lazy("arguments"))
    def arguments_unseen(self, obj: Any) -> str:
        return _("You may not see arguments.")

    @admin.display(description=gettext_lazy("errors"))
    def attempts(self, obj: Any) -> str:
        return payload.attempts(obj, with_traceback=True)

    @admin.display(description=gettext_lazy("errors"))
    def attempts_unseen(self, obj: Any) -> str:
        return payload.attempts(obj, with_traceback=False)
