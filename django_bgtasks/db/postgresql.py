"""
PostgreSQL: ending a batch and claiming the next one is a single round trip.

Differs from the others in its data-modifying WITH, in its planner, which must
not be led astray by statistics of a moment ago when the table was empty, and
in LISTEN and NOTIFY.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4

from django.db import OperationalError, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.db.models import Model

from .base import DONE, INSERT_CHUNK, LIVE, DatabaseOperations
from .exchanges import MOVING, ChangeDetector, ClaimedTask, ClaimRequest, Ending, Exchange

#: The channel of NOTIFY; the payload is the name of a queue.
CHANNEL = "bgtasks"

# In a burst the statistics still say that the table is empty, and a sequential
# scan or a hash join look cheap: leave only the index and nested loops. By one
# SELECT: as many SETs take the server 0.2 ms longer.
_OFF = [f"enable_{method}" for method in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")]
_PLANNER = "SELECT " + ", ".join(f"set_config('{name}', 'off', true)" for name in _OFF)
# What a claim alone writes may be lost with the server: the row is READY again then, and
# whoever held it can change nothing any more. So it doesn't wait for the disk.
_PLANNER_AND_NO_WAIT = f"{_PLANNER}, set_config('synchronous_commit', 'off', true)"

# status || '' below keeps the planner from reading the index on status, where
# only the primary key will do.

_ENDING_COLUMNS = (
    "i uuid, c uuid, s text, f timestamptz, r jsonb, e jsonb, n int, l int, b timestamptz, "
    "x text, o jsonb, p text"
)
_MOVED = {
    "started_at": "CASE WHEN q.attempt <= 1 THEN COALESCE(o.b, q.started_at) ELSE q.started_at END",
    "last_attempted_at": "COALESCE(o.b, q.last_attempted_at)",
    "failures": "o.n",
    "lost_count": "o.l",
    "errors": "o.e",
    "notes": "COALESCE(o.o, q.notes)",
    "reason": "o.x",
}
_FINISH = f"""
WITH o AS MATERIALIZED (SELECT * FROM json_to_recordset(%s::json) AS t({_ENDING_COLUMNS})),
gone AS (
    DELETE FROM {LIVE} q USING o
    WHERE q.id = o.i AND q.claim_id = o.c AND q.status || '' = 'RUNNING'
    RETURNING {", ".join(_MOVED.get(name, f"q.{name}") for name in MOVING)},
        o.s, o.f, o.r, o.p, o.c)
INSERT INTO {DONE}
    ({", ".join(MOVING)}, status, finished_at, return_value, fingerprint, claim_id)
SELECT * FROM gone
RETURNING id::text"""

_TAKEN = ", ".join("q.id::text" if name == "id" else f"q.{name}" for name in MOVING)
_TAKE = f"""
UPDATE {LIVE} q SET
    status = 'RUNNING', claim_id = %s, worker_id = %s, attempt = q.attempt + 1,
    lease_until = {{now}} + %s * INTERVAL '1 second',
    started_at = COALESCE(q.started_at, {{now}}), last_attempted_at = {{now}}, reason = ''
FROM c WHERE q.id = c.id
RETURNING {_TAKEN}"""
# The CTE is a fence: a LIMITed locking subquery in a nested loop may be run
# again and lock more rows than it should (Oban, engines/basic.ex).
_ONE_QUEUE = f"""
WITH c AS MATERIALIZED (
    SELECT id FROM {LIVE} WHERE status = 'READY' AND queue_name = %s
    ORDER BY rank, fair_key, id LIMIT %s FOR UPDATE SKIP LOCKED){_TAKE}"""
# Pulled lazily, queue by queue, until the outer LIMIT is reached.
_IN_ORDER = f"""
WITH c AS MATERIALIZED (
    SELECT x.id FROM unnest(%s::text[]) WITH ORDINALITY AS n(name, place)
    CROSS JOIN LATERAL (
        SELECT id FROM {LIVE} WHERE status = 'READY' AND queue_name = n.name
        ORDER BY rank, fair_key, id LIMIT %s FOR UPDATE SKIP LOCKED) x
    LIMIT %s){_TAKE}"""
# The best of each queue without a lock, then the best of all with one. Three
# times as many candidates, since others may hold the first.
_BY_PRIORITY = f"""
WITH best AS MATERIALIZED (
    SELECT x.id, x.rank FROM unnest(%s::text[]) AS n(name)
    CROSS JOIN LATERAL (
        SELECT id, rank FROM {LIVE} WHERE status = 'READY' AND queue_name = n.name
        ORDER BY rank, fair_key, id LIMIT %s) x
    ORDER BY x.rank, x.id LIMIT %s),
