"""
Cron expressions: read, checked, and when they are due, through daylight saving.

The language and its behaviour at skipped and repeated local times are those of
Debian's cron(8). croniter finds matching wall-clock times, on naive datetimes
alone; what it gets wrong is worked around here and nowhere else: ranges and
names are expanded before it sees them (it reads "9-9" as every hour and
weekday "7/1" as every day), and the way from the wall clock to an instant is
ours (it runs "30 2 * * *" twice in the night when 02:30 comes twice).
docs/schedules.md has the rules, tests/test_cron_oracle.py compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple

from croniter import CroniterBadDateError, croniter

MAX_LENGTH = 255

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_SECOND = timedelta(seconds=1)
#: Zones change their offsets at most once in such a time, but for corrections of history.
_STEP = timedelta(hours=6)
#: Half of the time in which a clock that shows the same offset has not changed.
_AROUND = timedelta(hours=12)


class CronError(ValueError):
    """An expression can't be read, or never comes."""


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def span(self) -> str:
        return f"{self.low} to {self.high}"


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)
_DOM, _DOW = 2, 4


class Cron:
    """
    One expression.

    Raise CronError for one that is invalid, or that never comes, as 30 February.
    """

    def __init__(self, expression: str) -> None:
        self.expression = " ".join(expression.split()) if isinstance(expression, str) else ""
        fields = _split(expression)
        #: Whether it follows the clock: its minute or hour begins with a star.
        self.is_wild = fields[0].startswith("*") or fields[1].startswith("*")
        self._matched = _normalised(fields, self.expression)
        if self._following(datetime(2000, 1, 1)) is None:
            raise CronError(f"{self.expression!r} never comes: there is no such day.")

    def __repr__(self) -> str:
        return f"Cron({self.expression!r})"

    # Instants

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """
        Return the first due instant after an aware moment, in UTC; None if there is none.

        A pure function: no state survives, so that any scheduler may go on
        anywhere.
        """
        moment = moment.astimezone(UTC)
        return self._wild_after(moment, zone) if self.is_wild else self._fixed_after(moment, zone)

    def before(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return the last due instant at or before an aware moment, in UTC."""
        moment = moment.astimezone(UTC)
        if (found := self._plainly_before(moment, zone)) is not None:
            return found
        # Later than any wall clock of that moment: a repeated hour, or two, are looked at again.
        wall = _wall(moment, zone) + timedelta(hours=3)
        while True:
            previous = self._preceding(wall)
            if previous is None:
                return None
            found = None
            start = first_instant(previous, zone) - _SECOND
            while (due := self.after(start, zone)) is not None and due <= moment:
                found = start = due
            if found is not None:
                return found
            wall = previous

    def _plainly_before(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Do as before() where no clock changes and the time is near; else return None."""
        offset = moment.astimezone(zone).utcoffset() or timedelta(0)
        if any(
            (moment + away).astimezone(zone).utcoffset() != offset for away in (-_AROUND, _AROUND)
        ):
            return None
        previous = self._preceding(_wall(moment, zone) + timedelta(microseconds=1))
        if previous is None:
            return None
        due = previous.replace(tzinfo=UTC) - offset
        if not self.is_wild and first_instant(previous, zone) != due:
            return None  # The second pass of a time that came twice.
        return due if moment - due < _AROUND else None

    def _fixed_after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Each matching wall-clock time once: at its first pass, or right after its gap."""
        wall: datetime | None = _wall(moment, zone)
        while wall is not None:
            wall = self._following(wall)
            if wall is not None and (due := first_instant(wall, zone)) > moment:
                return due
        return None

    def _wild_after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Each instant whose wall clock matches: both passes, and nothing in a gap."""
        for start, end in _spans(moment, zone):
            # In a span the offset stays, so wall clock and instants go in step.
            offset = start.astimezone(zone).utcoffset() or timedelta(0)
            wall = (start + offset).replace(tzinfo=None)
            if start > moment:
                wall -= _SECOND  # The first instant of a later span counts.
            following = self._following(wall)
            if following is None:
                return None
            due = following.replace(tzinfo=UTC) - offset
            if end is None or due < end:
                return due
        return None

    # Wall-clock times

    def _following(self, wall: datetime) -> datetime | None:
        """Return the first matching wall-clock time after a naive one."""
        try:
            found: datetime = self._iterator(wall).get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return None
        return found

    def _preceding(self, wall: datetime) -> datetime | None:
        """Return the last matching wall-clock time before a naive one."""
        try:
            found: datetime = self._iterator(wall).get_prev(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return None
        return found

    def _iterator(self, wall: datetime) -> croniter:
        # With implement_cron_bug a day field that begins with a star must match, too,
        # as in Debian's cron; without a star in either one of the two is enough.
        return croniter(self._matched, wall, implement_cron_bug=True)


# Wall clock and instants


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def first_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Return when, in UTC, a wall clock shows a time first; for one in a gap the end of the gap."""
    aware = wall.replace(tzinfo=zone, fold=0)
    instant = aware.astimezone(UTC)
    if _wall(instant, zone) == wall:
        return instant
    # In a gap fold=0 takes the offset before it and so lands after it; fold=1 before.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _change_between(before, instant, zone)


def _change_between(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """Return the first instant with another offset than low's, which high has not."""
    offset = low.astimezone(zone).utcoffset()
    low, high = low.replace(microsecond=0), high.replace(microsecond=0) + _SECOND
    while high - low > _SECOND:
        middle = low + ((high - low) // 2 // _SECOND) * _SECOND
        if middle.astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high


def _spans(moment: datetime, zone: tzinfo) -> Iterator[tuple[datetime, datetime | None]]:
    """Yield the spans of one offset from moment on: start and end, None for open ones."""
    start, year = moment, moment.year
    while year < moment.year + 60:
        for change in offset_changes(zone, year):
            if change > start:
                yield start, change
                start = change
        year += 1
        if year > 2037 and year > moment.year + 12 and not offset_changes(zone, year):
            break  # What comes every year would have come.
    yield start, None


@lru_cache(maxsize=2048)
def offset_changes(zone: tzinfo, year: int) -> tuple[datetime, ...]:
    """Return the instants of a year, in UTC, at which the offset of a zone changes."""
    found = []
    moment = datetime(year, 1, 1, tzinfo=UTC)
    offset = moment.astimezone(zone).utcoffset()
    end = datetime(year + 1, 1, 1, tzinfo=UTC)
    while moment < end:
        following = min(moment + _STEP, end)
        if (new := following.astimezone(zone).utcoffset()) != offset:
            found.append(_change_between(moment, following, zone))
            offset = new
        moment = following
    return tuple(found)


# Reading


def _split(expression: str) -> list[str]:
    if not isinstance(expression, str):
        raise CronError(f"A cron expression is a string, not {expression!r}.")
    if len(expression) > MAX_LENGTH:
        raise CronError(f"A cron expression has at most {MAX_LENGTH} characters.")
    if not expression.isascii():
        raise CronError(f"{expression!r} has characters that no cron expression has.")
    text = expression.strip().lower()
    if text.startswith("@"):
        if text not in ALIASES:
            raise CronError(
                f"{expression!r} is no alias that is known here ({', '.join(ALIASES)})."
                + (" Give an interval as every(...)." if text.startswith("@every") else "")
            )
        text = ALIASES[text]
    fields = text.split()
    if len(fields) == 6:
        raise CronError(
            f"{expression!r} has 6 fields. There is none for seconds, whose place the libraries "
            "disagree about: use every(seconds=...) or 'every 10 seconds'."
        )
    if len(fields) != 5:
        raise CronError(
            f"{expression!r} has {len(fields)} fields, not 5: minute, hour, day of month, month, "
            "day of week."
        )
    return fields


def _normalised(fields: list[str], expression: str) -> str:
    """Return what croniter is given: stars, lists of numbers, L, and weekday#number."""
    try:
        found = [_read(text, field) for text, field in zip(fields, _FIELDS, strict=True)]
    except CronError as error:
        raise CronError(f"{expression!r}: {error}") from None
    if fields[_DOM] not in ("*", "?") and re.search("[#l]", found[_DOW]):
        raise CronError(
            f"{expression!r}: a day of month and a weekday with # or L can't be combined."
        )
    return " ".join(found)


def _read(text: str, field: _Field) -> str:
    if text == "?" and field.name.startswith("day"):
        return "*"
    if text == "*":
        return text
    if text.startswith("*/"):
        step = _number(text[2:], field, step=True)
        # Kept as it is: a day field that begins with a star must match, too.
        return f"*/{step}"
    if field is _FIELDS[_DOM] and text in ("l", "last"):
        return "l"
    if field is _FIELDS[_DOW] and re.search("[#l]", re.sub("|".join(_DAYS), "", text)):
        return ",".join(_read_special(part, field) for part in text.split(","))
    values: set[int] = set()
    for part in text.split(","):
        values.update(_read_part(part, field))
    return ",".join(map(str, sorted(values)))


def _read_part(part: str, field: _Field) -> list[int]:
    if part.startswith("*"):
        raise CronError(f"a * within a list says nothing clear in the {field.name}.")
    if part in ("?", "l") or re.fullmatch(r"(\d*|l)[lw]|l-\d+", part):
        raise CronError(
            f"{part.upper()!r} can't stand in the {field.name} like this. "
            "L alone is the last day of the month, 5L as weekday the last Friday."
        )
    if re.fullmatch(r"[hr](\(.*\))?", part):
        raise CronError(
            f"{part.upper()!r} would be another time in each process; use jitter to spread runs."
        )
    span, slash, step_text = part.partition("/")
    step = _number(step_text, field, step=True) if slash else 1
    low_text, dash, high_text = span.partition("-")
    low = _number(low_text, field)
    if dash:
        high = _number(high_text, field)
    else:
        high = field.high if slash else low
    weekdays = field is _FIELDS[_DOW]
    if weekdays and not dash:
        # 7/1 is Sunday and no more; 6/1 is Saturday.
        low, high = low % 7, (6 if slash and low != 7 else low % 7)
    if low > high:
        if not weekdays:
            raise CronError(
                f"the range {span} of the {field.name} is reversed. Write it as two: "
                f"{low}-{field.high},{field.low}-{high}."
            )
        high += 7
    values = range(low, high + 1, step)
    return [value % 7 for value in values] if weekdays else list(values)


def _read_special(part: str, field: _Field) -> str:
    """Return 5#2, the second Friday, or l5, the last one, of 5l or l5."""
    day, sharp, which = part.partition("#")
    if sharp:
        if which not in ("1", "2", "3", "4", "5"):
            raise CronError(f"{part!r}: after # stands a number from 1 to 5.")
        return f"{_number(day, field) % 7}#{which}"
    if match := re.fullmatch(r"l([0-7])|([0-7]|sun|mon|tue|wed|thu|fri|sat)l", part):
        return f"l{_number(match[1] or match[2], field) % 7}"
    if "l" in part:
        raise CronError(f"{part.upper()!r} is no weekday. The last Friday is 5L.")
    raise CronError("weekdays with # or L can't be listed beside plain ones.")


def _number(text: str, field: _Field, *, step: bool = False) -> int:
    if step:
        if not re.fullmatch(r"\d{1,3}", text) or not int(text):
            raise CronError(f"{text!r} is no step of the {field.name}; it is at least 1.")
        return int(text)
    if text in field.names:
        return field.names.index(text) + field.low
    if not re.fullmatch(r"\d{1,3}", text) or not field.low <= int(text) <= field.high:
        also = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise CronError(f"{text!r} is no {field.name} ({field.span}{also}).")
    return int(text)
