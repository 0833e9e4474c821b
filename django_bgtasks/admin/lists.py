"""The lists of tasks and of results: bounded in cost, however many rows there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.views.main import SEARCH_VAR
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseRedirect
from django.utils.dateparse import parse_datetime
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..db import operations_for
from ..filtering import BadFilter, TaskFilter, is_filter, parse
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..searching import matches
from .base import AtLeast, BoundedChangeList
from .bulk_page import BulkPage
from .display import visible
from .filters import (
    CauseFilter,
    HiddenFilter,
    LiveStatusFilter,
    QueueFilter,
    SinceFilter,
    StatusFilter,
    TaskPathFilter,
    WorkflowFilter,
)

#: Rows that are looked through for what no index has together.
NEWEST = 100_000
#: Seconds that a search through all rows may take.
PATIENCE = 2.0
#: Seconds for which it is remembered which row is the oldest of the newest.
REMEMBERED = 60.0
#: Entries of an index that one step towards it reads.
STEP = 10_000

_edges: dict[tuple[str, str], tuple[float, UUID | None]] = {}


def oldest_of_newest(alias: str, model: Any) -> UUID | None:
    """Return the id from which on the newest NEWEST rows lie, None if there are no more."""
    key = (alias, model._meta.db_table)
    known = _edges.get(key)
    now = time.monotonic()
    if known is not None and known[0] > now:
        return known[1]
    edge: UUID | None = None
    if operations_for(alias).estimate(model) > NEWEST:
        rows = model._default_manager.using(alias).order_by("-pk").values_list("pk", flat=True)
        # In steps, since none of the pages skips more rows than a step at once.
        for _step in range(NEWEST // STEP):
            earlier = rows if edge is None else rows.filter(pk__lt=edge)
            edge = earlier[STEP - 1 : STEP].first()
            if edge is None:
                break
    _edges[key] = (now + REMEMBERED, edge)
    return edge


class BeforeFilter(HiddenFilter):
    """Rows after a row, further down the list: the next ten thousand."""

    title = gettext_lazy("older")
    parameter_name = "before"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        value = request.GET.get("before", "")
        return [(value, _("Older tasks"))] if value else []

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if not value:
            return queryset
        try:
            return queryset.filter(pk__lt=UUID(value))
        except ValueError:
            pass
        try:
            moment = parse_datetime(value)
        except ValueError:
            moment = None
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            return queryset.none()
        if queryset.model is not FinishedTask:
            return queryset.none()
        return queryset.filter(finished_at__lt=moment)


class AllFilter(HiddenFilter):
    """Look through all rows, for as long as it may take."""

    title = gettext_lazy("search")
    parameter_name = "all"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [("1", _("All tasks"))] if request.GET.get("all") else []

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset


class TaskChangeList(BoundedChangeList):
    """Searches the newest rows, unless an index has all that is asked for or all=1 says so."""

    #: Rows that were searched, if that was not all of them.
    searched: str = ""
    #: The address of what comes after the last page.
    older: str = ""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        rows = super().get_queryset(request, *args, **kwargs)
        page: Any = self.model_admin
        if page.needs_window(request) and not request.GET.get("all"):
            edge = oldest_of_newest(page.alias, self.model)
            if edge is not None:
                self.searched = str(number_format(NEWEST, force_grouping=True))
                rows = rows.filter(pk__gte=edge)
        return rows

    def get_results(self, request: HttpRequest) -> None:
        page: Any = self.model_admin
        if not (request.GET.get("all") and page.needs_window(request)):
            super().get_results(request)
        else:
            try:
                with operations_for(page.alias).time_limit(PATIENCE):
                    super().get_results(request)
                    len(self.result_list)
            except DatabaseError:
                text = _("That took too long. Add a queue, a status or a time.")
                page.message_user(request, text, messages.WARNING)
                self.queryset = self.root_queryset.none()
                super().get_results(request)
        self.older = self._older(request)

    def _older(self, request: HttpRequest) -> str:
        if not isinstance(self.result_count, AtLeast):
            return ""
        if self.page_num < self.paginator.num_pages:
            return ""
        order = self.get_ordering(request, self.queryset)
        last = list(self.result_list)[-1]
        if order[0] in ("-pk", f"-{self.opts.pk.name}"):
            return self.get_query_string({"before": last.pk}, ["p"])
        if order[0] == "-finished_at":
            return self.get_query_string({"before": last.finished_at.isoformat()}, ["p"])
        return ""

    @property
    def search_all(self) -> str:
        """The address that searches all rows."""
        return self.get_query_string({"all": "1"}, ["p"])

    @property
    def is_filtered(self) -> bool:
        """Whether the list may hold less than there is."""
        return bool(self.has_active_filters or self.query)


class TaskListAdmin(BulkPage):
    """The list of either table of tasks."""

    change_list_template = "admin/bgtasks/change_list.html"
    list_filter: ClassVar[Any] = (
        StatusFilter,
        QueueFilter,
        TaskPathFilter,
        SinceFilter,
        CauseFilter,
        WorkflowFilter,
        BeforeFilter,
        AllFilter,
    )
    # Shows the search box; get_search_results() doesn't ask it.
    search_fields = ("pk",)
    #: The table to which rows move.
    other_model: type[QueuedTask] | type[FinishedTask]
    #: Combinations of filters whose rows, in the list's order, are one range of an index.
    indexed: ClassVar[Sequence[frozenset[str]]] = ()

    class Media:
        css: ClassVar = {"all": ["bgtasks/bgtasks.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[TaskChangeList]:
        return TaskChangeList

    def needs_window(self, request: HttpRequest) -> bool:
        """Say whether what is asked for has no index, so that rows are looked through for it."""
        asked = {
            name
            for name in ("status", "queue", "task", "cause", "workflow")
            if request.GET.get(name)
        }
        asked.update(self.typed(request).as_dict())
        return not any(asked == known for known in self.indexed)

    def other(self, request: HttpRequest) -> Any:
        """Return the ModelAdmin of the other table, None if the viewer may not see it."""
        if not self.admin_site.is_registered(self.other_model):
            return None
        other = self.admin_site.get_model_admin(self.other_model)
        return other if other.has_view_permission(request) else None

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        term = request.GET.get(SEARCH_VAR, "")
        if request.method == "GET" and term and self.has_view_permission(request):
            target = self._better_place(request, term)
            if target:
                return HttpResponseRedirect(target)
        context = {
            "lists_tasks": True,
            "empty_text": self.empty_text,
            "bulk_address": self.bulk_address(request),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    #: What an empty list says.
    empty_text: Any = ""

    # Search

    def typed(self, request: HttpRequest) -> TaskFilter:
        """Return the filter in the search box; that of an id, or of a mistake, asks for nothing."""
        try:
            return parse(request.GET.get(SEARCH_VAR, ""))
        except BadFilter:
            return TaskFilter()

    def _better_place(self, request: HttpRequest, term: str) -> str:
        """Return the address of the one task that term means, or of the list that has it."""
        other = self.other(request)
        there_too = f"?{urlencode({SEARCH_VAR: term})}"
        is_live = self.typed(request).is_of_live
        if is_live is not None:
            if other is None or is_live is (self.model is QueuedTask):
                return ""
            return f"{self.address('changelist', model=self.other_model)}{there_too}"
        here = matches(term, self.get_queryset(request))
        there = other and matches(term, other.get_queryset(request))
        if here and len(here) == 1 and not there:
            return self.address("change", here[0])
        if there and not here:
            if len(there) == 1:
                return self.address("change", there[0], model=self.other_model)
            return f"{self.address('changelist', model=self.other_model)}{there_too}"
        return ""

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        if not search_term.strip():
            return queryset, False
        found = None if is_filter(search_term) else matches(search_term, self.get_queryset(request))
        if found is not None:
            return queryset.filter(pk__in=found), False
        try:
            wanted = parse(search_term)
        except BadFilter as error:
            self.message_user(request, visible(error), messages.WARNING)
            return queryset.none(), False
        if wanted.needs_payload and not self.may(request, "view_payload"):
            text = _("Keys are made of arguments, which you may not see.")
            self.message_user(request, text, messages.WARNING)
            return queryset.none(), False
        return wanted.apply(queryset), False


LIVE_FILTERS = (LiveStatusFilter, *TaskListAdmin.list_filter[1:])