c AS MATERIALIZED (
    SELECT t.id FROM best JOIN {LIVE} t ON t.id = best.id AND t.status || '' = 'READY'
    ORDER BY best.rank, best.id LIMIT %s FOR UPDATE OF t SKIP LOCKED){_TAKE}"""

_BY_IDS = f"""
WITH c AS MATERIALIZED (
    SELECT id FROM {LIVE} WHERE id = ANY(%s::uuid[]) AND status || '' = %s
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED){_TAKE}"""

_NOTIFY = "SELECT pg_notify(%s, %s)"

#: psycopg prepares only where a connection has a threshold; nothing else reaches this one.
_NEVER_BY_ITSELF = 1_000_000_000

Statement = tuple[str, Sequence[Any]]


@lru_cache(maxsize=64)
def _without_waiting(sql: str) -> str:
    """Return a claim whose own commit doesn't wait for the disk, for server-side parameters."""
    setting = "SELECT set_config('synchronous_commit', 'off', true)"
    sql = sql.replace("WITH ", f"WITH soon AS MATERIALIZED ({setting}), ", 1)
    sql = sql.replace("FROM c WHERE", "FROM c, soon WHERE")
    return sql.replace("claim_id = %s", "claim_id = %s::uuid").replace(
        "worker_id = %s", "worker_id = %s::text"
    )


def _text(value: str | None) -> str:
    return "null" if value is None else json.dumps(value)


def _endings_json(endings: Iterable[Ending]) -> str:
    """Return endings as one JSON document: a single parameter, whatever their number."""
    return (
        "["
        + ",".join(
            f'{{"i":"{o.id}","c":"{o.claim_id}","s":"{o.status}",'
            f'"f":"{o.finished_at.isoformat()}","r":{o.return_value or "null"},'
            f'"e":{o.errors or "null"},"n":{o.failures},"l":{o.lost_count},'
            f'"b":{_text(o.began.isoformat() if o.began else None)},"x":{_text(o.reason)},'
            f'"o":{o.notes or "null"},"p":"{o.fingerprint}"}}'
            for o in endings
        )
        + "]"
    )


