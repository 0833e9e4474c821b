"""
Every arrow of docs/lifecycle.md, each one guarded statement or transaction.

Nothing else writes a status. A guard says from which state the arrow starts
and, once a task is RUNNING, under which claim; where it finds nothing to
change, the caller learns that others were faster.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F
from django.utils import timezone

from . import dependencies, uniqueness
from .db import ClaimedTask, ClaimRequest, Ending, Exchange, operations_for
from .ids import new_id
from .models.cancellation import Cancellation
from .models.finished import FinishedTask
from .models.limit import LimitWait
from .models.queued import QueuedTask
from .models.workflow import Node
from .states import FinalStatus, LiveStatus

#: A task in the hands of a worker: its id and its claim.
Held = tuple[str, str]

_RETRYABLE = (FinalStatus.FAILED, FinalStatus.CANCELLED)


def enqueue(
    alias: str, rows: Sequence[Sequence[Any]], *, keyed: bool = False, tell: str | None = None
) -> None:
    """
    -> READY, SCHEDULED or WAITING, in the caller's transaction.

    rows are of INSERT_COLUMNS, with keyed of KEYED_COLUMNS. tell, under
    autocommit, is the queue whose workers hear of it by the same commit.
    """
    operations = operations_for(alias)
    if tell is not None and not keyed:
        operations.insert_and_notify(rows, tell)
    elif keyed:
        operations.insert_keyed(rows)
    else:
        operations.insert(rows)


def enqueue_waiting(alias: str, rows: Sequence[Sequence[Any]], waits: Sequence[LimitWait]) -> None:
    """-> WAITING at a limit, in the caller's transaction; rows are of KEYED_COLUMNS."""
    operations_for(alias).insert_keyed(rows)
    LimitWait.objects.using(alias).bulk_create(waits, batch_size=1000)


def replace(alias: str, task_id: str, changes: Mapping[str, Any]) -> int:
    """
    SCHEDULED, WAITING or READY -> SCHEDULED or READY with other arguments and time.

    For the waiting task of a unique key; changes are columns, status among them.
    A member of a workflow keeps both: others count on its place.
    """
    if dependencies.members(alias, [UUID(task_id)]):
        return 0
    return (
        QueuedTask.objects.using(alias)
        .filter(pk=task_id, status__in=(LiveStatus.SCHEDULED, LiveStatus.WAITING, LiveStatus.READY))
        .update(**changes)
    )


def exchange(alias: str, endings: Sequence[Ending], request: ClaimRequest | None) -> Exchange:
    """
    RUNNING -> a final status for endings; READY -> RUNNING for what is claimed.

    Members of workflows end in a transaction of their own, before the others:
    what waited for them can be claimed by the same request.
    """
    operations = operations_for(alias)
    members = [ending for ending in endings if ending.is_member]
    if not members:
        return operations.exchange(endings, request)

    def unit() -> set[str]:
        with operations.write():
            return end(alias, members)

    ended = operations.retrying(unit)
    operations.pause()
    others = [ending for ending in endings if not ending.is_member]
    done = operations.exchange(others, request)
    done.ended |= ended
    return done


def end(alias: str, endings: Sequence[Ending]) -> set[str]:
    """
    RUNNING -> SUCCESSFUL, FAILED or CANCELLED, in the caller's transaction, with
    what follows from it in workflows.

    Return the ids that were held.
    """
    ended = operations_for(alias).end(endings)
    members = [ending for ending in endings if ending.is_member and ending.id in ended]
    for ending in members:
        if ending.grow is not None and ending.status == FinalStatus.SUCCESSFUL:
            ending.grow()
    _follow(alias, {UUID(ending.id): ending.status for ending in members})
    return ended


def _follow(alias: str, ended: Mapping[UUID, str], *, by_hand: bool = False) -> None:
    """Do what follows in workflows from the end of members, by id and status."""
    if not ended:
        return
    bad = [pk for pk, status in ended.items() if status != FinalStatus.SUCCESSFUL]
    names = dependencies.members(alias, bad) if bad else {}
    if by_hand:
        dependencies.hold_back(alias, ended)
    done = dependencies.advance(
        alias,
        {pk: _cause(names.get(pk, ""), pk, status) for pk, status in ended.items()},
    )
    for reason, ids in done.skipped.items():
        operations_for(alias).withdraw([str(pk) for pk in ids], reason=reason[:255])
    if done.opened:
        open_up(alias, done.opened)
    if done.ends:
        dependencies.conclude(alias, done.ends)


def _cause(name: str, pk: UUID, status: str) -> str | None:
    if status == FinalStatus.SUCCESSFUL:
        return None
    what = "failed" if status == FinalStatus.FAILED else "was cancelled"
    return f"{name} {str(pk)[-8:]} {what}"


