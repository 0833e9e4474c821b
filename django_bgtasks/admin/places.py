"""A task's place in its workflow, for its page."""

from __future__ import annotations

from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html

from ..models.record import TaskRecord
from ..models.workflow import Node, Workflow
from .display import visible


def in_words(row: TaskRecord) -> Any:
    """Return the workflow's name with a link, and the task's name in it."""
    alias = row._state.db or "default"
    node = Node.objects.using(alias).filter(pk=row.pk).first()
    workflow = node and Workflow.objects.using(alias).filter(pk=node.workflow_id).first()
    if node is None or workflow is None:
        return "-"
    name = visible(workflow.name)
    try:
        address = reverse("admin:bgtasks_workflow_change", args=[workflow.pk])
    except NoReverseMatch:
        shown: Any = name
    else:
        shown = format_html('<a href="{}">{}</a>', address, name)
    return format_html("{} · {}", shown, visible(node.name))
