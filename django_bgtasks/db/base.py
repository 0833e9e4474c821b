"""
What the ORM can't say portably, as one interface.

Callers say operations_for(alias).claim(...) and never see a vendor. Each
operation opens the transaction that it needs, and must not be called in one
unless its docstring says so. Where now is an argument, None means the
database's clock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Value

from ..ids import dashed
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.record import TaskRecord
from ..states import LiveStatus
from .clock import DatabaseNow
from .failures import FailureKind, classify

T = TypeVar("T")

#: Rows of one statement; longer lists are cut.
CHUNK = 500
#: Rows of one INSERT of enqueue_many.
INSERT_CHUNK = 1000
#: How often a transaction that met a deadlock or a lock is tried.
TRIES = 5

LIVE = QueuedTask._meta.db_table
DONE = FinishedTask._meta.db_table
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
            self.reason,
        ) = row
        self.claim_id = claim_id


@dataclass(slots=True)
class Ending:
    """
    How a task that is held ends: what the move to FinishedTask changes.

    return_value and errors are JSON text; None is null. began is None where
    the row's own last_attempted_at stands.
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


@dataclass(slots=True)
class ClaimRequest:
    """
    What a worker is ready to take.

    queues are in order of preference; with by_priority they are equal, and the
    priorities of the tasks decide. lease is in seconds.
    """

    queues: Sequence[str]
    limit: int
    claim_id: str
    worker_id: str
    lease: float
    by_priority: bool = False
    now: datetime | None = None


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

    def fileno(self) -> int | None:
        """Return a file descriptor that becomes readable, or None."""
        return None

    def changed(self) -> bool:
        """Say whether something may have changed since the last call."""
        return False

    def close(self) -> None:
        """Give back what is held."""


