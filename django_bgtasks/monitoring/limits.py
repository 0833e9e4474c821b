"""The limits at which tasks of a queue run or wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef

from ..models.limit import LimitHold, LimitKey, LimitWait
from ..models.queued import QueuedTask
from ..states import LiveStatus

#: Tasks that are looked at, of those that run and of those that wait, and limits that are shown.
MOST, MOST_LIMITS = 1_000, 20


@dataclass(frozen=True, slots=True)
class LimitFigures:
    """
    One key of a limit in one queue, with one of its tasks, whose marks describe it.

    running and waiting count the tasks of this queue alone; with is_capped more
    wait than were looked at. next_at is from when on a rate has a start that is
    free, None for a concurrency.
    """

    digest: str
    sample: QueuedTask
    running: int
    waiting: int
    is_capped: bool
    next_at: datetime | None


def limit_figures(alias: str, queue: str) -> list[LimitFigures]:
    """
    Return the limits that hold tasks of a queue back, or are held by them.

    Those where most wait come first. It takes five statements at most.
    """
    tasks = QueuedTask.objects.using(alias).filter(queue_name=queue)
    here = tasks.filter(
        pk=OuterRef("task_id"), claim_id=OuterRef("claim_id"), status=LiveStatus.RUNNING
    )
    holds = LimitHold.objects.using(alias).filter(Exists(here))
    held = list(holds.values_list("digest", "task_id")[:MOST])
    # By the index of claims: the waits have none for the queue.
    first = tasks.filter(status=LiveStatus.WAITING).order_by("rank", "fair_key", "id")
    ids = list(first.values_list("pk", flat=True)[:MOST])
    waits = LimitWait.objects.using(alias).filter(pk__in=ids).values_list("digest", "task_id")
    waiting = list(waits) if ids else []
    samples: dict[str, Any] = {**dict(held), **dict(waiting)}
    if not samples:
        return []
    running_count = Counter(digest for digest, _ in held)
    waiting_count = Counter(digest for digest, _ in waiting)
    shown = sorted(samples, key=lambda d: (-waiting_count[d], -running_count[d], d))[:MOST_LIMITS]
    rows = tasks.filter(pk__in=[samples[digest] for digest in shown])
    found = {row.pk: row for row in rows.defer("args", "kwargs", "errors", "notes")}
    keys = LimitKey.objects.using(alias).filter(pk__in=shown)
    next_at = dict(keys.values_list("pk", "next_at"))
    return [
        LimitFigures(
            digest=digest,
            sample=found[samples[digest]],
            running=running_count[digest],
            waiting=waiting_count[digest],
            is_capped=len(ids) >= MOST and waiting_count[digest] > 0,
            next_at=next_at.get(digest),
        )
        for digest in shown
        if samples[digest] in found
    ]
