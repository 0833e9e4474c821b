"""Writing down what somebody asks to have done, and that it shall stop."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from ..db import operations_for
from ..ids import new_id
from ..models.bulk import BulkOperation, BulkState
from .selection import Selection
from .verbs import VERBS

#: States in which there is something to be done still.
OPEN = (BulkState.WAITING, BulkState.RUNNING)
#: Tasks a second that a rate may say.
SLOWEST, FASTEST = 0.01, 100_000.0

_WHO = BulkOperation._meta.get_field("asked_by").max_length
_NAME = BulkOperation._meta.get_field("name").max_length
_WORDS = BulkOperation._meta.get_field("words").max_length


def begin(
    alias: str,
    selection: Selection,
    verb: str,
    *,
    by: str = "",
    name: str = "",
    rate: float | None = None,
    estimate: int | None = None,
) -> BulkOperation:
    """
    Ask for verb, a BulkVerb, to be done to all tasks of a selection that there are by now.

    rate is in tasks a second; None: as fast as it goes. Workers begin within
    about a second. Nobody's permission is asked here. Raise ValueError.
    """
    act = VERBS.get(verb)
    if act is None or act.finished != selection.finished:
        fitting = [v.name.value for v in VERBS.values() if v.finished == selection.finished]
        kind = "results" if selection.finished else "live tasks"
        raise ValueError(f"{verb!r} can't be done to {kind}. What can: {', '.join(fitting)}.")
    if rate is not None and not SLOWEST <= rate <= FASTEST:
        raise ValueError(f"A rate is {SLOWEST:g} to {FASTEST:g} tasks a second, not {rate!r}.")
    return BulkOperation.objects.using(alias).create(
        id=new_id(),
        name=_text(name, _NAME),
        verb=act.name,
        finished=selection.finished,
        filter=selection.filter.as_dict(),
        words=_text(selection.in_words(alias), _WORDS),
        up_to=new_id(),
        estimate=estimate,
        rate=rate,
        asked_by=_text(by, _WHO),
        # The filter's ages count from when it was estimated.
        asked_at=datetime.fromtimestamp(selection.asked_at, UTC),
    )


def abort(alias: str, pk: UUID | str, *, by: str = "") -> bool:
    """
    Have an operation stop after the batch that is being done; say whether it was open.

    What has been done stays done.
    """
    operations = operations_for(alias)
    rows = BulkOperation.objects.using(alias).filter(pk=pk, state__in=OPEN)
    return bool(
        rows.update(
            state=BulkState.ABORTED,
            abort_by=_text(by, _WHO),
            finished_at=operations.now_expression(None),
        )
    )


def _text(text: str, longest: int | None) -> str:
    return text.replace("\x00", "").strip()[:longest]
