"""What the coming changes of the clocks do to a schedule, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..cron import ALIASES, first_instant, offset_changes
from ..timetables import CronTimetable, Timetable

_SECOND = timedelta(seconds=1)
_YEAR = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the clocks that a run meets, and what it does about it."""

    at: datetime
    text: str


def clock_changes(timetable: Timetable, zone: ZoneInfo, now: datetime) -> Iterator[Change]:
    """Yield the changes of the coming year's clocks within which something is due."""
    if not timetable.is_local or _is_hourly(timetable):
        return  # What comes every hour goes on through them.
    wild = isinstance(timetable, CronTimetable) and timetable.cron.is_wild
    for year in (now.year, now.year + 1):
        for at in offset_changes(zone, year):
            if not now < at <= now + _YEAR:
                continue
            before = (at - _SECOND).astimezone(zone).utcoffset() or timedelta(0)
            after = at.astimezone(zone).utcoffset() or timedelta(0)
            first, last = sorted((at + before, at + after))
            # Clock times as if they were UTC, where none is missing.
            times = list(timetable.between(first, last - _SECOND, ZoneInfo("UTC")))
            if times:
                yield Change(at, _what_happens(times, zone, skipped=after > before, wild=wild))


def _what_happens(times: list[datetime], zone: ZoneInfo, *, skipped: bool, wild: bool) -> str:
    """Return what becomes of times that the clock skips, or shows twice."""
    count = len(times)
    shown = f"{times[0]:%H:%M}"
    if count > 1:
        shown = _("%(count)d times from %(first)s to %(last)s") % {
            "count": count,
            "first": shown,
            "last": f"{times[-1]:%H:%M}",
        }
    run = first_instant(times[0].replace(tzinfo=None), zone).astimezone(zone)
    said = {"times": shown, "run": f"{run:%H:%M}", "offset": run.isoformat()[-6:]}
    if skipped and wild:
        text = ngettext(
            "%(times)s doesn't exist: it is left out.",
            "%(times)s don't exist: they are left out.",
            count,
        )
    elif skipped:
        text = ngettext(
            "%(times)s doesn't exist: one run at %(run)s instead.",
            "%(times)s don't exist: one run at %(run)s instead.",
            count,
        )
    elif wild:
        text = ngettext(
            "%(times)s comes twice: it runs both times.",
            "%(times)s come twice: they run both times.",
            count,
        )
    else:
        text = ngettext(
            "%(times)s comes twice: it runs the first time, at %(offset)s.",
            "%(times)s come twice: they run the first time, at %(offset)s.",
            count,
        )
    return text % said


def _is_hourly(timetable: Timetable) -> bool:
    text = ALIASES.get(timetable.text.lower(), timetable.text)
    return isinstance(timetable, CronTimetable) and text.split()[1] == "*"


def upcoming(timetable: Timetable, zone: ZoneInfo, now: datetime, count: int = 5) -> list[datetime]:
    """Return the next due times after now, in UTC."""
    found: list[datetime] = []
    due = timetable.after(now.astimezone(UTC), zone)
    while due is not None and len(found) < count:
        found.append(due)
        due = timetable.after(due, zone)
    return found
