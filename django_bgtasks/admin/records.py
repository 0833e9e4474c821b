"""What the pages of tasks and of results share: their parts, search, history, verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
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
from django.utils.html import format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..searching import matches
from ..states import LiveStatus
from . import notes, payload
from .base import clock_of
from .bulk_page import BulkPage
from .display import visible
from .facts import TaskFacts
from .filters import QueueFilter, StatusFilter
from .verbs import SKIPPED, Verb

#: States in which one asks why a task isn't running.
WAITS = frozenset({LiveStatus.SCHEDULED, LiveStatus.WAITING, LiveStatus.READY})


class TaskRecordAdmin(TaskFacts, BulkPage):
    """
    Either table of tasks. An address of a task keeps working when its row moves
    to the other one.
    """

    #: The table to which rows move.
    other_model: type[QueuedTask] | type[FinishedTask]
    #: What can be done to a task here, and the permission that each of them needs.
    verbs: tuple[Verb, ...]
    verb_permission: str

    list_filter = (StatusFilter, QueueFilter)
    # Shows the search box; get_search_results() doesn't ask it.
    search_fields = ("pk",)
    deferred: tuple[str, ...] = ("args", "kwargs", "options", "errors", "notes")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        may_see = self.may(request, "view_payload")
        facts: list[Any] = ["task_path_shown", ("state", "queue", "priority"), "why"]
        if obj is not None:
            facts += self.present_facts(obj, may_see)
            if self.has_verb_permission(request) and self._open_verbs(obj):
                facts.insert(0, "buttons")
        return [
            (None, {"fields": [*facts, ("id", "worker_ids_shown")]}),
            (_("Content"), {"fields": self.content_fields(obj, may_see)}),
            (_("Times"), {"fields": self.time_fields}),
            (
                _("Details"),
                {
                    "fields": [
                        "policies" if may_see else "policies_unseen",
                        ("attempt", "failures", "lost_count"),
                        ("backend_shown", *self.internal_fields),
                    ]
                },
            ),
        ]

    time_fields: Sequence[Any] = ()
    internal_fields: Sequence[str] = ()

    def present_facts(self, obj: Any, may_see: bool) -> list[str]:
        """Return the facts that only some tasks have, as far as this one has them."""
        found = []
        if obj.status in WAITS:
            found.append("explained" if may_see else "explained_unseen")
        if "workflow" in payload.mapping(obj.options):
            found.append("workflow_shown")
        if notes.progress(obj, clock_of(obj)):
            found.append("progress_shown")
        if notes.labels(obj):
            found.append("labels_shown")
        return found

    def content_fields(self, obj: Any, may_see: bool) -> list[str]:
        """Return the fields of the payload as the viewer may see them."""
        found = [("arguments", "arguments_unseen")]
        if obj is not None:
            if payload.mapping(obj.options).get("metadata"):
                found.append(("metadata", "metadata_unseen"))
            found += self.outcome_fields
            if notes.steps_of(obj, values=may_see):
                found.append(("steps", "steps_unseen"))
            if notes.log(obj):
                found.append(("log_shown", "log_unseen"))
        found.append(("attempts", "attempts_unseen"))
        return [seen if may_see else unseen for seen, unseen in found]

    #: What came of a task: the field, and the one for who may not see it.
    outcome_fields: Sequence[tuple[str, str]] = ()

    # Verbs: actions of the list, buttons of the page

    def has_verb_permission(self, request: HttpRequest) -> bool:
        return self.may(request, self.verb_permission)

    def _open_verbs(self, obj: Any) -> list[Verb]:
        return [verb for verb in self.verbs if obj.status in verb.states]

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            *(
                path(
                    f"<path:object_id>/{verb.name}/",
                    self.admin_site.admin_view(partial(self.verb_view, verb=verb)),
                    name=f"{prefix}_{verb.name}",
                )
                for verb in self.verbs
            ),
            *super().get_urls(),
        ]

    def verb_view(self, request: HttpRequest, object_id: str, verb: Verb) -> HttpResponseBase:
        """Do it to one task, and show where it is then."""
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not (self.has_view_permission(request) and self.has_verb_permission(request)):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            for state in filter(None, self._states([unquote(object_id)])):
                self.answer(request, "", [SKIPPED[state] % {"count": 1}])
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        self.perform(request, verb, [obj])
        return self._to_where_it_is(request, obj.pk)

    def perform(
        self, request: HttpRequest, verb: Verb, rows: Iterable[Any], *, missing: int = 0
    ) -> None:
        """Do it to rows, count what came of it; missing rows were ticked but have left."""
        by_id = {str(row.pk): row for row in rows}
        parts = verb.act(self.alias, list(by_id), request.user.get_username())
        done = [part for part in parts if part.ids]
        for part in done:
            if not part.skipped:
                # Others than those asked for were touched in their workflow.
                self.log(request, [by_id[pk] for pk in part.ids if pk in by_id], part.logged)
        touched = {pk for part in done for pk in part.ids}
        skipped = Counter(self._states([pk for pk in by_id if pk not in touched]))
        skipped[""] += missing
        self.answer(
            request,
            " ".join(p.counted % {"count": len(p.ids)} for p in done if not p.skipped),
            [
                *(p.counted % {"count": len(p.ids)} for p in done if p.skipped),
                *(
                    SKIPPED[state] % {"count": count}
                    for state, count in sorted(skipped.items())
                    if count
                ),
            ],
        )

    def perform_on_ticked(self, request: HttpRequest, verb: Verb, queryset: Any) -> None:
        """Do it to the ticked rows of the list."""
        rows = list(queryset)
        missing = len(self.ticked(request) - {str(row.pk) for row in rows})
        self.perform(request, verb, rows, missing=missing)

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
    def buttons(self, obj: Any) -> str:
        # Inside the page's own form, which carries the CSRF token: no template of
        # ours, so each theme shows it.
        return format_html_join(
            " ",
            '<input type="submit" class="button" formaction="{}" value="{}">',
            ((self.address(verb.name, obj.pk), verb.label) for verb in self._open_verbs(obj)),
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
