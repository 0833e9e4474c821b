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
from datetime import datetime, timedelta
from functools import cached_property, partial
from itertools import zip_longest
from typing import Any, TypeVar

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Exists, Model, OuterRef

from ..ids import dashed
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.step import Step
from ..models.unique import UniqueKey
from ..models.workflow import Node
from ..states import LiveStatus
from .clock import DatabaseNow, GivenNow, told
from .exchanges import (
    ChangeDetector,
    ClaimedTask,
    ClaimRequest,
    Ending,
    Exchange,
)
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
UNIQUE = UniqueKey._meta.db_table


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
    #: What a row of a task with marks has, besides.
    KEYED_COLUMNS = (*INSERT_COLUMNS, "fair_key", "limit_key")
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
        if (instead := told()) is not None:
            return instead
        sql, _ = self._now_sql(None)
        with self.connection.cursor() as cursor:
            # An empty list: NOW is a template, in which a % stands twice.
            cursor.execute(f"SELECT {sql}", [])
            now = self.time_from_db(cursor.fetchone()[0])
        assert now is not None
        return now

    def _now_sql(self, now: datetime | None) -> tuple[str, list[Any]]:
        """Return now as SQL with its parameters."""
        now = told() if now is None else now
        return (self.NOW, []) if now is None else (self.GIVEN, [self.time_to_db(now)])

    #: The database's time, and one that is given.
    NOW, GIVEN = "", "%s"

    @staticmethod
    def now_expression(now: datetime | None) -> Any:
        """Return now for the ORM."""
        now = told() if now is None else now
        return DatabaseNow() if now is None else GivenNow(now, output_field=DateTimeField())

    def _claimed(self, rows: Iterable[Sequence[Any]], request: ClaimRequest) -> list[ClaimedTask]:
        """Return what was claimed in the order in which it should run."""
        tasks = [ClaimedTask(row, request.claim_id) for row in rows]
        if len(tasks) > 1:
            if request.candidates is not None:
                order = {pk: index for index, pk in enumerate(request.candidates)}
                tasks.sort(key=lambda task: order[task.id])
            elif request.by_priority or len(request.queues) == 1:
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

    @contextmanager
    def step(self) -> Iterator[None]:
        """As write(), but a savepoint where a transaction is open."""
        if self.connection.in_atomic_block:
            with transaction.atomic(using=self.alias):
                yield
        else:
            with self.write():
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

    def insert_keyed(self, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows of KEYED_COLUMNS; else as insert(), but any column may vary."""
        columns = ", ".join(self.quoted(name) for name in self.KEYED_COLUMNS)
        one = f"({', '.join(['%s'] * len(self.KEYED_COLUMNS))})"
        with self.connection.cursor() as cursor:
            # SQLite takes at most 32,766 parameters.
            for start in range(0, len(rows), INSERT_CHUNK):
                chunk = rows[start : start + INSERT_CHUNK]
                cursor.execute(
                    f"INSERT INTO {LIVE} ({columns}) VALUES {', '.join([one] * len(chunk))}",
                    [value for row in chunk for value in row],
                )

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

    def insert_and_notify(self, rows: Sequence[Sequence[Any]], queue: str) -> None:
        """As insert() and then notify(), under autocommit; what fails is never the hint."""
        self.insert(rows)

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

    def end(self, endings: Sequence[Ending]) -> set[str]:
        """End held tasks in the caller's transaction; return the ids that were held."""
        raise NotImplementedError

    def claim_rows(self, request: ClaimRequest, *, status: str) -> list[ClaimedTask]:
        """
        Claim request.candidates that have this status, in the caller's transaction.

        Rows that others have locked are left to them.
        """
        raise NotImplementedError

    def fair_candidates(self, queue: str, limit: int, after: str = "") -> tuple[list[str], str]:
        """
        Return ids that may be claimed, of the best priority, in turns of their fair keys.

        The turn begins with the key that follows after. Also return the last
        key that was looked at: the next call goes on there. Keys are found by
        a loose index scan, one probe a key and at most FAIR_KEYS of them, so
        that a key with 50,000 tasks costs no more than one with three.
        """
        rank = self.quoted("rank")
        ready = f"FROM {LIVE}{self.CLAIM_INDEX} WHERE status = 'READY' AND queue_name = %s"
        with self.by_index(), self.connection.cursor() as cursor:
            cursor.execute(f"SELECT {rank} {ready} ORDER BY {rank} LIMIT 1", [queue])
            best = cursor.fetchone()
            if best is None:
                return [], ""
            here = [queue, best[0]]
            keys = self._fair_keys(cursor, f"{ready} AND {rank} = %s", here, after, limit)
            if not keys:
                return [], ""
            share = max(1, -(-limit // len(keys)))
            one = f"(SELECT id {ready} AND {rank} = %s AND fair_key = %s ORDER BY id LIMIT %s)"
            turns = []
            for key in keys:
                cursor.execute(one[1:-1], [*here, key, share])
                turns.append([self.id_from_db(row[0]) for row in cursor.fetchall()])
        ids = [pk for turn in zip_longest(*turns) for pk in turn if pk is not None]
        return ids[:limit], keys[-1]

    def _fair_keys(
        self, cursor: Any, ready: str, here: Sequence[Any], after: str, limit: int
    ) -> list[str]:
        """Return the fair keys that come after one, and then, from the start, the others."""
        # ORDER BY and LIMIT, and no MIN(): that may well be taken of all of them.
        first = "ORDER BY fair_key LIMIT 1"
        following = f"SELECT fair_key {ready} AND fair_key"
        keys: list[str] = []
        for comparison in (">", "<="):
            room = min(self.FAIR_KEYS, limit) - len(keys)
            if room <= 0:
                break
            cursor.execute(
                f"WITH RECURSIVE t(k, n) AS (SELECT ({following} {comparison} %s {first}), 1 "
                f"UNION ALL SELECT ({following} > t.k {first}), t.n + 1 FROM t "
                "WHERE t.k IS NOT NULL AND t.n < %s) SELECT k FROM t WHERE k IS NOT NULL",
                [*here, after, *here, room],
            )
            found = [row[0] for row in cursor.fetchall()]
            keys += found if comparison == ">" else [key for key in found if key <= after]
        return keys

    @contextmanager
    def by_index(self) -> Iterator[None]:
        """Have what is read here read by its index, whatever the planner thinks of the table."""
        yield

    #: What makes a SELECT read the claim's index, after the table's name.
    CLAIM_INDEX = ""
    #: Fair keys that one claim serves at most.
    FAIR_KEYS = 50

    def has_fair(self, queue: str) -> bool:
        """Say whether a READY task of the queue's best priority has a fair key."""
        ready = QueuedTask.objects.using(self.alias).filter(
            status=LiveStatus.READY, queue_name=queue
        )
        best = ready.order_by("rank").values_list("rank", flat=True).first()
        if best is None:
            return False
        return ready.filter(rank=best, fair_key__gt="").exists()

    def take_key(self, digest: str, task_id: str, now: datetime) -> tuple[str, datetime | None]:
        """
        Give a unique key to a task, unless it has one; return whose it is, and until when.

        In the caller's transaction, which holds the key from then on: others
        wait for its end.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(self.TAKE_KEY, [digest, self.id_to_db(task_id), self.time_to_db(now)])
            cursor.execute(f"SELECT task_id, until FROM {UNIQUE} WHERE digest = %s", [digest])
            holder, until = cursor.fetchone()
        return self.id_from_db(holder), self.time_from_db(until)

    #: An update that changes nothing: it locks the row that is there.
    TAKE_KEY = (
        f"INSERT INTO {UNIQUE} (digest, task_id, made_at) VALUES (%s, %s, %s) "
        "ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest"
    )

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

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """
        End statements that take longer with a DatabaseError; outside a transaction of worth.

        What was written within is undone then.
        """
        raise NotImplementedError
        yield

    def estimate(self, model: type[Model]) -> int:
        """Return about how many rows a table has, without reading it."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Have the database clear away what thousands of finished tasks left in the live table."""

    def prune(self, status: Sequence[str], before: datetime, limit: int) -> int:
        """
        Delete up to limit finished tasks that ended before; return how many.

        Not those of workflows: these go as a whole.
        """
        member = Node.objects.using(self.alias).filter(pk=OuterRef("pk"))
        done = FinishedTask.objects.using(self.alias).filter(~Exists(member))
        pruned = 0
        for one in status:
            ids = list(
                done.filter(status=one, finished_at__lt=before)
                .order_by("finished_at")
                .values_list("pk", flat=True)[: limit - pruned]
            )
            if ids:
                pruned += self.retrying(partial(self._forget, sorted(ids)))
        return pruned

    def _forget(self, ids: Sequence[Any]) -> int:
        """Delete finished tasks and their steps; one that is retried meanwhile keeps both."""
        with self.write():
            done = FinishedTask.objects.using(self.alias)
            locked = list(done.select_for_update().filter(pk__in=ids).values_list("pk", flat=True))
            Step.objects.using(self.alias).filter(task_id__in=locked)._raw_delete(self.alias)
            return done.filter(pk__in=locked)._raw_delete(self.alias)
