"""How tasks end, and what follows from it in workflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import F
from django.utils import timezone

from .. import dependencies
from ..db import ClaimRequest, Ending, Exchange, operations_for
from ..models.queued import QueuedTask
from ..models.workflow import Node
from ..states import FinalStatus, LiveStatus
from .held import held_rows


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
    for ending in endings:
        if ending.grow is not None:
            _grow(alias, ending)
    ended = operations_for(alias).end(endings)
    members = [ending for ending in endings if ending.is_member and ending.id in ended]
    follow(alias, {UUID(ending.id): ending.status for ending in members})
    return ended


def _grow(alias: str, ending: Ending) -> None:
    """Write what a task has added, if it is ours still; what can't be written fails the task."""
    assert ending.grow is not None
    mine = held_rows(alias, [(ending.id, ending.claim_id)]).select_for_update()
    if not mine.values_list("pk", flat=True):
        return
    try:
        with transaction.atomic(using=alias):
            ending.grow()
    except DatabaseError:
        raise  # A conflict, to be tried again; or what isolates the ending that is to blame.
    except Exception as error:
        if ending.refuse is None:
            raise
        ending.grow = None
        ending.refuse(error)


def follow(alias: str, ended: Mapping[UUID, str], *, by_hand: bool = False) -> None:
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
    from ..wakeups import on_commit, wake

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


def is_member(options: Mapping[str, Any] | None) -> bool:
    """Say by the column options of a row whether it belongs to a workflow."""
    return bool(options) and "workflow" in (options or ())