class DatabaseOperations:
    """The operations of one database alias, for the thread that calls."""

    #: Seconds of a lease, unless OPTIONS["LEASE"] says otherwise.
    default_lease = 30.0
    #: Seconds that a process pauses after each of its write transactions, at random between.
    write_pause: tuple[float, float] | None = None

    INSERT_COLUMNS = (
        "id",
        "task_path",
        "queue_name",
        "priority",
        "rank",
        "backend",
        "status",
        "enqueued_at",
        "run_after",
        "due_at",
        "options",
        "args",
        "kwargs",
    )
    # Columns from here on differ from row to row of one enqueue_many.
    VARYING = 11

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def connection(self) -> BaseDatabaseWrapper:
        return connections[self.alias]

    # Values

    @cached_property
    def has_native_uuid(self) -> bool:
        """Whether ids are stored as UUIDs, and not as 32 digits."""
        return self.connection.features.has_native_uuid_field

    def id_to_db(self, value: str) -> str:
        """Return an id as the driver takes it."""
        return value if self.has_native_uuid else value.replace("-", "")

    def id_from_db(self, value: Any) -> str:
        """Return an id as the driver gives it in its canonical form."""
        text = str(value)
        return text if len(text) == 36 else dashed(text)

    def time_to_db(self, value: datetime | None) -> Any:
        """Return an aware datetime as the driver takes it."""
        return self.connection.ops.adapt_datetimefield_value(value)

    def time_from_db(self, value: Any) -> datetime | None:
        """Return a time as the driver gives it as an aware datetime."""
        raise NotImplementedError

    def now(self) -> datetime:
        """Return the database's time."""
        sql, _ = self._now_sql(None)
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT {sql}")
            now = self.time_from_db(cursor.fetchone()[0])
        assert now is not None
        return now

    def _now_sql(self, now: datetime | None) -> tuple[str, list[Any]]:
        """Return now as SQL with its parameters."""
        raise NotImplementedError

    @staticmethod
    def now_expression(now: datetime | None) -> Any:
        """Return now for the ORM."""
        return DatabaseNow() if now is None else Value(now, output_field=DateTimeField())

    def _claimed(self, rows: Iterable[Sequence[Any]], request: ClaimRequest) -> list[ClaimedTask]:
        """Return what was claimed in the order in which it should run."""
        tasks = [ClaimedTask(row, request.claim_id) for row in rows]
        if len(tasks) > 1:
            if request.by_priority or len(request.queues) == 1:
                tasks.sort(key=lambda task: (-task.priority, task.id))
            else:
                place = {name: index for index, name in enumerate(request.queues)}
                tasks.sort(key=lambda task: (place[task.queue_name], -task.priority, task.id))
        return tasks

    # Transactions

    @contextmanager
    def write(self) -> Iterator[None]:
        """Open a transaction that may wait for locks but never fails to upgrade one."""
        with transaction.atomic(using=self.alias, durable=True):
            yield

    def retrying(self, unit: Callable[[], T]) -> T:
        """
        Call unit, a whole transaction, again after a deadlock or a lock wait.

        What is transient but no conflict, such as a server that restarts, is
        the caller's to wait for.
        """
        for attempt in range(TRIES):
            try:
                return unit()
            except DatabaseError as error:
                if attempt + 1 == TRIES or not self.is_conflict(error):
                    raise
                time.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    def is_conflict(self, error: BaseException) -> bool:
        """Say whether a transaction failed because of another one."""
        return classify(error) is FailureKind.TRANSIENT

    def pause(self) -> None:
        """Let other processes write, where the database's lock is not fair."""
        if self.write_pause is not None:
            time.sleep(random.uniform(*self.write_pause))

    # Enqueue: in the caller's transaction

    def insert(self, rows: Sequence[Sequence[Any]]) -> None:
        """
        Insert rows of INSERT_COLUMNS, as many as INSERT_CHUNK in one statement.

        In the caller's transaction, if there is one. Rows that are inserted
        together share all columns before VARYING but the id.
        """
        with self.connection.cursor() as cursor:
            if len(rows) == 1:
                cursor.execute(self.insert_one, rows[0])
                return
            for start in range(0, len(rows), INSERT_CHUNK):
                chunk = rows[start : start + INSERT_CHUNK]
                sql = f"{self.insert_one}{f', {self._INSERT_ROW}' * (len(chunk) - 1)}"
                cursor.execute(sql, [value for row in chunk for value in row])

    _INSERT_ROW = f"({', '.join(['%s'] * len(INSERT_COLUMNS))})"

    @cached_property
    def insert_one(self) -> str:
        """The INSERT of one row of INSERT_COLUMNS."""
        columns = ", ".join(self.quoted(name) for name in self.INSERT_COLUMNS)
        return f"INSERT INTO {LIVE} ({columns}) VALUES {self._INSERT_ROW}"

    def quoted(self, name: str) -> str:
        """Quote a column: rank is a reserved word of MySQL."""
        return self.connection.ops.quote_name(name)

    def notify(self, queues: Iterable[str]) -> None:
        """Tell workers of other processes that tasks wait in queues; outside a transaction."""

    def change_detector(
        self, queues: Callable[[], Sequence[str]], *, listen: bool
    ) -> ChangeDetector:
        """Return what wakes an idle worker that serves the queues which queues() returns."""
        raise NotImplementedError

    # Claim and finish

    def exchange(self, endings: Sequence[Ending], request: ClaimRequest | None) -> Exchange:
        """
        End held tasks and claim others, in one transaction.

        An ending changes nothing unless the row is still RUNNING under its
        claim_id. No two callers receive the same task.
        """
        raise NotImplementedError

    def move_back(self, ids: Sequence[str], *, statuses: Sequence[str], reason: str) -> list[str]:
        """
        Move finished tasks of these statuses back to READY; return their ids.

        failures and lost_count begin anew, errors and attempt go on.
        """
        raise NotImplementedError

    def withdraw(self, ids: Sequence[str], *, reason: str) -> list[str]:
        """Move tasks that nobody runs to CANCELLED; return their ids."""
        raise NotImplementedError

    # What many workers look for

    def has_ready(self, queues: Sequence[str]) -> bool:
        """Say whether a task waits in one of queues."""
        ready = QueuedTask.objects.using(self.alias).filter(status=LiveStatus.READY)
        return any(ready.filter(queue_name=name).exists() for name in queues)

    def queue_names(self) -> list[str]:
        """
        Return the names of the queues with READY tasks, by one index probe each.

        A DISTINCT would read the whole backlog (the "loose index scan" of the
        PostgreSQL wiki).
        """
        names: list[str] = []
        last = ""
        ready = QueuedTask.objects.using(self.alias).filter(status=LiveStatus.READY)
        while True:
            following = (
                ready.filter(queue_name__gt=last)
                .order_by("queue_name")
                .values_list("queue_name", flat=True)
                .first()
            )
            if following is None:
                return names
            last = following
            names.append(last)

    def promote(self, limit: int, *, now: datetime | None = None) -> list[str]:
        """Make up to limit due tasks READY; return the queue of each."""

        def unit() -> list[str]:
            with self.write():
                due = list(
                    QueuedTask.objects.using(self.alias)
                    .select_for_update(
                        skip_locked=self.connection.features.has_select_for_update_skip_locked
                    )
                    .filter(due_at__lte=self.now_expression(now))
                    .order_by("due_at", "id")
                    .values_list("id", "queue_name")[:limit]
                )
                if not due:
                    return []
                QueuedTask.objects.using(self.alias).filter(
                    pk__in=sorted(pk for pk, _ in due), status=LiveStatus.SCHEDULED
                ).update(status=LiveStatus.READY, due_at=None)
                return [queue for _, queue in due]

        return self.retrying(unit)

    def next_due(self, *, now: datetime | None = None) -> float | None:
        """Return the seconds until the next SCHEDULED task is due, None if there is none."""
        first = (
            QueuedTask.objects.using(self.alias)
            .filter(due_at__isnull=False)
            .order_by("due_at")
            .values_list("due_at", flat=True)
            .first()
        )
        if first is None:
            return None
        return (first - (now or self.now())).total_seconds()

    def renew(
        self, held: Iterable[tuple[str, str]], lease: float, *, now: datetime | None = None
    ) -> set[str]:
        """
        Prolong the leases of held (id, claim_id); return the ids that are ours still.
        """
        pairs = sorted(held)
        kept: set[str] = set()
        rows = QueuedTask.objects.using(self.alias).filter(status=LiveStatus.RUNNING)
        until = self.now_expression(now) + timedelta(seconds=lease)
        for start in range(0, len(pairs), CHUNK):
            chunk = pairs[start : start + CHUNK]
            mine = rows.filter(
                pk__in=[pk for pk, _ in chunk], claim_id__in={claim for _, claim in chunk}
            )
            if mine.update(lease_until=until) == len(chunk):
                kept.update(pk for pk, _ in chunk)
            else:
                kept.update(str(pk) for pk in mine.values_list("pk", flat=True))
        return kept

    def prune(self, status: Sequence[str], before: datetime, limit: int) -> int:
        """Delete up to limit finished tasks that ended before; return how many."""
        done = FinishedTask.objects.using(self.alias)
        pruned = 0
        for one in status:
            ids = list(
                done.filter(status=one, finished_at__lt=before)
                .order_by("finished_at")
                .values_list("pk", flat=True)[: limit - pruned]
            )
            if ids:
                pruned += self.retrying(
                    lambda ids=ids: done.filter(pk__in=sorted(ids))._raw_delete(self.alias)  # type: ignore[misc]
                )
        return pruned
