"""Tasks whose process died, or had to be killed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from .. import fingerprints
from ..db import Ending, operations_for
from ..ids import new_id
from ..models.cancellation import Cancellation
from ..models.queued import QueuedTask
from ..states import FinalStatus, LiveStatus
from .by_hand import requests_are_done
from .ending import exchange, is_member
from .held import Held, held_rows, release, retry_later

WORKER_LOST = "django_bgtasks.exceptions.WorkerLost"
TASK_TIMEOUT = "django_bgtasks.exceptions.TaskTimeout"

#: Seconds after which, at most, a task that was lost twice runs again.
LOST_PAUSE = 5.0


#: What a row says while a task that was lost before runs alone in its process.
RUNS_ALONE = "Runs alone, after its process died."


def begin_alone(alias: str, held: Held) -> int:
    """
    RUNNING stays RUNNING: note that a suspect begins now.

    So that a second loss is counted only against a task that was really
    running, and not against one that waited in a worker that died.
    """
    return operations_for(alias).retrying(
        lambda: held_rows(alias, [held]).update(reason=RUNS_ALONE)
    )


@dataclass(slots=True)
class Rescue:
    """What rescue() did: ids that run again, ids that have failed."""

    again: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def rescue(
    alias: str,
    held: Sequence[Held],
    *,
    why: str,
    max_lost: int,
    fails_when_lost: Callable[[QueuedTask], bool] = lambda row: False,
    begun: bool = True,
    now: datetime | None = None,
) -> Rescue:
    """
    RUNNING -> READY with lost_count + 1 for tasks whose process died, from the
    second time on -> SCHEDULED for some seconds; -> FAILED when that is the
    max_lost-th time or fails_when_lost says so.

    Without begun nobody knows which of the tasks ran. All are counted a first
    time; from then on only those that begin_alone() has marked.
    """
    done = Rescue()
    operations = operations_for(alias)
    endings = []
    for row in held_rows(alias, held):
        claim = str(row.claim_id)
        if not begun and row.lost_count and row.reason != RUNS_ALONE:
            release(alias, [(str(row.pk), claim)], reason=f"Worker lost: {why}")
            continue
        lost = row.lost_count + 1
        ended = now or timezone.now()
        errors = [*(row.errors or ()), lost_error(row, why, ended)]
        if lost >= max_lost or fails_when_lost(row):
            verdict = (
                f"Its process died {lost} times."
                if lost > 1
                else "It isn't run again after a loss."
            )
            endings.append(
                Ending(
                    id=str(row.pk),
                    claim_id=claim,
                    status=FinalStatus.FAILED.value,
                    finished_at=ended,
                    errors=json.dumps(errors),
                    failures=row.failures,
                    lost_count=lost,
                    reason=f"Worker lost: {why} {verdict}"[:255],
                    fingerprint=fingerprints.of_words(row.task_path, WORKER_LOST),
                    is_member=is_member(row.options),
                )
            )
            continue

        again: dict[str, Any] = {"status": LiveStatus.READY}
        if lost > 1:
            # What keeps killing processes shall not do so all the time.
            pause = timedelta(seconds=random.uniform(0.5, LOST_PAUSE))
            again = {
                "status": LiveStatus.SCHEDULED,
                "due_at": operations.now_expression(now) + pause,
            }

        def unit(
            row: QueuedTask = row, claim: str = claim, errors: Any = errors, again: Any = again
        ) -> int:
            return held_rows(alias, [(str(row.pk), claim)]).update(
                **again,
                claim_id=None,
                lease_until=None,
                lost_count=F("lost_count") + 1,
                errors=errors,
                reason=f"Worker lost: {why}"[:255],
            )

        if operations.retrying(unit):
            done.again.append(str(row.pk))
    if endings:
        done.failed = sorted(exchange(alias, endings, None).ended)
    return done


def end_overdue(
    alias: str,
    held: Sequence[Held],
    *,
    why: str,
    pause: Callable[[QueuedTask, int], float | None],
) -> Rescue:
    """
    RUNNING -> SCHEDULED, FAILED, or CANCELLED for tasks whose process was killed
    because they did not end in time, or when they were told to.

    That is a failure and no loss. pause returns the seconds until another
    attempt by the row and its failures, None if there is none.
    """
    done = Rescue()
    asked = dict(
        Cancellation.objects.using(alias)
        .filter(task_id__in=[pk for pk, _ in held])
        .values_list("task_id", "reason")
    )
    for row in held_rows(alias, held):
        ended = timezone.now()
        claim, failures = str(row.claim_id), row.failures + 1
        error = lost_error(row, why, ended, TASK_TIMEOUT)
        errors = json.dumps([*(row.errors or ()), error])
        reason = f"TaskTimeout: {why}"
        cancelled = asked.get(row.pk)
        delay = None if cancelled else pause(row, failures)
        if delay is not None:
            if retry_later(
                alias, (str(row.pk), claim), delay=delay, failures=failures, errors=errors,
                reason=reason,
            ):  # fmt: skip
                done.again.append(str(row.pk))
            continue
        ending = Ending(
            id=str(row.pk),
            claim_id=claim,
            status=(FinalStatus.CANCELLED if cancelled else FinalStatus.FAILED).value,
            finished_at=ended,
            errors=errors,
            failures=failures,
            lost_count=row.lost_count,
            reason=(cancelled or reason)[:255],
            fingerprint="" if cancelled else fingerprints.of_words(row.task_path, TASK_TIMEOUT),
            is_member=is_member(row.options),
        )
        done.failed += sorted(exchange(alias, [ending], None).ended)
    requests_are_done(alias, [str(pk) for pk in asked])
    return done


def lost_error(
    row: QueuedTask,
    why: str,
    ended_at: datetime,
    error_class: str = WORKER_LOST,
) -> dict[str, Any]:
    """Return the entry in errors of an attempt whose process died."""
    began = row.last_attempted_at
    return {
        "attempt": row.attempt,
        "worker_id": row.worker_id,
        "started_at": began and began.astimezone(UTC).isoformat(),
        "ended_at": ended_at.astimezone(UTC).isoformat(),
        "exception_class_path": error_class,
        "traceback": f"{error_class}: {why}\n",
    }


def take_over(alias: str, *, lease: float, limit: int, now: datetime | None = None) -> list[Held]:
    """
    Give up to limit RUNNING tasks whose lease has run out a claim of the caller's.

    From then on their former worker can change nothing, and rescue() may
    follow; if the caller dies before, their new lease runs out, too.
    """
    operations = operations_for(alias)
    moment = operations.now_expression(now)
    lapsed = QueuedTask.objects.using(alias).filter(
        status=LiveStatus.RUNNING, lease_until__lt=moment
    )
    ids = sorted(lapsed.values_list("pk", flat=True)[:limit])
    if not ids:
        return []
    claim = new_id()
    # Not retried: after an outage the leases of all are renewed first.
    lapsed.filter(pk__in=ids).update(claim_id=claim, lease_until=moment + timedelta(seconds=lease))
    mine = QueuedTask.objects.using(alias).filter(pk__in=ids, claim_id=claim)
    return [(str(pk), claim) for pk in mine.values_list("pk", flat=True)]
