"""How tasks come in, and become due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from .. import dependencies
from ..db import operations_for
from ..models.limit import LimitWait
from ..models.queued import QueuedTask
from ..states import LiveStatus


def enqueue(
    alias: str, rows: Sequence[Sequence[Any]], *, keyed: bool = False, tell: str | None = None
) -> None:
    """
    -> READY, SCHEDULED or WAITING, in the caller's transaction.

    rows are of INSERT_COLUMNS, with keyed of KEYED_COLUMNS. tell, under
    autocommit, is the queue whose workers hear of it by the same commit.
    """
    operations = operations_for(alias)
    if tell is not None and not keyed:
        operations.insert_and_notify(rows, tell)
    elif keyed:
        operations.insert_keyed(rows)
    else:
        operations.insert(rows)


def enqueue_waiting(alias: str, rows: Sequence[Sequence[Any]], waits: Sequence[LimitWait]) -> None:
    """-> WAITING at a limit, in the caller's transaction; rows are of KEYED_COLUMNS."""
    operations_for(alias).insert_keyed(rows)
    LimitWait.objects.using(alias).bulk_create(waits, batch_size=1000)


def replace(alias: str, task_id: str, changes: Mapping[str, Any]) -> int:
    """
    SCHEDULED, WAITING or READY -> SCHEDULED or READY with other arguments and time.

    For the waiting task of a unique key; changes are columns, status among them.
    A member of a workflow keeps both: others count on its place.
    """
    if dependencies.members(alias, [UUID(task_id)]):
        return 0
    return (
        QueuedTask.objects.using(alias)
        .filter(pk=task_id, status__in=(LiveStatus.SCHEDULED, LiveStatus.WAITING, LiveStatus.READY))
        .update(**changes)
    )


def promote(alias: str, limit: int, *, now: datetime | None = None) -> list[str]:
    """SCHEDULED -> READY for tasks that are due; return the queue of each."""
    return operations_for(alias).promote(limit, now=now)
