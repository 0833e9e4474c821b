"""What any worker does for all: due tasks, lapsed leases, old results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import DatabaseError
from django.db.models import F
from django.utils import timezone

from .. import limits, registry, transitions, uniqueness
from ..db import operations_for
from ..exceptions import TaskTimeout
from ..models import Cancellation, Duty, ScheduleRun, Worker
from ..models.schedule import RunStatus
from ..states import FinalStatus
from ..statistics.ledger import forget_failures
from ..statistics.merging import merge
from ..workflows import pruning as workflows

logger = logging.getLogger("django_bgtasks.worker")

#: Rows that one statement moves.
BATCH = 500
#: Seconds between two prunings, by whichever worker.
PRUNE_INTERVAL = 60.0
#: Seconds between two tidyings, and finished tasks of one worker from which on it is worth it.
TIDY_INTERVAL = 2.0
TIDY_TASKS = 2_000
#: Rows that one round of pruning deletes at most, lest it keep others from the database.
PRUNE_ROUND = 20_000
#: Seconds for which a key of a limit, or a unique one, is kept after its last use.
KEY_RETENTION = 3600.0
#: Seconds for which the runs of schedules are kept.
RUN_RETENTION = 30 * 86_400.0
#: Seconds for which the hourly counts of failures are kept, and causes that did not occur again.
COUNT_RETENTION = 30 * 86_400.0
CAUSE_RETENTION = 90 * 86_400.0
#: Seconds for which a worker that ended is still shown.
WORKER_RETENTION = 3600.0


def take_duty(alias: str, name: str, interval: float) -> bool:
    """
    Say whether the caller is the one that does a piece of maintenance now.

    One guarded UPDATE: whoever changes the row does the work.
    """
    operations = operations_for(alias)
    now = operations.now()
    duties = Duty.objects.using(alias)
    taken = duties.filter(name=name, last_run_at__lt=now - timedelta(seconds=interval)).update(
        last_run_at=now
    )
    if taken:
        return True
    if duties.filter(name=name).exists():
        return False
    duties.bulk_create([Duty(name=name, last_run_at=now)], ignore_conflicts=True)
    return False


def promote_due(alias: str) -> tuple[set[str], float | None]:
    """
    Make due tasks READY.

    Return the queues concerned, and the seconds until the next task is due.
    """
    queues: set[str] = set()
    # Look without a lock first: mostly nothing is due.
    next_due = operations_for(alias).next_due()
    if next_due is None or next_due > 0:
        return queues, next_due
    while batch := transitions.promote(alias, BATCH):
        queues.update(batch)
        if len(batch) < BATCH:
            break
    return queues, operations_for(alias).next_due()


def reap(alias: str, *, lease: float, max_lost: int) -> tuple[int, transitions.Rescue]:
    """Rescue the tasks of workers that nothing was heard of for a whole lease."""
    held = transitions.take_over(alias, lease=lease, limit=BATCH)
    if not held:
        return 0, transitions.Rescue()
    rescue = transitions.rescue(
        alias,
        held,
        why="nothing was heard of its worker for a whole lease.",
        max_lost=max_lost,
        fails_when_lost=fails_when_lost,
        begun=False,
    )
    return len(held), rescue


def fails_when_lost(row: Any) -> bool:
    """Say whether the task of a row is not to be run again after its process died."""
    task = registry.restore(row.task_path, row.options, backend=row.backend)
    return getattr(task, "on_lost", "retry") == "fail"


def pause_after_timeout(row: Any, failures: int) -> float | None:
    """
    Return the seconds until the next attempt of a task that was killed, None if there is none.

    A function as backoff isn't asked: it is the user's code, which the
    supervisor doesn't run. The pause is exponential then.
    """
    policy = getattr(
        registry.restore(row.task_path, row.options, backend=row.backend), "policy", None
    )
    if policy is None:
        return None
    if callable(policy.backoff):
        policy = replace(policy, backoff="exponential")
    return policy.delay(failures, TaskTimeout())


def prune(
    alias: str,
    *,
    successful: float | None,
    failed: float | None,
    limit: int = PRUNE_ROUND,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """
    Delete results that are older than their retention in seconds, None keeping all.

    In batches of BATCH, each a transaction of its own; workflows as a whole.
    Return how many.
    """
    operations = operations_for(alias)
    now = operations.now()
    total = workflows.prune(alias, successful=successful, failed=failed, limit=limit)
    if total:
        progress(total)
    for seconds, statuses in (
        (successful, [FinalStatus.SUCCESSFUL]),
        (failed, [FinalStatus.FAILED, FinalStatus.CANCELLED]),
    ):
        if seconds is None:
            continue
        before = now - timedelta(seconds=seconds)
        while total < limit:
            count = operations.prune([str(s) for s in statuses], before, min(BATCH, limit - total))
            total += count
            progress(count)
            operations.pause()
            if not count:
                break
    return total


def forget_keys(alias: str) -> None:
    """Delete what is kept of limits and unique keys that nobody has used for long."""
    before = operations_for(alias).now() - timedelta(seconds=KEY_RETENTION)
    limits.forget(alias, before, BATCH)
    uniqueness.forget(alias, before, BATCH)
    Cancellation.objects.using(alias).filter(asked_at__lt=before).delete()


def tidy(alias: str) -> None:
    """Have the database clear up behind a burst; what it refuses to the worker is left to it."""
    if not take_duty(alias, "tidy", TIDY_INTERVAL):
        return
    try:
        operations_for(alias).tidy()
    except DatabaseError as error:
        logger.debug("The live table could not be tidied: %s", error)


def merge_statistics(alias: str) -> None:
    """Merge fine figures into coarse ones, and forget what is old of both."""
    merge(alias)
    forget_failures(alias, counts=COUNT_RETENTION, groups=CAUSE_RETENTION)


def forget_workers(alias: str) -> None:
    """Delete the rows of workers that ended, or fell silent, long ago."""
    before = timezone.now() - timedelta(seconds=WORKER_RETENTION)
    Worker.objects.using(alias).filter(heartbeat_at__lt=before).delete()


def forget_runs(alias: str) -> None:
    """Delete old runs of schedules, a batch at a time, but the latest of each."""
    runs = ScheduleRun.objects.using(alias)
    before = timezone.now() - timedelta(seconds=RUN_RETENTION)
    # By when it was fired, too: a backfill of last year is not old.
    old = runs.filter(due_at__lt=before, fired_at__lt=before, schedule__last_due_at__gt=F("due_at"))
    old = old.exclude(status=RunStatus.HELD)
    ids = list(old.order_by("due_at").values_list("pk", flat=True)[:PRUNE_ROUND])
    for start in range(0, len(ids), BATCH):
        runs.filter(pk__in=ids[start : start + BATCH]).delete()
