"""What a run leaves behind beside its outcome: progress, labels, its log, its steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from django.db import models
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models.record import TaskRecord
from ..models.step import Step
from ..states import LiveStatus
from . import payload
from .display import about, lines, moment, relative, visible

#: Steps that a page shows, the newest, and characters of the value of each.
MOST_STEPS, MOST_VALUE = 100, 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task says it is; percent is None where it doesn't say of how much."""

    words: str
    percent: int | None


def progress(row: TaskRecord, now: datetime) -> Progress | None:
    """Return what a task says of its progress: "Importing rows · 47 of 120 · 3 s ago"."""
    said = payload.mapping(payload.mapping(row.notes).get("progress"))
    current, total, message = (said.get(name) for name in ("current", "total", "message"))
    count = ""
    if current is not None and total is not None:
        count = _("%(current)s of %(total)s") % {
            "current": _number(current),
            "total": _number(total),
        }
    elif current is not None:
        count = _number(current)
    if not (count or message):
        return None
    share = _share(current, total)
    parts = [visible(message or ""), count, _left(row, share, said.get("at"), now)]
    words = " · ".join(part for part in [*parts, _age(said.get("at"), now)] if part)
    return Progress(words, None if share is None else int(share * 100))


def _share(current: Any, total: Any) -> float | None:
    """Return how much of the whole is done, from 0 to 1."""
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in (current, total)):
        return None
    try:
        share = current / total
    except (ArithmeticError, ValueError):
        return None
    return min(max(share, 0.0), 1.0) if isfinite(share) else None


def _left(row: Any, share: float | None, at: Any, now: datetime) -> str:
    """Return how long a running task needs for the rest, at the rate it had until now."""
    if row.status != LiveStatus.RUNNING or not share or share == 1 or not row.last_attempted_at:
        return ""
    try:
        took = at - row.last_attempted_at.timestamp()
        seconds = took / share - (now.timestamp() - row.last_attempted_at.timestamp())
    except (TypeError, ArithmeticError):
        return ""
    if not took > 0 or not seconds > 0:
        return ""
    return _("about %(time)s left") % {"time": about(max(1, round(seconds)))}


def _number(value: Any) -> str:
    if isinstance(value, float) and isfinite(value):
        return number_format(float(f"{value:.4g}"))
    if isinstance(value, int) and not isinstance(value, bool):
        return number_format(value)
    return visible(value)


def _age(at: Any, now: datetime) -> str:
    try:
        return relative(datetime.fromtimestamp(at, UTC), now)
    except (TypeError, ValueError, OverflowError, OSError):
        return ""  # No time, or none that there is.


def labels(row: TaskRecord) -> SafeString | str:
    """Return what the task can be found by: what its run wrote down, else its definition."""
    noted = payload.mapping(row.notes).get("labels")
    given = payload.mapping(row.options).get("labels")
    # As results.build_result() has them.
    found = noted or given or getattr(payload.task_of(row), "labels", None)
    shown = payload.redact(payload.mapping(found), payload.secret_names())
    return lines(visible(f"{name}: {value}") for name, value in shown.items())


def log(row: TaskRecord) -> str:
    """Return what the attempt that ended the task has logged, "" if that is among its errors."""
    text = payload.mapping(row.notes).get("log")
    errors = row.errors if isinstance(row.errors, list) else []
    if not text or (errors and payload.mapping(errors[-1]).get("log") == text):
        return ""
    return str(text)


def steps_of(row: TaskRecord, *, values: bool) -> list[Step]:
    """Return the newest steps of a row, newest first; read once for a row."""
    found = row.__dict__.get("_steps_read")
    if found is None:
        rows: models.QuerySet[Step] = Step.objects.using(row._state.db).filter(task_id=row.pk)
        if not values:
            rows = rows.defer("value")
        # One more than is shown tells whether there are more.
        found = row.__dict__["_steps_read"] = list(rows.order_by("-pk")[: MOST_STEPS + 1])
    return found


def steps(row: TaskRecord, now: datetime, *, may_see: bool) -> SafeString | str:
    """Return the steps that are done, newest first; may_see what they returned."""
    found = steps_of(row, values=may_see)
    shown = []
    for step in found[:MOST_STEPS]:
        summary = format_html(
            "{} · {} · {}",
            visible(step.name),
            _("attempt %(number)s") % {"number": step.attempt},
            moment(step.made_at, now),
        )
        if may_see:
            value = payload.value(step.value, row, most=MOST_VALUE)
            shown.append(format_html("<details><summary>{}</summary>{}</details>", summary, value))
        else:
            shown.append(format_html("<div>{}</div>", summary))
    if len(found) > MOST_STEPS:
        text = _("Older steps are left out: these are the last %(count)d.") % {"count": MOST_STEPS}
        shown.append(format_html("<div>{}</div>", text))
    if not may_see:
        shown.append(format_html("<div>{}</div>", _("You may not see what steps returned.")))
    return format_html_join("", "{}", ((part,) for part in shown))
