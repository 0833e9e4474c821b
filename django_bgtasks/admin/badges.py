"""States as people see them: one word in one colour, the same on every page."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models.record import TaskRecord
from ..states import FinalStatus, LiveStatus

#: Classes of bgtasks.css.
OK, BAD, WARN, RUN, IDLE = "ok", "bad", "warn", "run", "idle"
OUTLINE = " bgt-outline"

COLORS: dict[str, str] = {
    LiveStatus.SCHEDULED: IDLE,
    LiveStatus.WAITING: IDLE,
    LiveStatus.READY: IDLE,
    LiveStatus.RUNNING: RUN,
    FinalStatus.SUCCESSFUL: OK,
    FinalStatus.FAILED: BAD,
    FinalStatus.CANCELLED: WARN + OUTLINE,
}


def badge(color: str, word: Any) -> SafeString:
    """Return a word with a dot, in one of the colours above."""
    return format_html(
        '<span class="bgt"><span class="bgt-badge bgt-{}">{}</span></span>', color, word
    )


def state_of(row: TaskRecord, now: datetime, *, asked_to_end: bool = False) -> tuple[str, str]:
    """Return the colour and the word of the state of a live or finished task."""
    live: Any = row
    status: str = live.status
    if status == LiveStatus.RUNNING:
        if asked_to_end:
            return WARN, _("Cancelling")
        if live.lease_until is not None and live.lease_until < now:
            return WARN, _("Lost")
    elif status == LiveStatus.SCHEDULED and live.failures:
        return WARN, _("Waiting to retry")
    elif status == LiveStatus.WAITING:
        return IDLE, _("Blocked")
    elif status == FinalStatus.CANCELLED and row.reason.startswith("Expired"):
        return WARN + OUTLINE, _("Expired")
    return COLORS[status], live.get_status_display()


def badge_of(row: TaskRecord, now: datetime, *, asked_to_end: bool = False) -> SafeString:
    """Return the badge of the state of a live or finished task."""
    return badge(*state_of(row, now, asked_to_end=asked_to_end))
