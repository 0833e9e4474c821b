"""What stands below "when": the sentence, the next runs, and what the clocks will do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models.schedule import Schedule
from ..schedules.clock_changes import clock_changes, upcoming
from ..schedules.words import describe
from ..timetables import TimetableError, read, zone_of
from .display import visible

_FORMAT = "D Y-m-d H:i:s"


def preview_data(expression: str, zone_name: str, row: Schedule | None = None) -> dict[str, Any]:
    """
    Return the sentence, the next runs and the notes, or an error, as texts.

    With a row its own start, end and number of runs count.
    """
    if not expression.strip():
        return {"sentence": "", "runs": [], "notes": [], "error": ""}
    now = timezone.now()
    try:
        zone = zone_of(zone_name)
        timetable = read(expression, anchor=row.start_at if row is not None else None)
        planned = row is not None and row.pk is not None and row.next_due_at is not None
        times = row.upcoming(5) if row is not None and planned else upcoming(timetable, zone, now)
        notes = list(clock_changes(timetable, zone, now))
    except (TimetableError, OverflowError) as error:
        return {"sentence": "", "runs": [], "notes": [], "error": visible(error)}
    here = timezone.get_current_timezone_name()
    return {
        "sentence": describe(expression),
        "runs": [_both(moment, zone, zone_name, here) for moment in times],
        "notes": [f"{_day(change.at, zone)}: {change.text}" for change in notes],
        "error": "" if times else _("It is not due any more."),
    }


def _both(moment: datetime, zone: Any, name: str, here: str) -> str:
    """Return a moment on the schedule's clock, and on the viewer's if that is another one."""
    theirs = date_format(moment.astimezone(zone), _FORMAT)
    if name == here:
        return theirs
    mine = date_format(timezone.localtime(moment), _FORMAT)
    return _("%(theirs)s, %(mine)s in %(here)s") % {"theirs": theirs, "mine": mine, "here": here}


def _day(moment: datetime, zone: Any) -> str:
    return date_format(moment.astimezone(zone), "j M Y")


def preview_html(expression: str, zone: str, row: Schedule | None, *, address: str) -> SafeString:
    """Return the same as HTML, for a page without JavaScript; the script finds it by address."""
    data = preview_data(expression, zone, row)
    return format_html(
        '<div data-bgt-preview="{}" aria-live="polite">'
        '<div data-bgt-part="error">{}</div><div data-bgt-part="sentence">{}</div>'
        '<ul data-bgt-part="runs">{}</ul><ul data-bgt-part="notes">{}</ul></div>',
        address,
        data["error"],
        data["sentence"],
        _items(data["runs"]),
        _items(data["notes"]),
    )


def _items(texts: list[str]) -> SafeString:
    return format_html_join("", "<li>{}</li>", ((text,) for text in texts))
