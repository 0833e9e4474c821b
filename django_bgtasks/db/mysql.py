"""
MariaDB and MySQL: candidates are read first, then locked by primary key.

Differs from the others in that InnoDB locks every row that a locking SELECT
reads, and not only those it returns; in having no UPDATE ... RETURNING; and in
having nothing that wakes a worker, which polls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import Model

from .base import CHUNK, DONE, LIVE, UNIQUE, DatabaseOperations
from .exchanges import MOVING, ChangeDetector, ClaimedTask, ClaimRequest, Ending, Exchange

# What an ending changes of a row, as SELECT ... AS of the derived table o.
_ENDING_FIELDS = ("i", "c", "s", "f", "r", "e", "n", "l", "b", "x", "t", "p")
_MOVED = {
    "started_at": "IF(q.attempt <= 1, COALESCE(o.b, q.started_at), q.started_at)",
    "last_attempted_at": "COALESCE(o.b, q.last_attempted_at)",
    "failures": "o.n",
    "lost_count": "o.l",
    "errors": "o.e",
    "notes": "COALESCE(o.t, q.notes)",
    "reason": "o.x",
}
_CONFLICTS = frozenset({1020, 1205, 1213, 3572})


class MySQLOperations(DatabaseOperations):
    NOW, GIVEN = "UTC_TIMESTAMP(6)", "CAST(%s AS DATETIME(6))"
    CLAIM_INDEX = " FORCE INDEX (bgtasks_claim)"
    # INSERT IGNORE would take a shared lock on the row that is there, and two that
    # want more of it then wait for each other; this takes an exclusive one.
    TAKE_KEY = (
        f"INSERT INTO {UNIQUE} (digest, task_id, made_at) VALUES (%s, %s, %s) "
        "ON DUPLICATE KEY UPDATE digest = digest"
    )

    def time_to_db(self, value: datetime | None) -> Any:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def time_from_db(self, value: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)

    def is_conflict(self, error: BaseException) -> bool:
        cause = error.__cause__ or error
        return bool(cause.args) and cause.args[0] in _CONFLICTS

    def exchange(self, endings: Sequence[Ending], request: ClaimRequest | None) -> Exchange:
        if request is not None and (request.limit <= 0 or not request.queues):
            request = None
        if not endings and request is None:
            return Exchange()
        # Read before the transaction: it locks nothing, and an idle worker stops here.
        candidates = self._candidates(request) if request is not None else []
        if not endings and not candidates:
            return Exchange()

        def unit() -> Exchange:
            done = Exchange()
            with self.write():
                for start in range(0, len(endings), CHUNK):
                    done.ended |= self._end(endings[start : start + CHUNK])
                if request is not None and candidates:
                    done.claimed = self._claim(request, candidates)
            return done

        return self.retrying(unit)

    def end(self, endings: Sequence[Ending]) -> set[str]:
        return self._end(endings)

    def claim_rows(self, request: ClaimRequest, *, status: str) -> list[ClaimedTask]:
        ids = self._candidates(request)
        return self._claim(request, ids, status) if ids else []

    def _end(self, endings: Sequence[Ending]) -> set[str]:
        ordered = sorted(endings, key=lambda ending: ending.id)
        claims = {self.id_to_db(ending.id): self.id_to_db(ending.claim_id) for ending in ordered}
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, claim_id FROM {LIVE} WHERE id IN ({self._marks(claims)}) "
                "AND status = 'RUNNING' ORDER BY id FOR UPDATE",
                list(claims),
            )
            held = {str(pk) for pk, claim in cursor.fetchall() if claims[str(pk)] == str(claim)}
            if not held:
                return set()
            rows = [ending for ending in ordered if self.id_to_db(ending.id) in held]
            line = f"SELECT {', '.join(['%s'] * len(_ENDING_FIELDS))}"
            first = "SELECT " + ", ".join(f"%s AS {name}" for name in _ENDING_FIELDS)
            columns = ", ".join(_MOVED.get(name, f"q.{name}") for name in MOVING)
            cursor.execute(
                f"INSERT INTO {DONE} ({', '.join(MOVING)}, status, finished_at, return_value, "
                f"fingerprint, claim_id) SELECT {columns}, o.s, o.f, o.r, o.p, q.claim_id FROM "
                f"({' UNION ALL '.join([first, *[line] * (len(rows) - 1)])}) o "
                f"JOIN {LIVE} q ON q.id = o.i",
                [
                    value
                    for o in rows
                    for value in (
                        self.id_to_db(o.id),
                        self.id_to_db(o.claim_id),
                        o.status,
                        self.time_to_db(o.finished_at),
                        o.return_value,
                        o.errors,
                        o.failures,
                        o.lost_count,
                        self.time_to_db(o.began),
                        o.reason,
                        o.notes,
                        o.fingerprint,
                    )
                ],
            )
            ids = sorted(held)
            cursor.execute(f"DELETE FROM {LIVE} WHERE id IN ({self._marks(ids)})", ids)
        return {ending.id for ending in rows}

    @staticmethod
    def _marks(values: Any) -> str:
        return ", ".join(["%s"] * len(values))

    def _candidates(self, request: ClaimRequest) -> list[str]:
        """
        Return ids that may be claimed, best first, without a lock.

        Four times as many as are wanted, since others may lock the first.
        """
        if request.candidates is not None:
            return [self.id_to_db(pk) for pk in request.candidates]
        limit = 4 * request.limit
        rank = self.quoted("rank")
        one = (
            f"(SELECT id, {rank} AS r, %s AS place FROM {LIVE} WHERE status = 'READY' "
            f"AND queue_name = %s ORDER BY {rank}, fair_key, id LIMIT %s)"
        )
        order = "r, id" if request.by_priority else "place, r, id"
        params = [v for place, name in enumerate(request.queues) for v in (place, name, limit)]
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"{' UNION ALL '.join([one] * len(request.queues))} ORDER BY {order} LIMIT %s",
                [*params, limit],
            )
            return [str(row[0]) for row in cursor.fetchall()]

    def _claim(
        self, request: ClaimRequest, ids: list[str], status: str = "READY"
    ) -> list[ClaimedTask]:
        now, at = self._now_sql(request.now)
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {', '.join(MOVING)}, {now} FROM {LIVE} FORCE INDEX (PRIMARY) "
                f"WHERE id IN ({self._marks(ids)}) AND status = %s FOR UPDATE SKIP LOCKED",
                [*at, *ids, status],
            )
            place = {pk: index for index, pk in enumerate(ids)}
            locked = sorted(cursor.fetchall(), key=lambda row: place[str(row[0])])
            rows = locked[: request.limit]
            if not rows:
                return []
            taken = sorted(str(row[0]) for row in rows)
            cursor.execute(
                f"UPDATE {LIVE} SET status = 'RUNNING', claim_id = %s, worker_id = %s, "
                f"attempt = attempt + 1, lease_until = {now} + INTERVAL %s MICROSECOND, "
                f"started_at = COALESCE(started_at, {now}), last_attempted_at = {now}, "
                f"reason = '' WHERE id IN ({self._marks(taken)})",
                [
                    self.id_to_db(request.claim_id),
                    request.worker_id,
                    *at,
                    int(request.lease * 1_000_000),
                    *at,
                    *at,
                    *taken,
                ],
            )
        return self._claimed((self._as_claimed(row, request) for row in rows), request)

    def _as_claimed(self, row: Sequence[Any], request: ClaimRequest) -> list[Any]:
        """Return a row as the UPDATE left it: MariaDB's has no RETURNING."""
        now = self.time_from_db(row[-1])
        values = dict(zip(MOVING, row[:-1], strict=True))
        for name in ("enqueued_at", "run_after", "started_at"):
            values[name] = self.time_from_db(values[name])
        values.update(
            id=self.id_from_db(values["id"]),
            started_at=values["started_at"] or now,
            last_attempted_at=now,
            attempt=values["attempt"] + 1,
            worker_id=request.worker_id,
            reason="",
        )
        return list(values.values())

    def _fair_keys(
        self, cursor: Any, ready: str, here: Sequence[Any], after: str, limit: int
    ) -> list[str]:
        # One by one: in a correlated subquery MariaDB reads all keys up to the next one.
        keys: list[str] = []
        for start, end in ((after, None), (None, after)):
            last = start
            while len(keys) < min(self.FAIR_KEYS, limit):
                compared = "fair_key >= %s" if last is None else "fair_key > %s"
                cursor.execute(
                    f"SELECT fair_key {ready} AND {compared} ORDER BY fair_key LIMIT 1",
                    [*here, last or ""],
                )
                row = cursor.fetchone()
                if row is None or (end is not None and row[0] > end):
                    break
                last = row[0]
                keys.append(row[0])
        return keys

    def move_back(self, ids: Sequence[str], *, statuses: Sequence[str], reason: str) -> list[str]:
        rank = self.quoted("rank")
        kept = {"failures": "0", "lost_count": "0", "reason": "%s", "run_after": "NULL"}
        columns = ", ".join(kept.get(name, name) for name in MOVING)
        return self._move(
            ids,
            source=DONE,
            statuses=statuses,
            insert=f"INSERT INTO {LIVE} ({', '.join(MOVING)}, status, {rank}) "
            f"SELECT {columns}, 'READY', -priority FROM {DONE}",
            values=[reason],
        )

    def withdraw(self, ids: Sequence[str], *, reason: str) -> list[str]:
        columns = ", ".join("%s" if name == "reason" else name for name in MOVING)
        now, at = self._now_sql(None)
        return self._move(
            ids,
            source=LIVE,
            statuses=("SCHEDULED", "WAITING", "READY"),
            insert=f"INSERT INTO {DONE} ({', '.join(MOVING)}, status, finished_at) "
            f"SELECT {columns}, 'CANCELLED', {now} FROM {LIVE}",
            values=[reason, *at],
        )

    def _move(
        self,
        ids: Sequence[str],
        *,
        source: str,
        statuses: Sequence[str],
        insert: str,
        values: Sequence[Any],
    ) -> list[str]:
        if not ids:
            return []

        def unit() -> list[str]:
            with transaction.atomic(using=self.alias), self.connection.cursor() as cursor:
                wanted = sorted(self.id_to_db(pk) for pk in ids)
                cursor.execute(
                    f"SELECT id FROM {source} WHERE id IN ({self._marks(wanted)}) "
                    f"AND status IN ({self._marks(statuses)}) ORDER BY id FOR UPDATE",
                    [*wanted, *statuses],
                )
                held = [str(row[0]) for row in cursor.fetchall()]
                if held:
                    where = f"WHERE id IN ({self._marks(held)})"
                    cursor.execute(f"{insert} {where}", [*values, *held])
                    cursor.execute(f"DELETE FROM {source} {where}", held)
            return [self.id_from_db(pk) for pk in held]

        return unit() if self.connection.in_atomic_block else self.retrying(unit)

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        connection: Any = self.connection
        # MariaDB counts in seconds, MySQL in milliseconds.
        name, value = (
            ("max_statement_time", seconds)
            if connection.mysql_is_mariadb
            else ("max_execution_time", int(1000 * seconds))
        )
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT @@SESSION.{name}")
            before = cursor.fetchone()[0]
            cursor.execute(f"SET SESSION {name} = %s", [value])
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute(f"SET SESSION {name} = %s", [before])

    def estimate(self, model: type[Model]) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_rows FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = %s",
                [model._meta.db_table],
            )
            row = cursor.fetchone()
        return int(row[0]) if row and row[0] else 0

    def change_detector(
        self, queues: Callable[[], Sequence[str]], *, listen: bool
    ) -> ChangeDetector:
        return Poller(self, queues)


class Poller(ChangeDetector):
    """Asks for work itself: often after there was some, seldom after long quiet."""

    SHORTEST = 0.02
    LONGEST = 0.5

    def __init__(self, operations: MySQLOperations, queues: Callable[[], Sequence[str]]) -> None:
        self._operations = operations
        self._queues = queues
        self._pause = self.SHORTEST
        self._next = 0.0

    @property
    def interval(self) -> float | None:  # type: ignore[override]
        return self._pause

    def changed(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        found = self._operations.has_ready(self._queues())
        self._pause = self.SHORTEST if found else min(self._pause * 1.2, self.LONGEST)
        self._next = now + self._pause * 0.9
        return found
