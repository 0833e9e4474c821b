"""
Failures by cause: which there are, how often lately, and what people said of them.

Workers count (statistics/ledger.py); this reads what they counted, and is the
one place that writes what people say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Sum

from .db import operations_for
from .models.failure import FailureCount, FailureGroup, FailureState

HOUR = timedelta(hours=1)
#: Hours of which figures are shown.
RECENT = 24
#: Causes that are looked at for the list of the most frequent ones.
MOST = 500

_NOTE = FailureGroup._meta.get_field("note").max_length
_WHO = FailureGroup._meta.get_field("acknowledged_by").max_length


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause, and how often it came lately: one number an hour, the last is this hour's."""

    group: FailureGroup
    state: FailureState
    hours: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many tasks failed for it in these hours."""
        return sum(self.hours)


@dataclass(frozen=True, slots=True)
class Top:
    """The most frequent causes that are not muted, and how many others there are."""

    open: list[Cause]
    muted: int
    more: int


def hours_until(now: datetime, hours: int) -> list[datetime]:
    """Return the beginnings of the last hours, oldest first; the last one is going on."""
    this = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return [this - number * HOUR for number in range(hours - 1, -1, -1)]


def series(
    alias: str, fingerprints: Iterable[str], *, now: datetime, hours: int = RECENT
) -> dict[str, tuple[int, ...]]:
    """Return how many tasks failed in each of the last hours for each cause, in one query."""
    places = {start: place for place, start in enumerate(hours_until(now, hours))}
    rows = FailureCount.objects.using(alias).filter(
        fingerprint__in=list(fingerprints), hour__gte=min(places)
    )
    found: dict[str, list[int]] = defaultdict(lambda: [0] * hours)
    for fingerprint, hour, count in rows.values_list("fingerprint", "hour", "count"):
        if hour in places:  # Others are of a clock that is ahead.
            found[fingerprint][places[hour]] += count
    return {fingerprint: tuple(counts) for fingerprint, counts in found.items()}


def top(alias: str, *, now: datetime | None = None, hours: int = RECENT, limit: int = 10) -> Top:
    """
    Return the causes for which most tasks failed in the last hours, in three queries.

    now is an aware datetime, that of the database if not given.
    """
    now = now or operations_for(alias).now()
    counts = FailureCount.objects.using(alias).filter(hour__gte=hours_until(now, hours)[0])
    sums = counts.values("fingerprint").annotate(sum=Sum("count")).order_by("-sum", "fingerprint")
    order = [row["fingerprint"] for row in sums[:MOST]]
    groups = FailureGroup.objects.using(alias).defer("traceback").in_bulk(order)
    there = [groups[fingerprint] for fingerprint in order if fingerprint in groups]
    heard = [group for group in there if group.state(now) != FailureState.MUTED]
    shown = heard[:limit]
    found = series(alias, [group.pk for group in shown], now=now, hours=hours)
    return Top(
        open=[Cause(group, group.state(now), found.get(group.pk, (0,) * hours)) for group in shown],
        muted=len(there) - len(heard),
        more=len(heard) - len(shown),
    )


# What people say


def acknowledge(alias: str, fingerprint: str, *, by: str = "", note: str = "") -> bool:
    """
    Write down that somebody knows of a cause; say whether there is such a cause.

    note says more, such as the number of a ticket. Who acknowledged last, and
    the note, replace those before.
    """
    return _change(
        alias,
        fingerprint,
        acknowledged_at=operations_for(alias).now_expression(None),
        acknowledged_by=_text(by, _WHO),
        note=_text(note, _NOTE),
    )


def reopen(alias: str, fingerprint: str) -> bool:
    """Take an acknowledgement, its note and a mute back; say whether that changed anything."""
    rows = FailureGroup.objects.using(alias).filter(pk=fingerprint)
    group = rows.defer("traceback").first()
    if group is None or group.state(operations_for(alias).now()) == FailureState.OPEN:
        return False
    return bool(rows.update(acknowledged_at=None, acknowledged_by="", note="", muted_until=None))


def mute(alias: str, fingerprint: str, seconds: float) -> bool:
    """Leave a cause out of the dashboard for seconds from now; say whether there is one."""
    until = operations_for(alias).now() + timedelta(seconds=seconds)
    return _change(alias, fingerprint, muted_until=until)


def unmute(alias: str, fingerprint: str) -> bool:
    """End a mute; say whether there was one."""
    rows = FailureGroup.objects.using(alias).filter(pk=fingerprint)
    muted = rows.filter(muted_until__gt=operations_for(alias).now_expression(None))
    return bool(muted.update(muted_until=None))


def _change(alias: str, fingerprint: str, **changes: Any) -> bool:
    return bool(FailureGroup.objects.using(alias).filter(pk=fingerprint).update(**changes))


def _text(text: str, longest: int | None) -> str:
    # A shell's argument may have bytes that are no text.
    known = text.encode("utf-8", "replace").decode()
    return known.replace("\x00", "").strip()[:longest]
