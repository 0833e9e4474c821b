"""
How many tasks a filter means, without reading the table.

Exact where an index says that few rows come into question; else from samples
spread over the time that the table covers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from uuid import UUID

from ..db import operations_for
from ..filtering import RETRYING, TaskFilter
from ..ids import first_id_of
from ..models.failure import FailureGroup
from ..states import LiveStatus
from .selection import Selection
from .verbs import Verb

#: Rows that are looked at one by one.
LIMIT = 10_000
#: Samples, and rows of each.
SAMPLES, ROWS = 6, 500
#: Rows whose errors, which are long, are looked at.
ERRORS = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many tasks there are of each status; is_exact says whether they were counted."""

    statuses: dict[str, int]
    is_exact: bool

    @property
    def count(self) -> int:
        """How many tasks are meant, whatever their status."""
        return rounded(sum(self.statuses.values()), self.is_exact)

    def left_alone(self, verb: Verb) -> dict[str, int]:
        """Return how many a verb would leave alone, by their status."""
        return {
            status: rounded(count, self.is_exact)
            for status, count in sorted(self.statuses.items())
            if count and status not in verb.states
        }


def rounded(count: int, is_exact: bool) -> int:
    """Return count to three digits, unless it is exact: it knows no more."""
    if is_exact or count < 1_000:
        return count
    unit = 10 ** (len(str(count)) - 3)
    return round(count / unit) * unit


def estimate(alias: str, selection: Selection) -> Estimate:
    """Return how many tasks a selection means, in ten queries or fewer."""
    wanted = selection.filter
    narrow = _narrow(selection).apply(selection.table(alias), now=selection.asked_at)
    if narrow[: LIMIT + 1].count() <= LIMIT:
        return _counted(alias, selection)
    if wanted == TaskFilter(status=wanted.status, cause=wanted.cause) and wanted.cause:
        group = FailureGroup.objects.using(alias).filter(pk=wanted.cause).only("total").first()
        total = max(LIMIT, group.total if group else 0)
        return Estimate({wanted.status or "FAILED": total}, False)
    return _sampled(alias, selection)


def _narrow(selection: Selection) -> TaskFilter:
    """Return the part of the filter that an index answers best."""
    wanted = selection.filter
    for name in ("cause", "workflow", "schedule"):
        if value := getattr(wanted, name):
            return TaskFilter(**{name: value})
    if wanted.status:
        status = LiveStatus.SCHEDULED.value if wanted.status == RETRYING else wanted.status
        return TaskFilter(status=status, queue="" if selection.finished else wanted.queue)
    return TaskFilter(since=wanted.since)


def _counted(alias: str, selection: Selection) -> Estimate:
    rows = selection.rows(alias)
    if not selection.asks_errors:
        return Estimate(dict(Counter(rows.values_list("status", flat=True)[:LIMIT])), True)
    found = list(rows.values_list("status", "errors")[: ERRORS + 1])
    accepted = Counter(status for status, errors in found if selection.accepts(errors))
    if len(found) <= ERRORS:
        return Estimate(dict(accepted), True)
    every = rows[:LIMIT].count()
    return Estimate({s: round(n * every / len(found)) for s, n in accepted.items()}, False)


def _sampled(alias: str, selection: Selection) -> Estimate:
    """Look at some rows after each of a few ids, evenly spread from the first to this moment."""
    # The filter's own age bounds the part of the table that is looked at.
    age = replace(TaskFilter(), since=selection.filter.since)
    table = age.apply(selection.table(alias), now=selection.asked_at)
    rows = selection.rows(alias)
    first = table.order_by("pk").values_list("pk", flat=True).first()
    if first is None:
        return Estimate({}, True)
    last = UUID(first_id_of(selection.asked_at))
    span = max(1, (last.int - first.int) // SAMPLES)
    samples = []
    for number in range(SAMPLES):
        start = first.int + number * span
        after = table.filter(pk__gte=UUID(int=start)).order_by("pk")
        ids = list(after.values_list("pk", flat=True)[:ROWS])
        if ids:
            # As dense as the sample is, so many rows its part of the time has.
            samples.append((len(ids) * span / max(1, ids[-1].int - start), ids))
    total = sum(part for part, _ids in samples)
    weights: dict[UUID, float] = defaultdict(float)
    for part, ids in samples:
        for pk in ids:
            weights[pk] += part / len(ids)
    columns = ("pk", "status", "errors" if selection.asks_errors else "pk")
    found: dict[str, float] = defaultdict(float)
    for pk, status, errors in rows.filter(pk__in=list(weights)).values_list(*columns):
        if selection.accepts(errors):
            found[status] += weights[pk]
    if not total:
        return Estimate({}, False)
    every: float = operations_for(alias).estimate(selection.model)
    if selection.filter.since:
        every = min(every, total)
    every = max(every, LIMIT)
    return Estimate({s: round(share / total * every) for s, share in found.items()}, False)
