"""What people ask of tasks: cancel, end, run now, retry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.utils import timezone

from .. import dependencies, uniqueness
from ..db import operations_for
from ..models.cancellation import Cancellation
from ..models.finished import FinishedTask
from ..models.limit import LimitWait
from ..models.queued import QueuedTask
from ..models.step import Step
from ..states import FinalStatus, LiveStatus
from .ending import follow

_RETRYABLE = (FinalStatus.FAILED, FinalStatus.CANCELLED)


def cancel(alias: str, ids: Sequence[str], *, by: str = "", why: str = "") -> list[str]:
    """
    SCHEDULED, WAITING or READY -> CANCELLED; return the ids that were.

    What waits for them in a workflow is skipped.
    """
    operations = operations_for(alias)

    def unit() -> list[str]:
        with operations.step():
            workflows = dependencies.workflows_of(alias, map(UUID, map(str, ids)))
            if workflows:
                # Barriers before tasks, as whatever else spreads through a workflow.
                dependencies.lock(alias, workflows.values())
            moved = operations.withdraw(ids, reason=cancelled_by(by, why))
            members = [pk for pk in map(UUID, moved) if pk in workflows]
            follow(alias, dict.fromkeys(members, FinalStatus.CANCELLED.value), by_hand=True)
            _wait_no_more(alias, moved)
            return moved

    return unit() if connections[alias].in_atomic_block else operations.retrying(unit)


def _wait_no_more(alias: str, ids: Sequence[str]) -> None:
    """Forget where tasks waited at limits: they may wait for something else one day."""
    for some in dependencies.chunks(ids):
        LimitWait.objects.using(alias).filter(task_id__in=some).delete()


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


def requests_to_end(alias: str, ids: Iterable[str]) -> list[tuple[str, str, bool]]:
    """Return id, reason and force of what shall end of these tasks."""
    requests = Cancellation.objects.using(alias).filter(task_id__in=list(ids))
    return [(str(r.task_id), r.reason, r.force) for r in requests]


def requests_are_done(alias: str, ids: Sequence[str]) -> None:
    """Forget the requests to end tasks that have ended."""
    Cancellation.objects.using(alias).filter(task_id__in=ids).delete()


def run_now(alias: str, ids: Sequence[str], *, by: str = "") -> list[str]:
    """SCHEDULED -> READY, whenever it would be due; return the ids that were."""
    from ..wakeups import on_commit, wake

    operations = operations_for(alias)
    reason = f"Run now by {by}." if by else "Run now by hand."
    scheduled = QueuedTask.objects.using(alias).filter(status=LiveStatus.SCHEDULED)

    def unit() -> list[str]:
        with operations.step():
            asked = scheduled.filter(pk__in=ids).select_for_update().order_by("pk")
            found = dict(asked.values_list("pk", "queue_name"))
            if found:
                # What somebody wants to run now has no other time; the fence is the status.
                scheduled.filter(pk__in=found).update(
                    status=LiveStatus.READY, due_at=None, run_after=None, reason=reason[:255]
                )
                on_commit(alias, lambda: wake(alias, *set(found.values())))
            return [str(pk) for pk in found]

    return unit() if connections[alias].in_atomic_block else operations.retrying(unit)


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
    from ..wakeups import on_commit, wake

    operations = operations_for(alias)
    marked = FinishedTask.objects.using(alias).filter(pk__in=ids, options__isnull=False)
    taken = {str(row.pk) for row in marked if not uniqueness.may_return(alias, row)}
    free = [str(pk) for pk in ids if str(pk) not in taken]
    final = FinishedTask.objects.using(alias).filter(pk__in=free, status__in=_RETRYABLE)
    members = dependencies.workflows_of(alias, final.values_list("pk", flat=True))
    waiting: list[str] = []
    handlers: list[str] = []
    for workflow in sorted(set(members.values())):
        asked = [pk for pk, its in members.items() if its == workflow]
        again = _reopen(alias, asked)
        refused = {str(pk) for pk in (asked if again is None else again.refused)}
        back = [] if again is None else [str(pk) for pk in again.waiting]
        if again is not None:
            handlers += [str(pk) for pk in again.handlers]
        free = [pk for pk in free if pk not in refused]
        free += sorted(set(back) - set(free))
        waiting += back
    moved = operations.move_back(free, statuses=_RETRYABLE, reason=reason)
    if handlers:
        moved += operations.move_back(handlers, statuses=FinalStatus.values, reason=reason)
        # They run once more, and not on with what an attempt has left.
        for some in dependencies.chunks(handlers):
            Step.objects.using(alias).filter(task_id__in=some).delete()
    for some in dependencies.chunks([*waiting, *handlers]):
        QueuedTask.objects.using(alias).filter(pk__in=some).update(status=LiveStatus.WAITING)
    # What was asked of the run that has ended is not asked of the next one; nor has a
    # task that somebody wants to run now expired.
    requests_are_done(alias, moved)
    for row in QueuedTask.objects.using(alias).filter(pk__in=moved, options__isnull=False):
        given: dict[str, Any] = row.options or {}
        place = given.get("workflow") or {}
        if "expires_at" in given or "expires_in" in place:
            options = {k: v for k, v in given.items() if k != "expires_at"}
            if place:
                options["workflow"] = {k: v for k, v in place.items() if k != "expires_in"}
            QueuedTask.objects.using(alias).filter(pk=row.pk).update(options=options)
    if moved:
        rows = QueuedTask.objects.using(alias).filter(pk__in=moved)
        queues = set(rows.values_list("queue_name", flat=True))
        on_commit(alias, lambda: wake(alias, *queues))
    return moved


def _reopen(alias: str, ids: Sequence[UUID]) -> dependencies.Reopening | None:
    """Reopen members of one workflow; None where another task has a key that one needs then."""
    with transaction.atomic(using=alias):
        again = dependencies.reopen(alias, ids)
        revived = {*again.waiting, *again.handlers} - set(ids)
        for some in dependencies.chunks(revived):
            rows = FinishedTask.objects.using(alias).filter(pk__in=some, options__isnull=False)
            if not all(uniqueness.may_return(alias, row) for row in rows):
                transaction.set_rollback(True, using=alias)
                return None
        return again
