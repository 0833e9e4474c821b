"""
Unique keys: whose is it, asked by an enqueue in its own transaction.

The primary key of UniqueKey decides between enqueues at the same instant: the
second waits until the first has committed or rolled back. Nothing is given
back when a task ends; whether its key still counts is read from the task.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .db import operations_for
from .models.finished import FinishedTask
from .models.queued import QueuedTask
from .models.record import TaskRecord
from .models.unique import UniqueKey
from .states import LiveStatus

_WAITING = (LiveStatus.SCHEDULED, LiveStatus.WAITING, LiveStatus.READY)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an enqueue wants of a key; during is "waiting", "running" or "period"."""

    digest: str
    task_id: str
    during: str
    seconds: float | None = None


def take(alias: str, claim: Claim, *, earlier: Collection[str] = ()) -> str | None:
    """
    Take a key for a task that is about to be written; return whose it is instead, if so.

    In the caller's transaction. earlier are ids of the same enqueue that are
    not written yet.
    """
    operations = operations_for(alias)
    now = operations.now()
    until = None if claim.seconds is None else now + timedelta(seconds=claim.seconds)
    holder, held_until = operations.take_key(claim.digest, claim.task_id, now)
    if holder != claim.task_id and (
        holder in earlier or _counts(alias, holder, claim.during, held_until, now)
    ):
        return holder
    if holder != claim.task_id or until is not None:
        UniqueKey.objects.using(alias).filter(pk=claim.digest).update(
            task_id=claim.task_id, until=until, made_at=now
        )
    return None


def _counts(alias: str, holder: str, during: str, until: Any, now: Any) -> bool:
    """Say whether the key of holder's task still counts."""
    live = QueuedTask.objects.using(alias).filter(pk=holder)
    if during == "period":
        if until is None or until <= now:
            return False
        return live.exists() or FinishedTask.objects.using(alias).filter(pk=holder).exists()
    if during == "waiting":
        # Locked: it can't start before the caller's transaction has committed, and
        # sees what that wrote.
        row = live.select_for_update().only("status").first()
        return row is not None and row.status in _WAITING
    return live.exists()


def may_return(alias: str, row: TaskRecord) -> bool:
    """Say whether a finished task may be live again, and take its key back; as take()."""
    mark = ((row.options or {}).get("marks") or {}).get("unique")
    if mark is None:
        return True
    return take(alias, Claim(mark[0], str(row.pk), "running")) is None


def forget(alias: str, before: Any, limit: int) -> int:
    """Delete up to limit keys made before, whose task is gone and whose period has passed."""
    now = operations_for(alias).now()
    old = UniqueKey.objects.using(alias).filter(made_at__lt=before).order_by("made_at")
    keys = {str(key.task_id): key for key in old[:limit] if key.until is None or key.until <= now}
    live = QueuedTask.objects.using(alias).filter(pk__in=list(keys)).values_list("pk", flat=True)
    gone = [key for pk, key in keys.items() if pk not in {str(pk) for pk in live}]
    deleted = 0
    for key in gone:
        # Guarded: another task may have taken it over just now.
        deleted += (
            UniqueKey.objects.using(alias).filter(pk=key.pk, task_id=key.task_id)._raw_delete(alias)
        )
    return deleted
