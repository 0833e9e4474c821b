"""What the site's own users are told of a task or a workflow."""

from __future__ import annotations

from math import ceil, isfinite
from typing import Any

from asgiref.sync import sync_to_async
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..compat import TaskResultStatus
from ..models.workflow import WorkflowStatus
from ..states import FinalStatus, LiveStatus
from ..untrusted import visible
from ..workflows.handle import WorkflowResult
from ..workflows.standins import WorkflowInMemory

Workflows = WorkflowResult | WorkflowInMemory

#: Seconds that an attempt has taken before the time left is guessed from it.
_LEAST_SPENT = 2.0

_WAITING = gettext_lazy("Waiting to start")
_TEXTS: dict[str, Any] = {
    LiveStatus.SCHEDULED: _WAITING,
    LiveStatus.WAITING: _WAITING,
    LiveStatus.READY: _WAITING,
    LiveStatus.RUNNING: gettext_lazy("In progress"),
    FinalStatus.SUCCESSFUL: gettext_lazy("Done"),
    FinalStatus.FAILED: gettext_lazy("Something went wrong"),
    FinalStatus.CANCELLED: gettext_lazy("Cancelled"),
}


def progress_of(result: Any) -> dict[str, Any]:
    """
    Return how far a task or a workflow is, as JSON can hold it.

    result is what enqueue(), get_result() or get_workflow() returned. Of a task
    nothing is read again: refresh() it first. Of a workflow that runs, the
    number of its finished tasks is read, in one query. The keys are:

    - state, as result.state; status, the one of four that Django knows;
    - text, the state in words, and detail, the figures in words, translated;
    - finished: whether nothing more will change; failed: whether it ended
      otherwise than successful;
    - progress: current, total, message, fraction (0 to 1) and seconds_left, as
      of the last report; each is None, message "", where nobody knows.
    """
    if isinstance(result, Workflows):
        figures = _figures(result.done, result.size, "")
        status = _status_of(result)
        state = str(result.state)
        text = str(_TEXTS[state])
        count = ngettext(
            "%(current)s of %(total)s step", "%(current)s of %(total)s steps", result.size
        )
    else:
        figures = _reported(result)
        status = result.status
        state = str(getattr(result, "state", status.value))
        text = _text(state, result)
        count = _("%(current)s of %(total)s")
    if status == TaskResultStatus.SUCCESSFUL:
        figures["fraction"] = 1.0
    return {
        "state": state,
        "status": str(status.value),
        "text": text,
        "detail": _detail(figures, count, is_final=bool(result.is_finished)),
        "finished": bool(result.is_finished),
        "failed": status == TaskResultStatus.FAILED,
        "progress": figures,
    }


async def aprogress_of(result: Any) -> dict[str, Any]:
    """See progress_of()."""
    return await sync_to_async(progress_of, thread_sensitive=True)(result)


def _status_of(workflow: Workflows) -> TaskResultStatus:
    if workflow.state == WorkflowStatus.CANCELLED:
        return TaskResultStatus.FAILED
    return TaskResultStatus(workflow.state)


def _text(state: str, result: Any) -> str:
    if state in LiveStatus.values and state != LiveStatus.RUNNING and result.attempts:
        return _("Waiting for another try")
    return str(_TEXTS[state])


# Figures


def _figures(current: Any, total: Any, message: str) -> dict[str, Any]:
    current, total = _number(current), _number(total)
    fraction = None
    if current is not None and total is not None and total > 0:
        fraction = round(min(max(current / total, 0.0), 1.0), 4)
    return {
        "current": current,
        "total": total,
        "message": message,
        "fraction": fraction,
        "seconds_left": None,
    }


def _reported(result: Any) -> dict[str, Any]:
    said = getattr(result, "progress", None)
    if not isinstance(said, dict):
        return _figures(None, None, "")
    figures = _figures(said.get("current"), said.get("total"), visible(said.get("message") or ""))
    if result.status == TaskResultStatus.RUNNING and figures["fraction"]:
        figures["seconds_left"] = _seconds_left(
            figures["fraction"], result.last_attempted_at, _number(said.get("at"))
        )
    return figures


def _number(value: Any) -> int | float | None:
    """Return a number that can be computed with, None for whatever else a task has said."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if isfinite(value) else None
    except OverflowError:
        return None


def _seconds_left(fraction: float, began: Any, at: float | None) -> int | None:
    """
    Return the seconds from the report at until the end, if it goes on as it went.

    Not from now: the answer stays the same until there is another report.
    """
    if began is None or at is None:
        return None
    spent = at - began.timestamp()
    # A report from before is that of another attempt.
    return None if spent < _LEAST_SPENT else ceil(spent * (1 - fraction) / fraction)


# Words


def _detail(figures: dict[str, Any], count: str, *, is_final: bool) -> str:
    """Return the figures as "47 of 120 · Importing rows · about 2 min left"."""
    current, total = figures["current"], figures["total"]
    parts = []
    if current is not None and total is not None:
        parts.append(count % {"current": _shown(current), "total": _shown(total)})
    elif current is not None:
        parts.append(_shown(current))
    parts.append(figures["message"])
    if figures["seconds_left"] is not None and not is_final:
        parts.append(_left(figures["seconds_left"]))
    return " · ".join(part for part in parts if part)


def _shown(number: int | float) -> str:
    return number_format(float(f"{number:.4g}") if isinstance(number, float) else number)


def _left(seconds: int) -> str:
    if seconds < 60:
        return _("less than a minute left")
    if seconds < 5_400:
        return _("about %(number)s min left") % {"number": round(seconds / 60)}
    return _("about %(number)s h left") % {"number": number_format(round(seconds / 3_600))}
