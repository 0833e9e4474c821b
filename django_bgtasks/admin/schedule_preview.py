"""What stands below "when": the sentence, the next runs, and what the clocks will do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models.schedule import Schedule
from ..schedules.clock_changes import clock_changes
from ..schedules.words import describe
from ..timetables import TimetableError, zone_of
from .display import visible

_FORMAT = "D Y-m-d H:i:s"
#: Runs that may be typed in: what the column takes.
MOST = 2**31 - 1


def preview_data(row: Schedule) -> dict[str, Any]:
    """
    Return the sentence, the next runs and the notes, or an error, as texts.

    The row may be one that is being typed in: when, time zone, start, end and the
    numbers of runs are all that is read.
    """
    if not row.expression.strip():
        return {"sentence": "", "runs": [], "notes": [], "error": ""}
    now = timezone.now()
    try:
        zone = zone_of(row.time_zone)
        times = row.upcoming(5, after=now)
        here = timezone.get_current_timezone_name()
        runs = [_both(moment, zone, row.time_zone, here) for moment in times]
        notes = [
            f"{_day(change.at, zone)}: {change.text}"
            for change in clock_changes(row.timetable, zone, now)
            if _is_within(row, change.at)
        ]
    except (TimetableError, OverflowError, ValueError) as error:
        return {"sentence": "", "runs": [], "notes": [], "error": visible(error)}
    return {
        "sentence": describe(row.expression),
        "runs": runs,
        "notes": notes,
        "error": "" if times else _("It is not due any more."),
    }


def _is_within(row: Schedule, moment: datetime) -> bool:
    """Say whether a moment lies between start and end, as far as there are any."""
    return (row.start_at is None or moment >= row.start_at) and (
        row.end_at is None or moment <= row.end_at
    )


def _both(moment: datetime, zone: Any, name: str, here: str) -> str:
    """Return a moment on the schedule's clock, and on the viewer's if that is another one."""
    theirs = date_format(moment.astimezone(zone), _FORMAT)
    if name == here:
        return theirs
    mine = date_format(timezone.localtime(moment), _FORMAT)
    return _("%(theirs)s, %(mine)s in %(here)s") % {"theirs": theirs, "mine": mine, "here": here}


def _day(moment: datetime, zone: Any) -> str:
    return date_format(moment.astimezone(zone), "j M Y")


def preview_html(row: Schedule, *, address: str) -> SafeString:
    """
    Return the same as HTML, for a page without JavaScript; the script finds it by address.

    It asks with what is typed, and with the number of runs that there were.
    """
    data = preview_data(row)
    return format_html(
        '<div data-bgt-preview="{}" data-bgt-runs="{}" aria-live="polite">'
        '<div data-bgt-part="error">{}</div><div data-bgt-part="sentence">{}</div>'
        '<ul data-bgt-part="runs">{}</ul><ul data-bgt-part="notes">{}</ul></div>',
        address,
        row.runs,
        data["error"],
        data["sentence"],
        _items(data["runs"]),
        _items(data["notes"]),
    )


class PreviewForm(forms.Form):
    """What the script asks with; a field that isn't complete yet counts as empty."""

    expression = forms.CharField(max_length=255, required=False)
    time_zone = forms.CharField(max_length=64, required=False)
    start_at = forms.SplitDateTimeField(required=False)
    end_at = forms.SplitDateTimeField(required=False)
    max_runs = forms.IntegerField(required=False, min_value=1, max_value=MOST)
    runs = forms.IntegerField(required=False, min_value=0, max_value=MOST)

    def row(self) -> Schedule:
        """Return a row that is not saved, as far as it can be read."""
        self.is_valid()
        given = {name: value for name, value in self.cleaned_data.items() if value is not None}
        return Schedule(**given)


def _items(texts: list[str]) -> SafeString:
    return format_html_join("", "<li>{}</li>", ((text,) for text in texts))
