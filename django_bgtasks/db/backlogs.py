"""How much waits and runs in queues, read in one statement for many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..models import QueuedTask
from ..states import LiveStatus
from .base import DatabaseOperations

#: Queues that one statement asks about.
QUEUES = 100
#: Ready tasks that are asked for their age: these that are next, and these of the last priority.
NEXT, LAST = 1_000, 100
#: What is counted.
COUNTED = (LiveStatus.READY, LiveStatus.SCHEDULED, LiveStatus.WAITING, LiveStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Backlog:
    """
    The tasks of a queue by status, counted up to a limit, and one more if there are more.

    oldest_at is since when the oldest READY task might have started. Those that
    were tried before are left out: nothing says since when they are ready again.
    """

    counts: dict[str, int]
    oldest_at: datetime | None


def backlogs(
    operations: DatabaseOperations, names: Sequence[str], most: int
) -> tuple[datetime, dict[str, Backlog]]:
    """Return the database's time, and the Backlog of each queue, counted up to most."""
    sql = _Statements(operations, most)
    now_sql, now_parameters = operations._now_sql(None)
    now = None
    found: dict[str, Backlog] = {}
    for start in range(0, max(1, len(names)), QUEUES):
        chunk = names[start : start + QUEUES]
        columns: list[str] = [now_sql]
        parameters: list[Any] = [*now_parameters]
        for name in chunk:
            for status in COUNTED:
                columns.append(sql.count)
                parameters += [status.value, name]
            columns += [sql.oldest_next, sql.oldest_last]
            parameters += [LiveStatus.READY.value, name] * 3
        with operations.connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(columns)}", parameters)
            row = cursor.fetchone()
        now = now or operations.time_from_db(row[0])
        width = len(COUNTED) + 2
        for place, name in enumerate(chunk):
            *counts, early, late = row[1 + place * width : 1 + (place + 1) * width]
            times = [operations.time_from_db(value) for value in (early, late) if value is not None]
            found[name] = Backlog(
                {status.value: count for status, count in zip(COUNTED, counts, strict=True)},
                min((time for time in times if time is not None), default=None),
            )
    assert now is not None
    return now, found


class _Statements:
    """Scalar subqueries about one queue. Each reads a bounded part of the claim's index."""

    def __init__(self, operations: DatabaseOperations, most: int) -> None:
        q = operations.quoted
        table = q(QueuedTask._meta.db_table)
        where = f"{q('status')} = %s AND {q('queue_name')} = %s"
        run_after, enqueued_at = q("run_after"), q("enqueued_at")
        since = (
            f"SELECT {q('attempt')} AS attempt, CASE WHEN {run_after} > {enqueued_at} "
            f"THEN {run_after} ELSE {enqueued_at} END AS since FROM {table} WHERE {where}"
        )
        oldest = "SELECT MIN(CASE WHEN attempt = 0 THEN since END) FROM"
        rank, order = q("rank"), f"{q('fair_key')}, {q('id')}"
        self.count = (
            f"(SELECT COUNT(*) FROM (SELECT 1 AS one FROM {table} WHERE {where} "
            f"LIMIT {most + 1}) AS counted)"
        )
        self.oldest_next = (
            f"({oldest} ({since} ORDER BY {rank}, {order} LIMIT {NEXT}) AS next_ones)"
        )
        # The priority that comes last starves first.
        last = f"SELECT MAX({rank}) FROM {table} WHERE {where}"
        self.oldest_last = (
            f"({oldest} ({since} AND {rank} = ({last}) ORDER BY {order} LIMIT {LAST}) AS last_ones)"
        )
