"""
How many tasks a filter means, without reading the table.

Exact where an index says that few rows come into question; else from samples
spread over the time that the table covers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ..db import operations_for
from ..models.failure import FailureGroup
from .selection import Selection
from .verbs import Verb

#: Rows that are looked at one by one.
LIMIT = 10_000
#: Samples, and rows of each.
SAMPLES, ROWS = 4, 1_000
#: The same of the errors of live tasks, which are long.
ERRORS = 1_000

_COLUMNS = ("pk", "status", "queue_name", "task_path", "failures")


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
    rows = selection.model._default_manager.using(alias).order_by()
    narrow = _narrow(selection)
    if rows.filter(**narrow)[: LIMIT + 1].count() <= LIMIT:
        return _counted(alias, selection)
    if selection.cause:
        group = FailureGroup.objects.using(alias).filter(pk=selection.cause).only("total").first()
        total = max(LIMIT, group.total if group else 0)
        return Estimate({selection.status or "FAILED": total}, False)
    return _sampled(alias, selection)


def _narrow(selection: Selection) -> dict[str, Any]:
    """Return the conditions that an index answers best."""
    conditions = selection.conditions()
    if selection.cause:
        return {"fingerprint": selection.cause}
    if selection.status:
        names = ["status"] if selection.finished else ["status", "queue_name"]
        return {name: conditions[name] for name in names if name in conditions}
    return selection.range()


def _counted(alias: str, selection: Selection) -> Estimate:
    rows = selection.rows(alias)
    if not selection.error:
        return Estimate(dict(Counter(rows.values_list("status", flat=True)[:LIMIT])), True)
    found = list(rows.values_list("status", "errors")[: ERRORS + 1])
    accepted = Counter(status for status, errors in found if selection.accepts(errors))
    if len(found) <= ERRORS:
        return Estimate(dict(accepted), True)
    every = rows[:LIMIT].count()
    return Estimate({s: round(n * every / len(found)) for s, n in accepted.items()}, False)


def _sampled(alias: str, selection: Selection) -> Estimate:
    """Look at some rows after each of a few ids, evenly spread between the first and the last."""
    rows = selection.model._default_manager.using(alias).filter(**selection.range())
    first = rows.order_by("pk").values_list("pk", flat=True).first()
    last = rows.order_by("-pk").values_list("pk", flat=True).first()
    if first is None or last is None:
        return Estimate({}, True)
    columns = (*_COLUMNS, "errors") if selection.error else _COLUMNS
    span = max(1, (last.int - first.int) // SAMPLES)
    found: dict[str, float] = defaultdict(float)
    total = 0.0
    for number in range(SAMPLES):
        start = UUID(int=first.int + number * span)
        sample = list(rows.filter(pk__gte=start).order_by("pk").values(*columns)[:ROWS])
        if not sample:
            continue
        # As dense as the sample is, so many rows its part of the time has.
        part = len(sample) * span / max(1, sample[-1]["pk"].int - start.int)
        total += part
        for row in sample:
            if _fits(selection, row):
                found[row["status"]] += part / len(sample)
    every: float = operations_for(alias).approximate_count(selection.model._meta.db_table)
    if selection.range():
        every = min(every, total)
    every = max(every, LIMIT)
    return Estimate({s: round(share / total * every) for s, share in found.items()}, False)


def _fits(selection: Selection, row: dict[str, Any]) -> bool:
    for name, value in selection.conditions().items():
        if name == "failures__gt":
            if not row["failures"] > value:
                return False
        elif row[name] != value:
            return False
    return selection.accepts(row.get("errors"))
