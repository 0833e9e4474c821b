"""Fine buckets become wider ones as they age, so that the table stays small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Max, Min, Sum
from django.db.models.functions import Coalesce

from ..db import operations_for
from ..models.bucket import Bucket
from .ledger import COLUMNS, WRITABLE, bucket, write_buckets


@dataclass(frozen=True, slots=True)
class Level:
    """
    Buckets of a width in seconds, which become buckets of another one.

    after is their age in seconds, from their end. Until then no worker may
    write them any more (ledger.WRITABLE).
    """

    width: int
    into: int
    after: int
    of_workers: bool = False


#: Minutes of each worker, minutes of all, 5 minutes, quarters of an hour, hours.
LEVELS = (
    Level(60, 60, 60 * (WRITABLE + 2), of_workers=True),
    Level(60, 300, 7_200),
    Level(300, 900, 28_800),
    Level(900, 3_600, 172_800),
)
#: Seconds for which hours are kept.
RETENTION = 90 * 86_400
#: Buckets that one round makes of each level at most.
ROUND = 120


class _ChangedMeanwhileError(Exception):
    """Somebody else merges, too."""


def merge(alias: str, *, now: datetime | None = None) -> int:
    """Merge what has come of age, one wider bucket's span a transaction; return how many spans."""
    moment = now or operations_for(alias).now()
    spans = 0
    for level in LEVELS:
        for _ in range(ROUND):
            if not _merge_oldest(alias, level, moment):
                break
            spans += 1
    Bucket.objects.using(alias).filter(start__lt=moment - timedelta(seconds=RETENTION)).delete()
    return spans


def _merge_oldest(alias: str, level: Level, now: datetime) -> bool:
    """Merge the oldest span of a level that has come of age; say whether there was one."""
    operations = operations_for(alias)
    rows = Bucket.objects.using(alias).filter(width=level.width)
    rows = rows.exclude(worker="") if level.of_workers else rows.filter(worker="")
    oldest = rows.aggregate(start=Min("start"))["start"]
    if oldest is None:
        return False
    start = datetime.fromtimestamp(oldest.timestamp() // level.into * level.into, UTC)
    end = start + timedelta(seconds=level.into)
    if end > now - timedelta(seconds=level.after):
        return False
    span = rows.filter(start__gte=start, start__lt=end)

    def unit() -> None:
        with operations.step():
            ids = list(span.select_for_update().values_list("pk", flat=True))
            sums = span.filter(pk__in=ids).values("queue_name", "task_path").order_by()
            merged = [
                bucket(start, level.into, row["queue_name"], row["task_path"], "", _figures(row))
                for row in sums.annotate(**_SUMS)
            ]
            # A late row of another worker may have been merged before.
            known = Bucket.objects.using(alias).in_bulk([row.pk for row in merged])
            for row in merged:
                if (before := known.get(row.pk)) is not None:
                    _add(row, before)
            if span.filter(pk__in=ids).delete()[0] != len(ids):
                raise _ChangedMeanwhileError
            write_buckets(alias, merged)

    try:
        operations.retrying(unit)
    except _ChangedMeanwhileError:
        return False
    operations.pause()
    return True


_SUMS: dict[str, Any] = {
    f"sum_{name}": Max(name) if name == "run_longest" else Coalesce(Sum(name), 0)
    for name in COLUMNS
    if name != "run_seconds"
} | {"sum_run_seconds": Sum("run_seconds")}


def _figures(row: Mapping[str, Any]) -> list[Any]:
    return [row[f"sum_{name}"] for name in COLUMNS]


def _add(row: Bucket, before: Bucket) -> None:
    for name in COLUMNS:
        one, other = getattr(row, name), getattr(before, name)
        setattr(row, name, max(one, other) if name == "run_longest" else one + other)
