"""What one worker has counted, written as it grows: its own rows, so nobody waits."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.models import F
from django.utils import timezone

from ..db import operations_for
from ..fingerprints import normalised
from ..models.bucket import RUN_BINS, WAIT_BINS, Bucket
from ..models.failure import FailureCount, FailureGroup
from ..models.finished import FinishedTask
from .tally import Failures, Key, Tally, added, minute_of

#: Columns of Bucket in the order of a tally's figures.
COLUMNS = (
    "successful",
    "failed",
    "cancelled",
    "retried",
    "run_seconds",
    "run_longest",
    *WAIT_BINS,
    *RUN_BINS,
)
#: A worker writes no row of a minute that is older, since it may have been merged with
#: others' by then (merging.py): what comes so late counts for the present minute.
WRITABLE = 10


class Ledger:
    """
    Figures of a worker: pending until they are written.

    Written are sums since the worker's start of the minute, and not what came
    since the last time: a write that arrived without anybody knowing does no
    harm when it is repeated. Counts of failures are added to, and are not so
    safe: they may be a little too high after an outage.
    """

    def __init__(self, alias: str, worker: str) -> None:
        self.alias = alias
        self.worker = worker
        self.pending = Tally()
        #: Ids of tasks that failed because their process died: no child could count them.
        self.lost: list[str] = []
        self._written: dict[Key, list[Any]] = {}

    def write(self, *, now: float | None = None) -> None:
        """Write what is pending: one statement for the figures, two for each cause of failures."""
        if self.lost:
            self._count_lost(self.lost)
            self.lost = []
        if not self.pending:
            return
        minute = minute_of(time.time() if now is None else now)
        sums = self._sums(minute)
        operations = operations_for(self.alias)

        def unit() -> None:
            with operations.step():
                write_buckets(self.alias, self._rows(sums))
                for fingerprint in sorted(self.pending.failures):
                    write_failures(self.alias, fingerprint, self.pending.failures[fingerprint])

        operations.retrying(unit)
        self._written.update(sums)
        self._written = {k: v for k, v in self._written.items() if k[0] >= minute - WRITABLE}
        self.pending = Tally()

    def _sums(self, minute: int) -> dict[Key, list[Any]]:
        sums: dict[Key, list[Any]] = {}
        for (at, queue, task), figures in self.pending.figures.items():
            key = (at if at >= minute - WRITABLE else minute, queue, task)
            before = sums.get(key) or self._written.get(key)
            sums[key] = list(figures) if before is None else added(before, figures)
        return sums

    def _rows(self, sums: Mapping[Key, list[Any]]) -> list[Bucket]:
        return [
            bucket(datetime.fromtimestamp(60 * minute, UTC), 60, queue, task, self.worker, figures)
            for (minute, queue, task), figures in sums.items()
        ]

    def _count_lost(self, ids: Iterable[str]) -> None:
        rows = FinishedTask.objects.using(self.alias).filter(pk__in=list(ids))
        for row in rows.defer("args", "kwargs", "return_value", "notes"):
            error = (row.errors or [{}])[-1]
            key = (minute_of(row.finished_at.timestamp()), row.queue_name, row.task_path)
            self.pending.add(key, row.status.lower())
            if row.fingerprint:
                self.pending.add_failure(
                    row.fingerprint,
                    row.task_path,
                    str(row.pk),
                    exception_class=error.get("exception_class_path", ""),
                    message=row.reason.partition(": ")[2],
                    traceback=error.get("traceback", ""),
                )


def bucket(
    start: datetime, width: int, queue: str, task: str, worker: str, figures: Iterable[Any]
) -> Bucket:
    """Return a Bucket, not saved, with a tally's figures."""
    text = "\0".join((start.isoformat(), str(width), queue, task, worker))
    return Bucket(
        id=hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest(),
        start=start,
        width=width,
        queue_name=queue,
        task_path=task,
        worker=worker,
        **dict(zip(COLUMNS, figures, strict=True)),
    )


def write_buckets(alias: str, rows: list[Bucket]) -> None:
    """Write rows in place of those with the same ids, in the caller's transaction."""
    if not rows:
        return
    target: dict[str, Any] = {}
    if connections[alias].features.supports_update_conflicts_with_target:
        target["unique_fields"] = ["id"]
    Bucket.objects.using(alias).bulk_create(
        sorted(rows, key=lambda row: row.id),
        update_conflicts=True,
        update_fields=list(COLUMNS),
        **target,
    )


def write_failures(alias: str, fingerprint: str, failures: Failures) -> None:
    """Add failures of one cause, in the caller's transaction."""
    last = datetime.fromtimestamp(failures.last, UTC)
    message = normalised(failures.message)
    changes: dict[str, Any] = {
        "total": F("total") + failures.count,
        "last_seen": last,
        "latest_task": failures.task_id,
        "message": message,
    }
    if failures.traceback:
        changes["traceback"] = failures.traceback
    groups = FailureGroup.objects.using(alias).filter(pk=fingerprint)
    if not groups.update(**changes):
        with transaction.atomic(using=alias):
            _, is_new = groups.get_or_create(
                pk=fingerprint,
                defaults={
                    "task_path": failures.task_path,
                    "exception_class": failures.exception_class[:255],
                    "message": message,
                    "traceback": failures.traceback,
                    "latest_task": failures.task_id,
                    "first_seen": last,
                    "last_seen": last,
                    "total": failures.count,
                },
            )
        if not is_new:
            groups.update(**changes)
    hour = last.replace(minute=0, second=0, microsecond=0)
    counts = FailureCount.objects.using(alias).filter(fingerprint=fingerprint, hour=hour)
    if not counts.update(count=F("count") + failures.count):
        with transaction.atomic(using=alias):
            _, is_new = counts.get_or_create(
                fingerprint=fingerprint, hour=hour, defaults={"count": failures.count}
            )
        if not is_new:
            counts.update(count=F("count") + failures.count)


def forget_failures(alias: str, *, counts: float, groups: float) -> None:
    """Delete counts, and causes that did not occur again, older than these seconds."""
    now = timezone.now()
    FailureCount.objects.using(alias).filter(hour__lt=now - timedelta(seconds=counts)).delete()
    old = now - timedelta(seconds=groups)
    FailureGroup.objects.using(alias).filter(last_seen__lt=old).delete()
