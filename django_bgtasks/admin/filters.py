"""Filters whose choices come from the code and the settings: no DISTINCT over tasks."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import registry
from ..db import operations_for
from ..ids import first_id_of
from ..models.finished import FinishedTask
from ..models.queue import Queue
from ..models.workflow import Node
from ..states import LiveStatus
from ..statistics.reading import task_names
from .base import backends
from .display import visible

#: Tasks that are offered by their names; for more of them there is the search box.
MOST_TASKS = 30


def configured_queues() -> list[str]:
    """Return the names in QUEUES of our backends, in their order."""
    return list(dict.fromkeys(name for b in backends() for name in b.queue_order))


class ColumnFilter(admin.SimpleListFilter):
    # Not "field": Grappelli takes an attribute of that name for a model field.
    column = ""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset if value is None else queryset.filter(**{self.column: value})


class StatusFilter(ColumnFilter):
    title = _("status")
    parameter_name = "status"
    column = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return model_admin.model._meta.get_field("status").choices


class LiveStatusFilter(StatusFilter):
    """Statuses, and what of the scheduled ones has failed before."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [*super().lookups(request, model_admin), ("retrying", _("Waiting to retry"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "retrying":
            return queryset.filter(status=LiveStatus.SCHEDULED, failures__gt=0)
        return super().queryset(request, queryset)


class QueueFilter(ColumnFilter):
    title = _("queue")
    parameter_name = "queue"
    column = "queue_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        seen = Queue.objects.using(model_admin.alias).values_list("name", flat=True)[:200]
        return [(name, visible(name)) for name in dict.fromkeys([*configured_queues(), *seen])]


class TaskPathFilter(ColumnFilter):
    """Tasks that the code has or that ran within a day, unless they are too many."""

    title = _("task")
    parameter_name = "task"
    column = "task_path"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        now = operations_for(model_admin.alias).now()
        ran = task_names(model_admin.alias, now=now, limit=MOST_TASKS + 1)
        known = sorted({*ran, *registry.known_paths()})
        if len(known) > MOST_TASKS:
            known = [path for path in known if path == request.GET.get(self.parameter_name)]
        return [(path, visible(path.rpartition(".")[2])) for path in known]

    def has_output(self) -> bool:
        return bool(self.lookup_choices)

    def value(self) -> Any:
        # A task that nobody knows any more can be asked for, too.
        return self.used_parameters.get(self.parameter_name)


class SinceFilter(admin.SimpleListFilter):
    """When a task was enqueued: its id says so."""

    title = _("enqueued")
    parameter_name = "since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [
            ("1h", _("In the last hour")),
            ("24h", _("In the last 24 hours")),
            ("7d", _("In the last 7 days")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        seconds = {"1h": 3_600, "24h": 86_400, "7d": 604_800}.get(self.value() or "")
        if seconds is None:
            return queryset
        return queryset.filter(pk__gte=first_id_of(time.time() - seconds))


class HiddenFilter(admin.SimpleListFilter):
    """Set by links of other pages alone; shown once it is set, so that it can be taken away."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        value = request.GET.get(self.parameter_name or "", "")
        return [(value, visible(value)[:20])] if value else []


class CauseFilter(HiddenFilter):
    """Failures of one fingerprint."""

    title = _("cause")
    parameter_name = "cause"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        if queryset.model is not FinishedTask:
            return queryset.none()
        # Said twice: SQLite takes a partial index only for its own condition.
        return queryset.filter(fingerprint=value, fingerprint__gt="")


class WorkflowFilter(HiddenFilter):
    """Members of one workflow."""

    title = _("workflow")
    parameter_name = "workflow"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        try:
            workflow = UUID(value)
        except ValueError:
            return queryset.none()
        members = Node.objects.using(queryset.db).filter(workflow_id=workflow)
        return queryset.filter(pk__in=members.values("pk"))
