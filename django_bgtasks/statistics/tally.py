"""What a process has counted since it last told: no database, a microsecond a task."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from ..models.bucket import BINS, BORDERS

#: (minute since the epoch, queue, task path).
Key = tuple[int, str, str]

# Places in a list of figures; the two histograms follow.
OUTCOMES = {"successful": 0, "failed": 1, "cancelled": 2, "retried": 3}
RUN_SECONDS, RUN_LONGEST, WAIT, RUN = 4, 5, 6, 6 + BINS
FIGURES = 6 + 2 * BINS

#: Seconds for which a cause's traceback is not sent again.
TRACEBACK_PAUSE = 30.0


@dataclass(slots=True)
class Failures:
    """Final failures of one cause; words are those of the latest, "" as they were before."""

    task_path: str
    count: int = 0
    task_id: str = ""
    exception_class: str = ""
    message: str = ""
    traceback: str = ""
    last: float = 0.0


@dataclass(slots=True)
class Tally:
    """Figures of attempts by minute, queue and task, and failures by fingerprint."""

    figures: dict[Key, list[Any]] = field(default_factory=dict)
    failures: dict[str, Failures] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.figures or self.failures)

    def add(
        self,
        key: Key,
        outcome: str,
        *,
        waited: float | None = None,
        ran: float | None = None,
    ) -> None:
        """Count one attempt; waited and ran are seconds, None where that says nothing."""
        figures = self.figures.get(key)
        if figures is None:
            figures = self.figures[key] = [0] * FIGURES
        figures[OUTCOMES[outcome]] += 1
        if waited is not None:
            figures[WAIT + bisect_left(BORDERS, waited)] += 1
        if ran is not None:
            figures[RUN + bisect_left(BORDERS, ran)] += 1
            figures[RUN_SECONDS] += ran
            if ran > figures[RUN_LONGEST]:
                figures[RUN_LONGEST] = ran

    def add_failure(
        self,
        fingerprint: str,
        task_path: str,
        task_id: str,
        *,
        exception_class: str,
        message: str,
        traceback: str,
    ) -> None:
        """Count one final failure."""
        group = self.failures.get(fingerprint)
        if group is None:
            group = self.failures[fingerprint] = Failures(task_path)
        group.count += 1
        group.task_id, group.last = task_id, time.time()
        group.exception_class, group.message = exception_class, message
        group.traceback = traceback or group.traceback

    def merge(self, other: Tally) -> None:
        """Add what another process has counted."""
        for key, figures in other.figures.items():
            mine = self.figures.get(key)
            self.figures[key] = list(figures) if mine is None else added(mine, figures)
        for fingerprint, group in other.failures.items():
            known = self.failures.get(fingerprint)
            if known is None:
                self.failures[fingerprint] = group
                continue
            group.count += known.count
            group.traceback = group.traceback or known.traceback
            self.failures[fingerprint] = group

    def take(self) -> Tally:
        """Return what was counted, and begin anew."""
        taken = Tally(self.figures, self.failures)
        self.figures, self.failures = {}, {}
        return taken


def added(one: list[Any], other: list[Any]) -> list[Any]:
    """Return the sum of two lists of figures."""
    total = [a + b for a, b in zip(one, other, strict=True)]
    total[RUN_LONGEST] = max(one[RUN_LONGEST], other[RUN_LONGEST])
    return total


def minute_of(moment: float) -> int:
    """Return the minute of a time.time()."""
    return int(moment // 60)
