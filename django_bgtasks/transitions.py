"""
Every arrow of docs/lifecycle.md, each one guarded statement or transaction.

Nothing else writes a status. A guard says from which state the arrow starts
and, once a task is RUNNING, under which claim; where it finds nothing to
change, the caller learns that others were faster.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from .db import ClaimRequest, Ending, Exchange, operations_for
from .ids import new_id
from .models.queued import QueuedTask
from .states import FinalStatus, LiveStatus

#: A task in the hands of a worker: its id and its claim.
Held = tuple[str, str]

_RETRYABLE = (FinalStatus.FAILED, FinalStatus.CANCELLED)


def enqueue(alias: str, rows: Sequence[Sequence[Any]]) -> None:
    """-> READY or SCHEDULED, in the caller's transaction."""
    operations_for(alias).insert(rows)


def exchange(alias: str, endings: Sequence[Ending], request: ClaimRequest | None) -> Exchange:
    """RUNNING -> a final status for endings; READY -> RUNNING for what is claimed."""
    return operations_for(alias).exchange(endings, request)


def promote(alias: str, limit: int, *, now: datetime | None = None) -> list[str]:
    """SCHEDULED -> READY for tasks that are due; return the queue of each."""
    return operations_for(alias).promote(limit, now=now)


def cancel(alias: str, ids: Sequence[str], *, by: str = "") -> list[str]:
    """SCHEDULED, WAITING or READY -> CANCELLED; return the ids that were."""
    reason = f"Cancelled by {by}." if by else "Cancelled."
    return operations_for(alias).withdraw(ids, reason=reason[:255])


def retry(alias: str, ids: Sequence[str], *, by: str = "") -> list[str]:
    """FAILED or CANCELLED -> READY, by hand; return the ids that were."""
    from .wakeups import on_commit, wake

    reason = f"Retried by {by}." if by else "Retried by hand."
    moved = operations_for(alias).move_back(ids, statuses=_RETRYABLE, reason=reason[:255])
    if moved:
        rows = QueuedTask.objects.using(alias).filter(pk__in=moved)
        queues = set(rows.values_list("queue_name", flat=True))
        on_commit(alias, lambda: wake(alias, *queues))
    return moved


def _held(alias: str, held: Iterable[Held]) -> Any:
    pairs = list(held)
    return QueuedTask.objects.using(alias).filter(
        status=LiveStatus.RUNNING,
        pk__in=sorted(pk for pk, _ in pairs),
        claim_id__in={claim for _, claim in pairs},
    )


def release(alias: str, held: Sequence[Held], *, reason: str = "") -> int:
    """
    RUNNING -> READY for tasks that did not run, or were interrupted.

    No attempt is counted. Return how many were ours still.
    """
    if not held:
        return 0
    operations = operations_for(alias)
    return operations.retrying(
        lambda: _held(alias, held).update(
            status=LiveStatus.READY,
            claim_id=None,
            lease_until=None,
            attempt=F("attempt") - 1,
            reason=reason[:255],
        )
    )


def release_claim(alias: str, claim_id: str, *, known: Iterable[str] = ()) -> int:
    """
    RUNNING -> READY for the rows of a claim whose answer nobody received.

    known are ids that did arrive. No attempt is counted: none of these tasks began.
    """
    rows = QueuedTask.objects.using(alias).filter(status=LiveStatus.RUNNING, claim_id=claim_id)
    lost = {str(pk) for pk in rows.values_list("pk", flat=True)} - set(known)
    return release(alias, [(pk, claim_id) for pk in sorted(lost)])


def put_off(alias: str, held: Held, *, delay: float, reason: str) -> int:
    """
    RUNNING -> SCHEDULED for a task that can't run here yet. No attempt is counted.

    delay is in seconds.
    """
    operations = operations_for(alias)
    return operations.retrying(
        lambda: _held(alias, [held]).update(
            status=LiveStatus.SCHEDULED,
            claim_id=None,
            lease_until=None,
            attempt=F("attempt") - 1,
            due_at=operations.now_expression(None) + timedelta(seconds=delay),
            reason=reason[:255],
        )
    )


def retry_later(
    alias: str, held: Held, *, delay: float, failures: int, errors: str, reason: str
) -> int:
    """
    RUNNING -> SCHEDULED after an attempt that raised, to run again in delay seconds.

    errors is the JSON text of all errors so far.
    """
    operations = operations_for(alias)
    if delay > 0:
        status: dict[str, Any] = {
            "status": LiveStatus.SCHEDULED,
            "due_at": operations.now_expression(None) + timedelta(seconds=delay),
        }
    else:
        status = {"status": LiveStatus.READY}
    return operations.retrying(
        lambda: _held(alias, [held]).update(
            **status,
            claim_id=None,
            lease_until=None,
            failures=failures,
            errors=json.loads(errors),
            reason=reason[:255],
        )
    )


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
    return operations_for(alias).retrying(lambda: _held(alias, [held]).update(reason=RUNS_ALONE))


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
    for row in _held(alias, held):
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
            return _held(alias, [(str(row.pk), claim)]).update(
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
        done.failed = sorted(operations.exchange(endings, None).ended)
    return done


def lost_error(row: QueuedTask, why: str, ended_at: datetime) -> dict[str, Any]:
    """Return the entry in errors of an attempt whose process died."""
    began = row.last_attempted_at
    return {
        "attempt": row.attempt,
        "worker_id": row.worker_id,
        "started_at": began and began.astimezone(UTC).isoformat(),
        "ended_at": ended_at.astimezone(UTC).isoformat(),
        "exception_class_path": "django_bgtasks.exceptions.WorkerLost",
        "traceback": f"django_bgtasks.exceptions.WorkerLost: {why}\n",
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
