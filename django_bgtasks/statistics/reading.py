"""The figures of a window of time: series for charts, sums by task and by queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Max, Q, Sum

from ..models.bucket import BINS, RUN_BINS, WAIT_BINS, Bucket
from .histograms import percentile


@dataclass(frozen=True, slots=True)
class Window:
    """A time up to now, in intervals of step seconds."""

    hours: int
    step: int

    @property
    def intervals(self) -> int:
        return self.hours * 3_600 // self.step


#: 60 to 96 intervals each; their steps are sums of the widths of buckets of that age.
WINDOWS = {w.hours: w for w in (Window(1, 60), Window(6, 300), Window(24, 900), Window(168, 7_200))}


@dataclass(slots=True)
class Interval:
    """What came of attempts that ended within one interval."""

    start: datetime
    successful: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    wait: list[int] = field(default_factory=lambda: [0] * BINS)

    @property
    def ended(self) -> int:
        """How many tasks ended."""
        return self.successful + self.failed + self.cancelled


@dataclass(slots=True)
class TaskSums:
    """The attempts of one task in a window; times are seconds."""

    task_path: str
    runs: int
    failed: int
    run_seconds: float
    longest: float
    p50: float | None
    p95: float | None


@dataclass(slots=True)
class Series:
    """All of a window: its intervals, oldest first, without gaps."""

    window: Window
    intervals: list[Interval]
    #: Ended tasks of each interval by queue.
    queues: dict[str, list[int]]

    @property
    def ended(self) -> int:
        return sum(i.ended for i in self.intervals)

    @property
    def failed(self) -> int:
        return sum(i.failed for i in self.intervals)

    def wait(self, share: float) -> float | None:
        """Return the seconds that a share of first attempts waited at most."""
        return percentile(_summed(i.wait for i in self.intervals), share)


def read_series(alias: str, window: Window, *, now: datetime) -> Series:
    """Return the series of a window that ends now, in one query."""
    step = window.step
    # The interval that is going on is the last one.
    end = (int(now.timestamp()) // step + 1) * step
    first = end - window.intervals * step
    rows = _since(alias, datetime.fromtimestamp(first, UTC))
    found = rows.values("start", "queue_name").annotate(
        **{f"n_{name}": Sum(name) for name in ("successful", "failed", "cancelled", "retried")},
        **{f"n_{name}": Sum(name) for name in WAIT_BINS},
    )
    intervals = [
        Interval(datetime.fromtimestamp(first + number * step, UTC))
        for number in range(window.intervals)
    ]
    queues: dict[str, list[int]] = defaultdict(lambda: [0] * window.intervals)
    for row in found:
        number = (int(row["start"].timestamp()) - first) // step
        if not 0 <= number < window.intervals:
            continue  # Of a clock that is ahead.
        interval = intervals[number]
        for name in ("successful", "failed", "cancelled", "retried"):
            setattr(interval, name, getattr(interval, name) + row[f"n_{name}"])
        for place, name in enumerate(WAIT_BINS):
            interval.wait[place] += row[f"n_{name}"]
        ended = row["n_successful"] + row["n_failed"] + row["n_cancelled"]
        queues[row["queue_name"]][number] += ended
    return Series(window, intervals, dict(queues))


def read_tasks(alias: str, window: Window, *, now: datetime, limit: int = 10) -> list[TaskSums]:
    """Return the tasks that took the most time in a window, in one query."""
    since = now - timedelta(hours=window.hours)
    sums = (
        _since(alias, since)
        .values("task_path")
        .annotate(
            total=Sum("run_seconds"),
            longest=Max("run_longest"),
            **{f"n_{name}": Sum(name) for name in ("successful", "failed", "cancelled", "retried")},
            **{f"n_{name}": Sum(name) for name in RUN_BINS},
        )
        .order_by("-total")[:limit]
    )
    found = []
    for row in sums:
        bins = [row[f"n_{name}"] for name in RUN_BINS]
        outcomes = ("n_successful", "n_failed", "n_cancelled", "n_retried")
        found.append(
            TaskSums(
                task_path=row["task_path"],
                runs=sum(row[name] for name in outcomes),
                failed=row["n_failed"],
                run_seconds=row["total"],
                longest=row["longest"],
                p50=percentile(bins, 0.5),
                p95=percentile(bins, 0.95),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Ended:
    """How many tasks ended lately, and how many of them failed."""

    count: int
    failed: int

    @property
    def failure_share(self) -> float | None:
        """Return the share of them that failed, None if none ended."""
        return self.failed / self.count if self.count else None


def read_ended(alias: str, spans: Sequence[float], *, now: datetime) -> list[Ended]:
    """Return what ended within each of some spans of seconds up to now, in one query."""
    sums: dict[str, Any] = {}
    for number, seconds in enumerate(spans):
        within = Q(start__gte=now - timedelta(seconds=seconds))
        sums[f"count_{number}"] = Sum(F("successful") + F("failed") + F("cancelled"), filter=within)
        sums[f"failed_{number}"] = Sum("failed", filter=within)
    row = _since(alias, now - timedelta(seconds=max(spans))).aggregate(**sums)
    return [
        Ended(row[f"count_{number}"] or 0, row[f"failed_{number}"] or 0)
        for number in range(len(spans))
    ]


def task_names(alias: str, *, now: datetime, limit: int = 200) -> list[str]:
    """Return the paths of tasks that ran within a day: from the buckets, not from the tasks."""
    rows = _since(alias, now - timedelta(days=1)).values("task_path").annotate(last=Max("start"))
    return [row["task_path"] for row in rows.order_by("task_path")[:limit]]


def _since(alias: str, since: datetime) -> Any:
    return Bucket.objects.using(alias).filter(start__gte=since).order_by()


def _summed(histograms: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*histograms, strict=True)] or [0] * BINS