class PostgreSQLOperations(DatabaseOperations):
    NOW, GIVEN = "statement_timestamp()", "%s::timestamptz"
    INSERT_MANY = (
        f"INSERT INTO {LIVE} ({', '.join(DatabaseOperations.INSERT_COLUMNS)}) "
        "SELECT t.i, %s, %s, %s, %s, %s, %s, %s, %s, %s, t.o, t.a, t.k "
        "FROM json_to_recordset(%s::json) AS t(i uuid, o jsonb, a jsonb, k jsonb)"
    )

    def time_to_db(self, value: datetime | None) -> Any:
        return value

    def time_from_db(self, value: Any) -> datetime | None:
        return value

    def quoted(self, name: str) -> str:
        return name

    def insert(self, rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) == 1:
            super().insert(rows)
            return
        fixed = rows[0][1:10]
        typed = ("text", "text", "int", "int", "text", "text", *["timestamptz"] * 3)
        sql = self.INSERT_MANY
        for name in typed:
            sql = sql.replace("%s,", f"CAST(%% AS {name}),", 1)
        sql = sql.replace("CAST(%% AS", "CAST(%s AS")
        with self.connection.cursor() as cursor:
            for start in range(0, len(rows), INSERT_CHUNK):
                document = ",".join(
                    f'{{"i":"{row[0]}","o":{row[10] or "null"},"a":{row[11]},"k":{row[12]}}}'
                    for row in rows[start : start + INSERT_CHUNK]
                )
                cursor.execute(sql, [*fixed, f"[{document}]"])

    def _claim(self, request: ClaimRequest, status: str = "READY") -> Statement:
        now, at = self._now_sql(request.now)
        take = [request.claim_id, request.worker_id, *at, request.lease, *at, *at]
        queues, limit = list(request.queues), request.limit
        if request.candidates is not None:
            return _BY_IDS.format(now=now), [list(request.candidates), status, limit, *take]
        if len(queues) == 1:
            return _ONE_QUEUE.format(now=now), [queues[0], limit, *take]
        if request.by_priority:
            params = [queues, 3 * limit, 3 * limit, limit, *take]
            return _BY_PRIORITY.format(now=now), params
        return _IN_ORDER.format(now=now), [queues, limit, limit, *take]

    def exchange(self, endings: Sequence[Ending], request: ClaimRequest | None) -> Exchange:
        work: list[Statement] = []
        if endings:
            work.append((_FINISH, [_endings_json(endings)]))
        if request is not None and request.limit > 0 and request.queues:
            work.append(self._claim(request))
        else:
            request = None
        if not work:
            return Exchange()
        if request is not None and not endings and self._may_prepare(request):
            rows = self.retrying(lambda: self._claim_prepared(request))
            return Exchange(claimed=self._claimed(rows, request))
        settings = _PLANNER if endings else _PLANNER_AND_NO_WAIT
        results = self.retrying(lambda: self._run(work, settings))
        done = Exchange()
        if endings:
            done.ended = {row[0] for row in results[0]}
        if request is not None:
            done.claimed = self._claimed(results[-1], request)
        return done

    def _may_prepare(self, request: ClaimRequest) -> bool:
        return (
            request.own_session
            and request.candidates is None
            and request.now is None
            and self._takes_many
            and not self.connection.in_atomic_block
        )

    def _claim_prepared(self, request: ClaimRequest) -> list[Any]:
        """
        Claim by a statement that this connection has prepared: without the 0.5 ms in
        which the server parses and plans it, and without waiting for the disk.
        """
        import psycopg

        connection: Any = self.connection
        connection.ensure_connection()
        raw = connection.connection
        with connection.wrap_database_errors:
            if raw.prepare_threshold != _NEVER_BY_ITSELF:
                raw.execute(";".join(f"SET {name} = off" for name in _OFF))
                raw.prepare_threshold = _NEVER_BY_ITSELF
            sql, params = self._claim(request)
            with psycopg.Cursor(raw) as cursor:
                cursor.execute(_without_waiting(sql), params, prepare=True)
                return cursor.fetchall()

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        with transaction.atomic(using=self.alias), self.connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            before = cursor.fetchone()[0]
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, true)", [str(int(1000 * seconds))]
            )
            yield
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])

    def estimate(self, model: type[Model]) -> int:
        # What the table has grown by since the last ANALYZE is taken into account.
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT CASE WHEN reltuples < 0 THEN 0 WHEN relpages = 0 THEN reltuples "
                "ELSE reltuples / relpages * (pg_relation_size(oid) / "
                "current_setting('block_size')::int) END::bigint "
                "FROM pg_class WHERE oid = to_regclass(%s)",
                [self.connection.ops.quote_name(model._meta.db_table)],
            )
            row = cursor.fetchone()
        return int(row[0]) if row and row[0] else 0

    def tidy(self) -> None:
        # After 30,000 tasks a claim walked over so many dead entries of its index that it
        # took 14 times as long (4.2 and 0.3 ms); autovacuum comes once a minute at best.
        # Without waiting for anybody, and without the lock that giving pages back takes.
        with self.connection.cursor() as cursor:
            cursor.execute(f"VACUUM (SKIP_LOCKED, TRUNCATE FALSE) {LIVE}")

    @contextmanager
    def by_index(self) -> Iterator[None]:
        with transaction.atomic(using=self.alias):
            with self.connection.cursor() as cursor:
                cursor.execute(_PLANNER)
            yield

    def end(self, endings: Sequence[Ending]) -> set[str]:
        with self.connection.cursor() as cursor:
            cursor.execute(_FINISH, [_endings_json(endings)])
            return {row[0] for row in cursor.fetchall()}

    def claim_rows(self, request: ClaimRequest, *, status: str) -> list[ClaimedTask]:
        with self.connection.cursor() as cursor:
            cursor.execute(*self._claim(request, status))
            return self._claimed(cursor.fetchall(), request)

    def _run(self, work: Sequence[Statement], settings: str) -> list[list[Any]]:
        """Run statements in one transaction of READ COMMITTED; return the rows of each."""
        connection = self.connection
        connection.ensure_connection()
        if connection.in_atomic_block or not self._takes_many:
            # Within TestCase, or with a driver that takes one statement at a time.
            with transaction.atomic(using=self.alias), connection.cursor() as cursor:
                cursor.execute(settings)
                results = []
                for sql, params in work:
                    cursor.execute(sql, params)
                    results.append(cursor.fetchall())
            return results
        sql = ";".join(
            ["BEGIN ISOLATION LEVEL READ COMMITTED", settings, *(s for s, _ in work), "COMMIT"]
        )
        with connection.cursor() as cursor:
            try:
                cursor.execute(sql, [value for _, params in work for value in params])
            except BaseException:
                # BEGIN was sent and COMMIT was not reached.
                connection.close()
                raise
            results = []
            while True:
                if cursor.description is not None:
                    results.append(cursor.fetchall())
                if not cursor.nextset():
                    return results[1:]  # The first is that of the settings.

    @property
    def _takes_many(self) -> bool:
        """Whether the driver takes several statements at a time."""
        features: Any = self.connection.features
        return is_psycopg3 and not features.uses_server_side_binding

    def insert_and_notify(self, rows: Sequence[Sequence[Any]], queue: str) -> None:
        if len(rows) > 1 or not self._takes_many:
            super().insert_and_notify(rows, queue)
            return
        # One round trip and one commit, which the worker hears of at once.
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(f"{self.insert_one};{_NOTIFY}", [*rows[0], CHANNEL, queue])
        except OperationalError:
            # The server's queue of notifications may be full. A hint is never needed.
            if not self.connection.is_usable():
                raise
            self.insert(rows)

    def move_back(self, ids: Sequence[str], *, statuses: Sequence[str], reason: str) -> list[str]:
        kept = {
            "failures": "0",
            "lost_count": "0",
            "reason": "%s",
            "run_after": "NULL::timestamptz",
        }
        columns = ", ".join(kept.get(name, f"q.{name}") for name in MOVING)
        sql = f"""
            WITH q AS (
                DELETE FROM {DONE} WHERE id = ANY(%s::uuid[]) AND status = ANY(%s) RETURNING *)
            INSERT INTO {LIVE} ({", ".join(MOVING)}, status, rank)
            SELECT {columns}, 'READY', -q.priority FROM q RETURNING id::text"""
        return self._ids(sql, [list(ids), list(statuses), reason])

    def withdraw(self, ids: Sequence[str], *, reason: str) -> list[str]:
        columns = ", ".join("%s" if name == "reason" else f"q.{name}" for name in MOVING)
        now, at = self._now_sql(None)
        sql = f"""
            WITH q AS (
                DELETE FROM {LIVE} WHERE id = ANY(%s::uuid[])
                AND status IN ('SCHEDULED', 'WAITING', 'READY') RETURNING *)
            INSERT INTO {DONE} ({", ".join(MOVING)}, status, finished_at)
            SELECT {columns}, 'CANCELLED', {now} FROM q RETURNING id::text"""
        return self._ids(sql, [list(ids), reason, *at])

    def _ids(self, sql: str, params: Sequence[Any]) -> list[str]:
        with transaction.atomic(using=self.alias), self.connection.cursor() as cursor:
            cursor.execute(sql, params)
            return [row[0] for row in cursor.fetchall()]

    def notify(self, queues: Iterable[str]) -> None:
        with self.connection.cursor() as cursor:
            for queue in queues:
                cursor.execute(_NOTIFY, [CHANNEL, queue])

    def change_detector(
        self, queues: Callable[[], Sequence[str]], *, listen: bool
    ) -> ChangeDetector:
        return Listener(self) if listen and is_psycopg3 else ChangeDetector()


