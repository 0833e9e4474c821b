"""What goes between a worker and a database's operations: requests, rows, endings, hints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..models.record import TaskRecord

MOVING = TaskRecord.MOVING


class ClaimedTask:
    """A row as it was claimed. The JSON columns are text; claim_id is the fence."""

    __slots__ = (*MOVING, "claim_id")

    id: str
    task_path: str
    queue_name: str
    priority: int
    backend: str
    args: str
    kwargs: str
    options: str | None
    enqueued_at: datetime
    run_after: datetime | None
    started_at: datetime | None
    last_attempted_at: datetime | None
    attempt: int
    failures: int
    lost_count: int
    worker_id: str
    errors: str | None
    notes: str | None
    reason: str
    claim_id: str

    def __init__(self, row: Sequence[Any], claim_id: str) -> None:
        (
            self.id,
            self.task_path,
            self.queue_name,
            self.priority,
            self.backend,
            self.args,
            self.kwargs,
            self.options,
            self.enqueued_at,
            self.run_after,
            self.started_at,
            self.last_attempted_at,
            self.attempt,
            self.failures,
            self.lost_count,
            self.worker_id,
            self.errors,
            self.notes,
            self.reason,
        ) = row
        self.claim_id = claim_id


@dataclass(slots=True)
class Ending:
    """
    How a task that is held ends: what the move to FinishedTask changes.

    return_value, errors and notes are JSON text; None is null, for notes what
    the row has. began is None where the row's own last_attempted_at stands.
    fingerprint is the cause of a failure (fingerprints.py), "" for other ends.
    is_member says that it belongs to a workflow; grow writes, in the same
    transaction, what the task has added to it, and refuse makes this the ending
    of a task whose additions can't be written.
    """

    id: str
    claim_id: str
    status: str
    finished_at: datetime
    return_value: str | None = None
    errors: str | None = None
    failures: int = 0
    lost_count: int = 0
    began: datetime | None = None
    reason: str = ""
    notes: str | None = None
    fingerprint: str = ""
    is_member: bool = False
    grow: Callable[[], None] | None = None
    refuse: Callable[[Exception], None] | None = None


@dataclass(slots=True)
class ClaimRequest:
    """
    What a worker is ready to take.

    queues are in order of preference; with by_priority they are equal, and the
    priorities of the tasks decide. lease is in seconds. With candidates these
    ids are taken, in their order, and queues only name where they come from.
    own_session: the caller's connection keeps its session, no pooler gives it
    to others, so that what is prepared on it stays prepared.
    """

    queues: Sequence[str]
    limit: int
    claim_id: str
    worker_id: str
    lease: float
    by_priority: bool = False
    now: datetime | None = None
    candidates: Sequence[str] | None = None
    own_session: bool = False


@dataclass(slots=True)
class Exchange:
    """What came of DatabaseOperations.exchange()."""

    claimed: list[ClaimedTask] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)


class ChangeDetector:
    """
    Tells a worker that there may be something to claim.

    A hint: the worker looks by itself, too, every poll_interval.
    """

    #: Seconds after which changed() is worth another call, None if fileno() tells.
    interval: float | None = None
    #: Whether connections were seen to keep their session: no pooler swallows it.
    keeps_session = False

    def fileno(self) -> int | None:
        """Return a file descriptor that becomes readable, or None."""
        return None

    def changed(self) -> bool:
        """Say whether something may have changed since the last call."""
        return False

    def close(self) -> None:
        """Give back what is held."""