def open_up(alias: str, barriers: Sequence[UUID]) -> None:
    """WAITING -> READY or SCHEDULED behind open barriers, in the caller's transaction."""
    from .wakeups import on_commit, wake

    tasks = QueuedTask.objects.using(alias)
    now = timezone.now()
    queues: set[str] = set()
    for some in dependencies.chunks(barriers):
        ids = Node.objects.using(alias).filter(barrier_id__in=some).values_list("pk", flat=True)
        for waiting in dependencies.chunks(ids):
            here = tasks.filter(pk__in=waiting, status=LiveStatus.WAITING)
            found = set(here.values_list("queue_name", "run_after"))
            if any(after is not None and after > now for _, after in found):
                later = here.filter(run_after__gt=now)
                later.update(status=LiveStatus.SCHEDULED, due_at=F("run_after"))
            here.update(status=LiveStatus.READY)
            queues.update(name for name, after in found if after is None or after <= now)
    if queues:
        on_commit(alias, lambda: wake(alias, *queues))


def promote(alias: str, limit: int, *, now: datetime | None = None) -> list[str]:
    """SCHEDULED -> READY for tasks that are due; return the queue of each."""
    return operations_for(alias).promote(limit, now=now)


def cancel(alias: str, ids: Sequence[str], *, by: str = "", why: str = "") -> list[str]:
    """
    SCHEDULED, WAITING or READY -> CANCELLED; return the ids that were.

    What waits for them in a workflow is skipped.
    """
    operations = operations_for(alias)

    def unit() -> list[str]:
        with operations.step():
            moved = operations.withdraw(ids, reason=cancelled_by(by, why))
            members = dependencies.members(alias, [UUID(pk) for pk in moved])
            _follow(alias, dict.fromkeys(members, FinalStatus.CANCELLED.value), by_hand=True)
            return moved

    return unit() if connections[alias].in_atomic_block else operations.retrying(unit)


def cancelled_by(by: str, why: str = "") -> str:
    """Return the reason of a cancelled task: who, and why."""
    text = f"Cancelled by {by}" if by else "Cancelled"
    return f"{text}: {why}"[:255] if why else f"{text}."[:255]


def ask_to_end(
    alias: str, ids: Sequence[str], *, by: str = "", why: str = "", force: bool = False
) -> list[str]:
    """
    RUNNING stays RUNNING: note that the tasks shall end, for their workers to read.

    Return the ids that were running.
    """
    running = [
        str(pk)
        for pk in QueuedTask.objects.using(alias)
        .filter(pk__in=ids, status=LiveStatus.RUNNING)
        .values_list("pk", flat=True)
    ]
    requests = Cancellation.objects.using(alias)
    now, reason = timezone.now(), cancelled_by(by, why)
    requests.bulk_create(
        [
            Cancellation(task_id=pk, reason=reason, force=force, asked_at=now)
            for pk in sorted(running)
        ],
        ignore_conflicts=True,
    )
    asked = requests.filter(task_id__in=running)
    # What was asked by force is not taken back by a plain request.
    asked.filter(force=force).update(reason=reason, asked_at=now)
    if force:
        asked.filter(force=False).update(reason=reason, force=True, asked_at=now)
    return running


def retry(alias: str, ids: Sequence[str], *, by: str = "") -> list[str]:
    """
    FAILED or CANCELLED -> READY or WAITING, by hand; return the ids that were.

    Not where another task has the unique key now. In a workflow what was
    skipped because of them waits again, and is returned, too; one whose parents
    have failed is left as it is.
    """
    operations = operations_for(alias)
    reason = f"Retried by {by}." if by else "Retried by hand."

    def unit() -> list[str]:
        with operations.step():
            return _retry(alias, ids, reason[:255])

    return unit() if connections[alias].in_atomic_block else operations.retrying(unit)


def _retry(alias: str, ids: Sequence[str], reason: str) -> list[str]:
    from .wakeups import on_commit, wake

    operations = operations_for(alias)
    marked = FinishedTask.objects.using(alias).filter(pk__in=ids, options__isnull=False)
    taken = {str(row.pk) for row in marked if not uniqueness.may_return(alias, row)}
    free = [str(pk) for pk in ids if str(pk) not in taken]
    final = FinishedTask.objects.using(alias).filter(pk__in=free, status__in=_RETRYABLE)
    members = dependencies.members(alias, final.values_list("pk", flat=True))
    waiting: list[str] = []
    if members:
        again = dependencies.reopen(alias, list(members))
        waiting = [str(pk) for pk in again.waiting]
        refused = {str(pk) for pk in again.refused}
        free = [pk for pk in free if pk not in refused]
        free += [pk for pk in waiting if pk not in set(free)]
    moved = operations.move_back(free, statuses=_RETRYABLE, reason=reason)
    if waiting:
        QueuedTask.objects.using(alias).filter(pk__in=waiting).update(status=LiveStatus.WAITING)
    # What was asked of the run that has ended is not asked of the next one; nor has a
    # task that somebody wants to run now expired.
    requests_are_done(alias, moved)
    for row in QueuedTask.objects.using(alias).filter(pk__in=moved, options__isnull=False):
        given: dict[str, Any] = row.options or {}
        if "expires_at" in given:
            options = {k: v for k, v in given.items() if k != "expires_at"}
            QueuedTask.objects.using(alias).filter(pk=row.pk).update(options=options)
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