class Listener(ChangeDetector):
    """
    LISTEN on a connection of its own.

    A pooler in transaction mode swallows LISTEN without an error: a ping to
    oneself shows whether it works (after Oban's Sonar). It is sent by another
    connection: by this one it would come back with the answer, pooler or not.
    Until a ping came back, and after one that did not, the worker polls.
    """

    #: Seconds between pings, and for which one may be on its way.
    PING_INTERVAL = 30.0
    PING_TIMEOUT = 5.0

    def __init__(self, operations: PostgreSQLOperations) -> None:
        self._operations = operations
        self._connection = operations.connection.copy()
        self._name = uuid4().hex
        #: Whether the last ping came back in time.
        self.works = False
        self._unanswered_since: float | None = None
        self._pinged_at = 0.0
        self._pings = 0
        self._heard: list[Any] = []
        self._retry_at = 0.0

    @property
    def interval(self) -> float | None:  # type: ignore[override]
        return None if self.works else 0.25

    @property
    def keeps_session(self) -> bool:  # type: ignore[override]
        # What was sent to LISTEN came back, so it was heard by the same session.
        return self.works

    def fileno(self) -> int | None:
        raw = self._connection.connection
        return None if raw is None or raw.closed else raw.fileno()

    def changed(self) -> bool:
        now = time.monotonic()
        try:
            if self.fileno() is None:
                if now < self._retry_at:
                    return False
                self._retry_at = now + 5.0
                self._connect(now)
                return True  # What came meanwhile was not heard.
            woken = False
            for payload in self._payloads():
                if not payload.startswith("\x01"):
                    woken = True
                elif payload == self._ping_text():
                    self.works, self._unanswered_since = True, None
            waiting = self._unanswered_since
            if waiting is not None and now - waiting > self.PING_TIMEOUT:
                self.works = False
                self._ping(now)
            elif waiting is None and now - self._pinged_at > self.PING_INTERVAL:
                self._ping(now)
            return woken
        except Exception:  # Whatever it was: connect again later, and poll meanwhile.
            self.close()
            return False

    def _payloads(self) -> list[str]:
        """Return what has been heard, past psycopg's generator, which takes longer to ask."""
        raw = self._connection.connection.pgconn
        raw.consume_input()
        while (notice := raw.notifies()) is not None:
            self._heard.append(notice.extra.decode())
        heard, self._heard = self._heard, []
        return heard

    def _connect(self, now: float) -> None:
        self._connection.connect()
        # What arrives with the answer to a ping, or to LISTEN itself.
        self._connection.connection.add_notify_handler(
            lambda notice: self._heard.append(notice.payload)
        )
        with self._connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        self._ping(now)

    def _ping_text(self) -> str:
        return f"\x01{self._name}{self._pings}"

    def _ping(self, now: float) -> None:
        self._pings += 1
        self._pinged_at = self._unanswered_since = now
        self._operations.notify([self._ping_text()])

    def close(self) -> None:
        self.works, self._unanswered_since = False, None
        try:
            self._connection.close()
        except Exception:  # The server is gone; there is nothing left to close.
            self._connection.connection = None
