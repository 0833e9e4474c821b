"""The attempts of a task as bars on one axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models.record import TaskRecord
from ..states import FinalStatus, LiveStatus
from .badges import BAD, IDLE, OK, RUN, WARN
from .display import duration, visible

#: Units of the axis, in which the drawing is stretched, and the thinnest bar in them.
WIDTH, THINNEST = 1000.0, 4.0
#: Attempts that are drawn, the newest.
MOST = 20
#: Parts of the axis that have a time of their own.
TICKS = 4
#: The words of the colours, in the order of the legend.
MEANINGS: dict[str, Any] = {
    IDLE: gettext_lazy("waiting"),
    RUN: gettext_lazy("running"),
    OK: gettext_lazy("successful"),
    BAD: gettext_lazy("failed"),
    WARN: gettext_lazy("ended"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """What a task did between two moments."""

    color: str
    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """How long it took, never less than nothing."""
        return max(0.0, (self.end - self.begin).total_seconds())


@dataclass(frozen=True, slots=True)
class Bar:
    """A span as SVG has it: numbers as text, whatever the language writes them like."""

    color: str
    x: str
    width: str


@dataclass(slots=True)
class Row:
    """A line of the picture; words say the same for who doesn't see it."""

    label: str
    spans: list[Span] = field(default_factory=list)
    words: str = ""
    bars: list[Bar] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One attempt: begin and end may be unknown.

    error is its entry in errors, None for the one that runs, or has ended well.
    """

    number: Any
    color: str
    begin: datetime | None
    end: datetime | None
    worker: str
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Rows from the enqueue until now, or the end; ticks are the times below them."""

    rows: list[Row]
    ticks: list[str]
    legend: list[tuple[str, str]]
    left_out: int


def attempts_of(row: TaskRecord, now: datetime) -> list[Attempt]:
    """Return the attempts of a task that are known, oldest first."""
    found = [
        Attempt(
            error.get("attempt", "?"),
            WARN if str(error.get("exception_class_path")).endswith(".WorkerLost") else BAD,
            _moment(error.get("started_at")),
            _moment(error.get("ended_at")),
            str(error.get("worker_id") or ""),
            error,
        )
        for error in (row.errors if isinstance(row.errors, list) else [])
        if isinstance(error, dict)
    ]
    latest = _latest(row, now)
    if latest is not None and (not found or found[-1].number != row.attempt):
        found.append(latest)
    return found


def _latest(row: Any, now: datetime) -> Attempt | None:
    """Return the attempt that runs, or that ended the task without an error."""
    begin = row.last_attempted_at
    if not row.attempt or begin is None:
        return None
    if row.status == LiveStatus.RUNNING:
        return Attempt(row.attempt, RUN, begin, now, row.worker_id)
    if row.status in FinalStatus.values:
        color = {FinalStatus.SUCCESSFUL: OK, FinalStatus.FAILED: BAD}.get(row.status, WARN)
        return Attempt(row.attempt, color, begin, row.finished_at, row.worker_id)
    return None


def timeline(row: TaskRecord, now: datetime) -> Timeline | None:
    """Return the picture of a task, None while there is nothing to draw."""
    begin, end = row.enqueued_at, getattr(row, "finished_at", None) or now
    every = attempts_of(row, now)
    shown = every[-MOST:]
    rows = list(_rows(row, shown, end, whole=len(shown) == len(every)))
    if len(shown) < len(every) and shown[0].begin is not None:
        begin = shown[0].begin
    total = (end - begin).total_seconds()
    if total <= 0:
        return None
    for line in rows:
        line.bars = [_bar(span, begin, total) for span in line.spans]
    drawn = {span.color for line in rows for span in line.spans}
    return Timeline(
        rows,
        [_tick(begin, total, place) for place in range(TICKS + 1)],
        [(color, str(word)) for color, word in MEANINGS.items() if color in drawn],
        len(every) - len(shown),
    )


def _rows(row: Any, attempts: list[Attempt], end: datetime, *, whole: bool) -> Iterator[Row]:
    begins = [attempt.begin for attempt in attempts] + [
        None if row.status in (*FinalStatus.values, LiveStatus.RUNNING) else end
    ]
    if whole:
        first = next((begin for begin in begins if begin is not None), end)
        queued = Span(IDLE, row.enqueued_at, first)
        yield Row(_("queued"), [queued], _("waited %(time)s") % {"time": duration(queued.seconds)})
    for index, attempt in enumerate(attempts):
        line = Row(_("attempt %(number)s") % {"number": visible(attempt.number)})
        if attempt.begin is None or attempt.end is None:
            yield line
            continue
        ran = Span(attempt.color, attempt.begin, attempt.end)
        line.spans.append(ran)
        line.words = f"{duration(ran.seconds)} {MEANINGS[attempt.color]}"
        after = next((begin for begin in begins[index + 1 :] if begin is not None), None)
        if after is not None and after > attempt.end:
            line.spans.append(Span(IDLE, attempt.end, after))
        yield line


def _bar(span: Span, begin: datetime, total: float) -> Bar:
    share = (span.begin - begin).total_seconds() / total
    x = min(max(share, 0.0) * WIDTH, WIDTH - THINNEST)
    width = min(max(span.seconds / total * WIDTH, THINNEST), WIDTH - x)
    return Bar(span.color, f"{x:.1f}", f"{width:.1f}")


def _tick(begin: datetime, total: float, place: int) -> str:
    if place == 0:
        return date_format(timezone.localtime(begin), "H:i:s")
    return f"+{duration(total * place / TICKS)}"


def _moment(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if timezone.is_aware(found) else None
