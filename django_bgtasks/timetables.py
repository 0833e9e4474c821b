"""
When a schedule is due: by a cron expression, at an interval, or once.

Pure functions of the text, the time zone and a moment: nothing is remembered,
so any worker can go on where another one stopped.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from .conf import suggestion
from .cron import Cron, CronError, first_instant

#: Intervals are counted from here, unless a schedule has a start: a Monday, so that
#: "every week" begins with the week. UTC.
EPOCH = datetime(1970, 1, 5, tzinfo=UTC)
MAX_LENGTH = 255
LONGEST = timedelta(days=3660)

_TICK = timedelta(microseconds=1)
_UNITS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_SHORT = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "d": "day", "w": "week"}
_PART = re.compile(r"(?:(\d{1,9})\s*)?([a-z]+)")
_EXAMPLES = "'0 2 * * 1-5', '@daily', 'every 15 minutes' or 'at 2027-01-01 08:00'"


class TimetableError(ValueError):
    """What says when a schedule is due can't be read, or is never due."""


class Timetable(ABC):
    """When something is due. text is its canonical form, which read() understands."""

    text: str
    #: Whether the local time of a zone matters.
    is_local = True

    @abstractmethod
    def after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the first due time after an aware moment, in UTC; None if there is none."""

    @abstractmethod
    def before(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """Return the last due time at or before an aware moment, in UTC; None if there is none."""

    def between(self, start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Yield the due times from start to end, both included."""
        due = self.after(start - _TICK, zone)
        while due is not None and due <= end:
            yield due
            due = self.after(due, zone)


class CronTimetable(Timetable):
    """The times of a cron expression, on the clock of a zone."""

    def __init__(self, expression: str) -> None:
        try:
            self.cron = Cron(expression)
        except CronError as error:
            raise TimetableError(str(error)) from None
        self.text = self.cron.expression

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        return self.cron.after(moment, zone)

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        return self.cron.before(moment, zone)


class Interval(Timetable):
    """
    Every so many seconds, counted from an anchor and so without drift.

    In UTC: an interval knows no daylight saving.
    """

    is_local = False

    def __init__(self, every: timedelta, anchor: datetime | None = None) -> None:
        if every < timedelta(seconds=1) or every.microseconds or every > LONGEST:
            raise TimetableError(
                f"An interval is at least 1 second, in whole seconds, and at most ten years; "
                f"{_in_words(every)} is not."
            )
        self.every = every
        self.anchor = (anchor or EPOCH).astimezone(UTC)
        self.text = f"every {_in_words(every)}"

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        steps = (moment - self.anchor) // self.every + 1
        return self.anchor + steps * self.every

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        return self.anchor + (moment - self.anchor) // self.every * self.every


#: Years in which every zone's clock can be computed with.
YEARS = range(1970, 9000)
OUT_OF_REACH = f"A time lies between the years {YEARS[0]} and {YEARS[-1]}"


def is_within_reach(moment: datetime) -> bool:
    """Say whether schedules can compute with a time."""
    return moment.year in YEARS


class Once(Timetable):
    """One time: of a zone's clock if it is naive, else an instant."""

    def __init__(self, at: datetime) -> None:
        if not is_within_reach(at):
            raise TimetableError(f"{OUT_OF_REACH}, not {at.isoformat(' ', 'minutes')}.")
        self.at = at
        self.is_local = at.tzinfo is None
        if at.tzinfo is not None:
            self.at = at.astimezone(UTC)
        text = self.at.isoformat(" ", "microseconds" if self.at.microsecond else "seconds")
        self.text = f"at {text}"

    def _instant(self, zone: ZoneInfo) -> datetime:
        return first_instant(self.at, zone) if self.at.tzinfo is None else self.at

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        instant = self._instant(zone)
        return instant if instant > moment else None

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        instant = self._instant(zone)
        return instant if instant <= moment else None


def read(when: Any, *, anchor: datetime | None = None) -> Timetable:
    """
    Return the timetable of a text, a timedelta or a datetime.

    A text is a cron expression of five fields, an alias such as "@daily",
    "every 15 minutes", or "at 2027-01-01 08:00". anchor is what intervals are
    counted from, the Unix epoch's first Monday if None. Raise TimetableError.
    """
    if isinstance(when, Timetable):
        return when
    if isinstance(when, timedelta):
        return Interval(when, anchor)
    if isinstance(when, datetime):
        return Once(when)
    if not isinstance(when, str) or not when.strip():
        raise TimetableError(f"When is it due? Write {_EXAMPLES}, not {when!r}.")
    if len(when) > MAX_LENGTH:
        raise TimetableError(f"What says when has at most {MAX_LENGTH} characters.")
    return _read_text(" ".join(when.split()), anchor)


@lru_cache(maxsize=10_000)
def _read_text(text: str, anchor: datetime | None) -> Timetable:
    lower = text.lower()
    if lower.startswith("every"):
        return Interval(_read_interval(lower[5:].strip(), text), anchor)
    if lower.startswith("at ") or re.match(r"\d{4}-", text):
        given = text[3:] if lower.startswith("at ") else text
        try:
            return Once(datetime.fromisoformat(given.strip()))
        except ValueError:
            raise TimetableError(
                f"{text!r} is no date with a time. Write it like 'at 2027-01-01 08:00'."
            ) from None
    if re.match(r"[a-z]{2,}", lower) and not re.match(r"[a-z]{3}\b", lower):
        raise TimetableError(f"{text!r} says no time. Write {_EXAMPLES}.")
    return CronTimetable(text)


def _read_interval(text: str, whole: str) -> timedelta:
    total = timedelta(0)
    rest = text.replace(",", " ").replace(" and ", " ").strip()
    while rest:
        match = _PART.match(rest)
        unit = match and (_SHORT.get(match[2]) or match[2].removesuffix("s"))
        if not match or unit not in _UNITS:
            raise TimetableError(
                f"{whole!r} is no interval. Write it like 'every 15 minutes'; the units are "
                "seconds, minutes, hours, days and weeks."
            )
        try:
            total += int(match[1] or 1) * _UNITS[str(unit)]
        except OverflowError:
            total = LONGEST + _UNITS["day"]
            break
        rest = rest[match.end() :].strip()
    if not total:
        raise TimetableError(f"{whole!r} is no interval. Write it like 'every 15 minutes'.")
    return total


def _in_words(every: timedelta) -> str:
    """Return an interval in its largest whole unit: "90 minutes", "1 week"."""
    for name in ("week", "day", "hour", "minute", "second"):
        unit = _UNITS[name]
        if every and every % unit == timedelta(0):
            count = every // unit
            return f"{count} {name}{'s' * (count != 1)}"
    return f"{every.total_seconds():g} seconds"


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database. Raise TimetableError."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, TypeError, KeyError):
        hint = suggestion(str(name), available_timezones())
        raise TimetableError(
            f"Unknown time zone {name!r}.{hint or ' Write it like Europe/Warsaw.'}"
        ) from None
