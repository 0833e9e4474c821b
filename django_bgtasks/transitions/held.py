"""What a worker does with a task that it holds, and that does not end by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db.models import F

from ..db import operations_for
from ..models.queued import QueuedTask
from ..states import LiveStatus

#: A task in the hands of a worker: its id and its claim.
Held = tuple[str, str]


def held_rows(alias: str, held: Iterable[Held]) -> Any:
    pairs = list(held)
    return QueuedTask.objects.using(alias).filter(
        status=LiveStatus.RUNNING,
        pk__in=sorted(pk for pk, _ in pairs),
        claim_id__in={claim for _, claim in pairs},
    )


def _noted(notes: str | None) -> dict[str, Any]:
    return {} if notes is None else {"notes": json.loads(notes)}


def release(alias: str, held: Sequence[Held], *, reason: str = "") -> int:
    """
    RUNNING -> READY for tasks that did not run, or were interrupted.

    No attempt is counted. Return how many were ours still.
    """
    if not held:
        return 0
    operations = operations_for(alias)
    return operations.retrying(
        lambda: held_rows(alias, held).update(
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
        lambda: held_rows(alias, [held]).update(
            status=LiveStatus.SCHEDULED,
            claim_id=None,
            lease_until=None,
            attempt=F("attempt") - 1,
            due_at=operations.now_expression(None) + timedelta(seconds=delay),
            reason=reason[:255],
            **_noted(notes),
        )
    )


def note(alias: str, held: Held, notes: str) -> int:
    """RUNNING stays RUNNING: write down its progress; notes are JSON text."""
    return operations_for(alias).retrying(lambda: held_rows(alias, [held]).update(**_noted(notes)))


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
        lambda: held_rows(alias, [held]).update(
            **status,
            claim_id=None,
            lease_until=None,
            failures=failures,
            errors=json.loads(errors),
            reason=reason[:255],
            **_noted(notes),
        )
    )
