"""What waits at a limit, and comes back from there."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import F

from ..db import ClaimedTask, ClaimRequest, operations_for
from ..models.limit import LimitWait
from ..models.queued import QueuedTask
from ..states import LiveStatus
from .held import Held, held_rows


def park(alias: str, waits: Sequence[LimitWait], held: Sequence[Held], *, reason: str) -> None:
    """
    RUNNING -> WAITING for claimed tasks that a limit has no room for.

    In the caller's transaction. No attempt is counted. waits say at which keys.
    """
    ours = held_rows(alias, held)
    ids = {str(pk) for pk in ours.values_list("pk", flat=True)}
    ours.update(
        status=LiveStatus.WAITING,
        claim_id=None,
        lease_until=None,
        attempt=F("attempt") - 1,
        reason=reason[:255],
    )
    _wait(alias, [wait for wait in waits if str(wait.task_id) in ids])


def park_ready(alias: str, waits: Sequence[LimitWait], *, reason: str) -> None:
    """READY -> WAITING for locked rows of a key that is full, in the caller's transaction."""
    QueuedTask.objects.using(alias).filter(
        pk__in=[wait.task_id for wait in waits], status=LiveStatus.READY
    ).update(status=LiveStatus.WAITING, reason=reason[:255])
    _wait(alias, waits)


def _wait(alias: str, waits: Sequence[LimitWait]) -> None:
    # A row may be left from an earlier wait of a task that was replaced or cancelled.
    LimitWait.objects.using(alias).filter(task_id__in=[w.task_id for w in waits]).delete()
    LimitWait.objects.using(alias).bulk_create(waits)


def unpark(alias: str, ids: Sequence[str]) -> int:
    """WAITING -> READY for tasks that waited at a limit, in the caller's transaction."""
    LimitWait.objects.using(alias).filter(task_id__in=ids).delete()
    return (
        QueuedTask.objects.using(alias)
        .filter(pk__in=sorted(ids), status=LiveStatus.WAITING)
        .update(status=LiveStatus.READY, reason="")
    )


def hand_over(alias: str, request: ClaimRequest) -> list[ClaimedTask]:
    """WAITING -> RUNNING for tasks that waited at a limit, in the caller's transaction."""
    ids = list(request.candidates or ())
    LimitWait.objects.using(alias).filter(task_id__in=ids).delete()
    return operations_for(alias).claim_rows(request, status=LiveStatus.WAITING.value)