def put_off(alias: str, held: Held, *, delay: float, reason: str, notes: str | None = None) -> int:
    """
    RUNNING -> SCHEDULED for a task that can't run here yet, or snoozes. No attempt is counted.

    delay is in seconds, notes JSON text.
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
            **_noted(notes),
        )
    )


def _noted(notes: str | None) -> dict[str, Any]:
    return {} if notes is None else {"notes": json.loads(notes)}


def note(alias: str, held: Held, notes: str) -> int:
    """RUNNING stays RUNNING: write down its progress; notes are JSON text."""
    return operations_for(alias).retrying(lambda: _held(alias, [held]).update(**_noted(notes)))


def requests_to_end(alias: str, ids: Iterable[str]) -> list[tuple[str, str, bool]]:
    """Return id, reason and force of what shall end of these tasks."""
    requests = Cancellation.objects.using(alias).filter(task_id__in=list(ids))
    return [(str(r.task_id), r.reason, r.force) for r in requests]


def requests_are_done(alias: str, ids: Sequence[str]) -> None:
    """Forget the requests to end tasks that have ended."""
    Cancellation.objects.using(alias).filter(task_id__in=ids).delete()


def retry_later(
    alias: str,
    held: Held,
    *,
    delay: float,
    failures: int,
    errors: str,
    reason: str,
    notes: str | None = None,
) -> int:
    """
    RUNNING -> SCHEDULED after an attempt that raised, to run again in delay seconds.

    errors is the JSON text of all errors so far, notes JSON text.
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
            **_noted(notes),
        )
    )


def park(alias: str, waits: Sequence[LimitWait], held: Sequence[Held], *, reason: str) -> None:
    """
    RUNNING -> WAITING for claimed tasks that a limit has no room for.

    In the caller's transaction. No attempt is counted. waits say at which keys.
    """
    ours = _held(alias, held)
    ids = {str(pk) for pk in ours.values_list("pk", flat=True)}
    ours.update(
        status=LiveStatus.WAITING,
        claim_id=None,
        lease_until=None,
        attempt=F("attempt") - 1,
        reason=reason[:255],
    )
    _wait(alias, [wait for wait in waits if str(wait.task_id) in ids])


def park_ready(alias: str, waits: Sequence[LimitWait], *, reason: str) -> None:
    """READY -> WAITING for locked rows of a key that is full, in the caller's transaction."""
    QueuedTask.objects.using(alias).filter(
        pk__in=[wait.task_id for wait in waits], status=LiveStatus.READY
    ).update(status=LiveStatus.WAITING, reason=reason[:255])
    _wait(alias, waits)


def _wait(alias: str, waits: Sequence[LimitWait]) -> None:
    # A row may be left from an earlier wait of a task that was replaced or cancelled.
    LimitWait.objects.using(alias).filter(task_id__in=[w.task_id for w in waits]).delete()
    LimitWait.objects.using(alias).bulk_create(waits)


def unpark(alias: str, ids: Sequence[str]) -> int:
    """WAITING -> READY for tasks that waited at a limit, in the caller's transaction."""
    LimitWait.objects.using(alias).filter(task_id__in=ids).delete()
    return (
        QueuedTask.objects.using(alias)
        .filter(pk__in=sorted(ids), status=LiveStatus.WAITING)
        .update(status=LiveStatus.READY, reason="")
    )


def hand_over(alias: str, request: ClaimRequest) -> list[ClaimedTask]:
    """WAITING -> RUNNING for tasks that waited at a limit, in the caller's transaction."""
    ids = list(request.candidates or ())
    LimitWait.objects.using(alias).filter(task_id__in=ids).delete()
    return operations_for(alias).claim_rows(request, status=LiveStatus.WAITING.value)


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
        done.failed = sorted(exchange(alias, endings, None).ended)
    return done


def is_member(options: Mapping[str, Any] | None) -> bool:
    """Say by the column options of a row whether it belongs to a workflow."""
    return bool(options) and "workflow" in (options or ())


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
    for row in _held(alias, held):
        ended = timezone.now()
        claim, failures = str(row.claim_id), row.failures + 1
        error = lost_error(row, why, ended, "django_bgtasks.exceptions.TaskTimeout")
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
            is_member=is_member(row.options),
        )
        done.failed += sorted(exchange(alias, [ending], None).ended)
    requests_are_done(alias, [str(pk) for pk in asked])
    return done


def lost_error(
    row: QueuedTask,
    why: str,
    ended_at: datetime,
    error_class: str = "django_bgtasks.exceptions.WorkerLost",
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
