"""Filters whose choices come from the code and the settings: no DISTINCT over tasks."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models.queue import Queue
from .base import backends
from .display import visible


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


class QueueFilter(ColumnFilter):
    title = _("queue")
    parameter_name = "queue"
    column = "queue_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        seen = Queue.objects.using(model_admin.alias).values_list("name", flat=True)[:200]
        return [(name, visible(name)) for name in dict.fromkeys([*configured_queues(), *seen])]
