"""A task's place in its workflow, for its page."""

from __future__ import annotations

from typing import Any

from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models.record import TaskRecord
from ..models.workflow import Barrier, Node, Workflow
from ..states import LiveStatus
from .display import visible


def in_words(row: TaskRecord) -> Any:
    """Return the workflow's name with a link, the task's name in it, and what it waits for."""
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
    parts = [shown, visible(node.name)]
    if getattr(row, "status", "") == LiveStatus.WAITING and node.barrier_id is not None:
        parts.append(_waits_for(alias, node.barrier_id))
    return format_html(" · ".join("{}" for part in parts if part), *(p for p in parts if p))


def _waits_for(alias: str, barrier_id: Any) -> str:
    barrier = Barrier.objects.using(alias).filter(pk=barrier_id).first()
    if barrier is None or not barrier.missing:
        return ""
    text = ngettext(
        "waits for what comes before it",
        "waits for %(count)d that come before it",
        barrier.missing,
    ) % {"count": barrier.missing}
    if barrier.cause and barrier.failed:
        text = _("%(waits)s, and is skipped then: %(cause)s") % {
            "waits": text,
            "cause": visible(barrier.cause),
        }
    return text
