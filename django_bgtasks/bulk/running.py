"""
Doing what was asked for: one batch, in one transaction with its own record.

Whoever locks the operation's row does its next batch; nobody does before
locked_until, by which a rate is kept. A worker that is killed meanwhile takes
nothing with it but a batch that was not committed, and another goes on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import F, Q

from ..db import FailureKind, classify, operations_for
from ..filtering import BadFilter, TaskFilter
from ..models.bulk import BulkOperation, BulkState
from .asking import OPEN
from .selection import Selection
from .verbs import RAISED, VERBS, Verb, reasons

logger = logging.getLogger("django_bgtasks.worker")

#: Tasks of one batch, and rows that are looked at for them.
BATCH = 500
LOOK = 10_000
#: Characters of an error that are kept.
ERROR_LENGTH = 2_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What was done just now: to how many tasks, and in how many seconds there is more to do."""

    done: int
    more_in: float


@dataclass(frozen=True, slots=True)
class _Found:
    """The next tasks, where to look on, and whether nothing is left there."""

    ids: list[str]
    cursor: UUID | None
    is_last: bool


def work(alias: str) -> Batch | None:
    """Do the next batch of the operation that waits longest; None if there is none."""
    operations = operations_for(alias)
    rows = BulkOperation.objects.using(alias).filter(state__in=OPEN)
    waiting = rows.order_by(F("locked_until").asc(nulls_first=True), "pk")
    first = waiting.values_list("pk", "locked_until").first()
    if first is None:
        return None
    pk, not_before = first
    now = operations.now()
    if not_before is not None and not_before > now:
        return Batch(0, (not_before - now).total_seconds())

    def unit() -> Batch:
        with operations.step():
            skip = connections[alias].features.has_select_for_update_skip_locked
            locked = rows.select_for_update(skip_locked=skip)
            is_due = Q(locked_until=None) | Q(locked_until__lte=now)
            operation = locked.filter(is_due, pk=pk).first()
            # Another worker is at it, or somebody has aborted it: look again soon.
            return Batch(0, 0.2) if operation is None else _do(alias, operation, now)

    try:
        batch = operations.retrying(unit)
    except Exception as error:
        if classify(error) is FailureKind.TRANSIENT:
            raise
        # It would be so again, at once and for ever.
        logger.exception("Bulk operation %s failed.", pk)
        rows.filter(pk=pk).update(
            state=BulkState.FAILED, error=_in_words(error), finished_at=operations.now()
        )
        return Batch(0, 0.0)
    if batch.done:
        operations.pause()
    return batch


def _do(alias: str, operation: BulkOperation, now: datetime) -> Batch:
    verb = VERBS[operation.verb]
    operation.state = BulkState.RUNNING
    operation.started_at = operation.started_at or now
    done = 0
    wait = 0.0
    try:
        selection = Selection.stored(
            operation.filter, finished=operation.finished, asked_at=operation.asked_at
        )
    except BadFilter as error:
        operation.state, operation.error = BulkState.FAILED, _in_words(error)
    else:
        found = _next(alias, operation, selection)
        done = _act(alias, operation, verb, found.ids)
        operation.cursor = found.cursor
        if found.is_last:
            operation.state = BulkState.DONE
        elif operation.rate:
            wait = done / operation.rate
    operation.locked_until = now + timedelta(seconds=wait)
    if operation.state != BulkState.RUNNING:
        operation.finished_at = now
        logger.info("Bulk operation %s: %s.", operation.pk, operation.state.lower())
    operation.save(using=alias)
    return Batch(done, wait)


def _next(alias: str, operation: BulkOperation, selection: Selection) -> _Found:
    """Find the next tasks, newest first, among at most LOOK rows."""
    size = BATCH if operation.rate is None else max(1, min(BATCH, round(operation.rate)))
    below: dict[str, Any] = {"pk__lte": operation.up_to}
    if operation.cursor is not None:
        below = {"pk__lt": operation.cursor}
    rows = selection.rows(alias).filter(**below)
    floor = None
    if not selection.filter.cause:  # The index of causes has nothing else to pass by.
        # What was enqueued before the filter's age is not looked at.
        age = TaskFilter(since=selection.filter.since)
        here = age.apply(selection.table(alias), now=selection.asked_at)
        here = here.filter(**below).order_by("-pk")
        floor = here.values_list("pk", flat=True)[LOOK : LOOK + 1].first()
        if floor is not None:
            rows = rows.filter(pk__gte=floor)
    columns = ("pk", "errors") if selection.asks_errors else ("pk", "pk")
    found = list(rows.order_by("-pk").values_list(*columns)[:size])
    ids = [str(pk) for pk, errors in found if selection.accepts(errors)]
    if len(found) == size:
        return _Found(ids, found[-1][0], False)
    return _Found(ids, floor, floor is None)


def _act(alias: str, operation: BulkOperation, verb: Verb, ids: Sequence[str]) -> int:
    """Do it to tasks, and count in the operation what came of it; return to how many."""
    if not ids:
        return 0
    raised: list[str] = []
    try:
        done = _try(alias, verb, ids, operation.asked_by)
    except Exception as error:
        if classify(error) is FailureKind.TRANSIENT:
            raise
        # One of them is to blame: all others shall not have to wait for it.
        done = []
        for pk in ids:
            try:
                done += _try(alias, verb, [pk], operation.asked_by)
            except Exception as error:
                if classify(error) is FailureKind.TRANSIENT:
                    raise
                raised.append(pk)
                operation.error = operation.error or f"{pk}: {_in_words(error)}"
    touched = {*done, *raised}
    counts = Counter(operation.skipped)
    counts.update(reasons(alias, verb, [pk for pk in ids if pk not in touched]))
    if raised:
        counts[RAISED] += len(raised)
    operation.skipped = {reason: count for reason, count in sorted(counts.items()) if count}
    operation.done += len(done)
    return len(done)


def _try(alias: str, verb: Verb, ids: Sequence[str], by: str) -> list[str]:
    with transaction.atomic(using=alias):
        return verb.act(alias, ids, by)


def _in_words(error: Exception) -> str:
    """Return what any column of text can hold of an exception."""
    text = str(error) if isinstance(error, BadFilter) else f"{type(error).__name__}: {error}"
    known = text.encode("utf-8", "replace").decode()
    return known.replace("\x00", "")[:ERROR_LENGTH]
