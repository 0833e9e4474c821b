"""
SQLite: one writer at a time, so every write transaction begins IMMEDIATE.

Differs from the others in that a transaction that has read can't wait for the
write lock, in that the lock is not fair, and in PRAGMA data_version, which
tells within microseconds whether another connection has written.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import Model

from .base import DONE, LIVE, DatabaseOperations
from .exchanges import MOVING, ChangeDetector, ClaimedTask, ClaimRequest, Ending, Exchange

_MOVED = {
    "started_at": "CASE WHEN attempt <= 1 THEN COALESCE(?, started_at) ELSE started_at END",
    "last_attempted_at": "COALESCE(?, last_attempted_at)",
    "failures": "?",
    "lost_count": "?",
    "errors": "?",
    "notes": "COALESCE(?, notes)",
    "reason": "?",
}
_END = (
    f"INSERT INTO {DONE} ({', '.join(MOVING)}, status, finished_at, return_value, fingerprint, "
    f"claim_id) SELECT {', '.join(_MOVED.get(name, name) for name in MOVING)}, "
    "?, ?, ?, ?, claim_id "
    f"FROM {LIVE} WHERE id = ? AND claim_id = ? AND status = 'RUNNING'"
).replace("?", "%s")
_GONE = f"DELETE FROM {LIVE} WHERE id = %s AND claim_id = %s AND status = 'RUNNING'"
_ONE_QUEUE = (
    f"SELECT id, rank, %s AS place FROM {LIVE} WHERE status = 'READY' AND queue_name = %s "
    "ORDER BY rank, fair_key, id LIMIT %s"
)


class SQLiteOperations(DatabaseOperations):
    default_lease = 60.0
    write_pause = (0.001, 0.004)
    # Doubled: parameters are filled in by %.
    NOW = "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')"

    def time_to_db(self, value: datetime | None) -> Any:
        return None if value is None else str(value.astimezone(UTC).replace(tzinfo=None))

    def time_from_db(self, value: Any) -> datetime | None:
        if value is None or isinstance(value, datetime):
            return value and value.replace(tzinfo=UTC)
        return datetime.fromisoformat(value).replace(tzinfo=UTC)

    @contextmanager
    def write(self) -> Iterator[None]:
        connection: Any = self.connection
        # Before it is connected, a connection has no mode.
        connection.ensure_connection()
        mode = connection.transaction_mode
        connection.transaction_mode = "IMMEDIATE"
        try:
            with super().write():
                yield
        finally:
            connection.transaction_mode = mode

    def exchange(self, endings: Sequence[Ending], request: ClaimRequest | None) -> Exchange:
        if request is not None and (request.limit <= 0 or not request.queues):
            request = None
        # Look before asking for the write lock: an idle worker must not hold up the site.
        if not endings and (request is None or not self._candidates(request)):
            return Exchange()

        def unit() -> Exchange:
            done = Exchange()
            with self.write():
                if endings:
                    done.ended = self._end(endings)
                if request is not None:
                    done.claimed = self._claim(request)
            return done

        done = self.retrying(unit)
        self.pause()
        return done

    def end(self, endings: Sequence[Ending]) -> set[str]:
        return self._end(endings)

    def claim_rows(self, request: ClaimRequest, *, status: str) -> list[ClaimedTask]:
        return self._claim(request, status)

    def _end(self, endings: Sequence[Ending]) -> set[str]:
        ended = set()
        with self.connection.cursor() as cursor:
            for o in endings:
                key = (self.id_to_db(o.id), self.id_to_db(o.claim_id))
                began = self.time_to_db(o.began)
                cursor.execute(
                    _END,
                    (
                        began,
                        began,
                        o.failures,
                        o.lost_count,
                        o.errors,
                        o.notes,
                        o.reason,
                        o.status,
                        self.time_to_db(o.finished_at),
                        o.return_value,
                        o.fingerprint,
                        *key,
                    ),
                )
                if cursor.rowcount:
                    ended.add(o.id)
                    cursor.execute(_GONE, key)
        return ended

    def _candidates(self, request: ClaimRequest) -> list[str]:
        if request.candidates is not None:
            return [self.id_to_db(pk) for pk in request.candidates]
        found = []
        with self.connection.cursor() as cursor:
            for place, name in enumerate(request.queues):
                cursor.execute(_ONE_QUEUE, (place, name, request.limit))
                found += cursor.fetchall()
                if len(found) >= request.limit and not request.by_priority:
                    break
        if request.by_priority:
            found.sort(key=lambda row: (row[1], row[0]))
        return [row[0] for row in found[: request.limit]]

    def _claim(self, request: ClaimRequest, status: str = "READY") -> list[ClaimedTask]:
        # +status keeps SQLite from the index on status, where only the primary key will do.
        ids = self._candidates(request)
        if not ids:
            return []
        now, at = self._now_sql(request.now)
        if not at:
            until = f"STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', '+{request.lease:.3f} seconds')"
            lease: list[Any] = []
        else:
            until = "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', %s, %s)"
            lease = [*at, f"+{request.lease:.3f} seconds"]
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {LIVE} SET status = 'RUNNING', claim_id = %s, worker_id = %s, "
                f"attempt = attempt + 1, lease_until = {until}, "
                f"started_at = COALESCE(started_at, {now}), last_attempted_at = {now}, "
                f"reason = '' WHERE id IN ({', '.join(['%s'] * len(ids))}) AND +status = %s "
                f"RETURNING {', '.join(MOVING)}",
                [
                    self.id_to_db(request.claim_id),
                    request.worker_id,
                    *lease,
                    *at,
                    *at,
                    *ids,
                    status,
                ],
            )
            # All of them: a cursor that is not read to its end keeps the write lock.
            rows = cursor.fetchall()
        return self._claimed((self._as_claimed(row) for row in rows), request)

    def _as_claimed(self, row: Sequence[Any]) -> list[Any]:
        values = dict(zip(MOVING, row, strict=True))
        values["id"] = self.id_from_db(values["id"])
        for name in ("enqueued_at", "run_after", "started_at", "last_attempted_at"):
            values[name] = self.time_from_db(values[name])
        return list(values.values())

    def move_back(self, ids: Sequence[str], *, statuses: Sequence[str], reason: str) -> list[str]:
        kept = {"failures": "0", "lost_count": "0", "reason": "%s", "run_after": "NULL"}
        columns = ", ".join(kept.get(name, name) for name in MOVING)
        return self._move(
            ids,
            source=DONE,
            statuses=statuses,
            insert=f"INSERT INTO {LIVE} ({', '.join(MOVING)}, status, rank) "
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
        moved = []
        where = f"WHERE id = %s AND status IN ({', '.join(['%s'] * len(statuses))})"

        def unit() -> None:
            with self.connection.cursor() as cursor:
                for pk in ids:
                    key = (self.id_to_db(pk), *statuses)
                    cursor.execute(f"{insert} {where}", (*values, *key))
                    if cursor.rowcount:
                        cursor.execute(f"DELETE FROM {source} {where}", key)
                        moved.append(self.id_from_db(pk))

        if self.connection.in_atomic_block:
            with transaction.atomic(using=self.alias):
                unit()
        else:
            with self.write():
                unit()
        return moved

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        connection: Any = self.connection
        connection.ensure_connection()
        raw, until = connection.connection, time.monotonic() + seconds
        # Asked every 10,000 instructions, which take some tens of microseconds.
        raw.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            yield
        finally:
            raw.set_progress_handler(None, 0)

    def estimate(self, model: type[Model]) -> int:
        # Rows are added at one end and pruned at the other; what was deleted in between
        # counts as if it were there.
        table = self.connection.ops.quote_name(model._meta.db_table)
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT (SELECT MAX(rowid) FROM {table}) - (SELECT MIN(rowid) FROM {table}) + 1"
            )
            return cursor.fetchone()[0] or 0

    def change_detector(
        self, queues: Callable[[], Sequence[str]], *, listen: bool
    ) -> ChangeDetector:
        return DataVersion(self)


class DataVersion(ChangeDetector):
    """
    Compares PRAGMA data_version, which another connection's commit changes.

    Past Django's cursor, whose bookkeeping costs several times the PRAGMA. On
    Linux the kernel tells when the write-ahead log was written to; a timer of
    7 ms, as elsewhere, took 2.7% of a virtual machine's core for nothing.
    """

    TICK = 0.007
    #: With the kernel's help: the safety net, and the pause after a write, whose
    #: commit may become visible a moment later.
    QUIET_TICK = 0.5
    AFTER_WRITE = (0.001, 0.004)

    def __init__(self, operations: SQLiteOperations) -> None:
        self._operations = operations
        self._connection: Any = None
        self._raw: Any = None
        self._version = 0
        self._watch: FileWatch | None = None
        self._again: list[float] = []

    @property
    def interval(self) -> float | None:  # type: ignore[override]
        if self._watch is None:
            return self.TICK
        return self._again[0] if self._again else self.QUIET_TICK

    def fileno(self) -> int | None:
        return None if self._watch is None else self._watch.fd

    def changed(self) -> bool:
        if self._watch is not None:
            if self._watch.written():
                self._again = list(self.AFTER_WRITE)
            elif self._again:
                self._again.pop(0)
        if self._connection is None:
            self._connection = self._operations.connection
        raw = self._connection.connection
        if raw is None:
            self._connection.ensure_connection()
            raw = self._connection.connection
        version = raw.execute("PRAGMA data_version").fetchone()[0]
        if raw is not self._raw:
            self.close()
            raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            self._watch = FileWatch.of(f"{self._connection.settings_dict['NAME']}-wal")
        elif version == self._version:
            return False
        self._raw, self._version = raw, version
        return True

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class FileWatch:
    """inotify(7) on one file, through the C library: Python's own has no such call."""

    _MODIFY = 0x2

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def of(cls, path: str) -> FileWatch | None:
        """Return a watch of a file that exists, None where that isn't possible."""
        if sys.platform != "linux":
            return None
        try:
            libc = ctypes.CDLL(None)
            fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if fd < 0:
                return None
            if libc.inotify_add_watch(fd, os.fsencode(path), cls._MODIFY) < 0:
                os.close(fd)
                return None
        except (OSError, AttributeError):
            return None
        return cls(fd)

    def written(self) -> bool:
        """Say whether the file was written to since the last call."""
        try:
            return bool(os.read(self.fd, 65_536))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
