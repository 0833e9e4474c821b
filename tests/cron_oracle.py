"""Debian's cron by brute force: slow, short, and written without any cron library.

This is what `django_bgtasks.cron` is compared with (test_cron_oracle.py). It works in whole
numbers of minutes since 1970: a *UTC minute* counts real time, a *wall minute* counts what a
clock on the wall of the zone shows. The one question asked of zoneinfo is what that clock shows
at a UTC minute; skipped and repeated wall minutes then follow from counting.
"""

import itertools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = date(1970, 1, 1).toordinal()
MINUTE = timedelta(minutes=1)
HOUR_MINUTES, DAY_MINUTES = 60, 24 * 60
# Offsets reach from -12 to +14 hours: a wall day begins and ends this near to the UTC day.
FARTHEST_OFFSET = 16 * HOUR_MINUTES

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MONTH_NAMES = {name: number for number, name in enumerate(MONTHS, 1)}
WEEKDAY_NAMES = dict(zip(WEEKDAYS, range(7), strict=True))


class Rejected(ValueError):
    """The oracle takes the expression to be invalid."""


# The clock on the wall


class Clock:
    """What a clock on the wall of a zone shows, minute by minute."""

    def __init__(self, zone):
        self.zone = zone
        self._days = {}

    def offset(self, utc):
        """Minutes that the wall clock is ahead at this UTC minute."""
        offset = (EPOCH + utc * MINUTE).astimezone(self.zone).utcoffset()
        assert offset % MINUTE == timedelta(0), f"{self.zone} has an offset with seconds"
        return offset // MINUTE

    def shown(self, wall):
        """The UTC minutes at which the clock shows `wall`, in order.

        None at all in a gap, two in a repeated hour, else one.
        """
        day = self._day(wall // DAY_MINUTES)
        if isinstance(day, int):
            return (wall - day,)
        return day.get(wall, ())

    def after_gap(self, wall):
        """The first UTC minute after the gap in which `wall` lies."""
        while not self.shown(wall):
            wall += 1
        return self.shown(wall)[0]

    def _day(self, number):
        """The offset of a day that has but one, else the UTC minutes of each wall minute."""
        if number not in self._days:
            start = number * DAY_MINUTES - FARTHEST_OFFSET
            end = (number + 1) * DAY_MINUTES + FARTHEST_OFFSET
            # No zone changes its offset and back within an hour.
            offsets = {self.offset(utc) for utc in range(start, end + 1, HOUR_MINUTES)}
            self._days[number] = offsets.pop() if len(offsets) == 1 else self.walk(start, end)
        return self._days[number]

    def walk(self, start, end):
        """{wall minute: (UTC minutes that show it)}, by looking at the clock each minute."""
        shown = {}
        for utc in range(start, end):
            wall = utc + self.offset(utc)
            shown[wall] = (*shown.get(wall, ()), utc)
        return shown


# The grammar


def number(text, low, high, names):
    if text in names:
        return names[text]
    if not (text.isascii() and text.isdigit()):
        raise Rejected(f"{text!r} is no number")
    if not low <= int(text) <= high:
        raise Rejected(f"{text} is not within {low}-{high}")
    return int(text)


def item(text, low, high, names=()):
    """The values of `a`, `a-b`, `a/n`, `a-b/n` as written, 7 still beside 0."""
    span, slash, step = text.partition("/")
    every = number(step, 1, 10**9, ()) if slash else 1
    first, dash, last = span.partition("-")
    weekday = names is WEEKDAY_NAMES
    a = number(first, low, high, names)
    if dash:
        b = number(last, low, high, names)
        if weekday and a == 7:
            a = b if b == 7 else 0
        if b < a and weekday:
            b += 7
        if b < a:
            raise Rejected(f"{text} runs backwards")
    else:
        # Saturday is the week's last day here: 6/1 does not run on to 7.
        b = max(a, 6 if weekday else high) if slash else a
    return range(a, b + 1, every)


def field(text, low, high, names=()):
    """The set of values, and whether the field begins with a star."""
    if text.startswith("*"):
        star, slash, step = text.partition("/")
        if star != "*":
            raise Rejected(f"{text}: a star stands alone")
        every = number(step, 1, 10**9, ()) if slash else 1
        return set(range(low, high + 1, every)), True
    return {value for part in text.split(",") for value in item(part, low, high, names)}, False


@dataclass(frozen=True)
class Nth:
    """`5#2`, the second Friday of the month; `5L` the last one (n = 0)."""

    weekday: int
    n: int

    def matches(self, day):
        if day.isoweekday() % 7 != self.weekday:
            return False
        if self.n == 0:
            return (day + timedelta(days=7)).month != day.month
        return (day.day - 1) // 7 + 1 == self.n


def weekday_field(text):
    """The set of plain weekdays, those with `#` or L, and whether it begins with a star."""
    if text == "?":
        text = "*"
    if text.startswith("*"):
        values, star = field(text, 0, 6)
        return values, [], star
    plain, nths = set(), []
    for part in text.split(","):
        day, hash_, n = part.partition("#")
        if hash_:
            nths.append(Nth(number(day, 0, 7, WEEKDAY_NAMES) % 7, number(n, 1, 5, ())))
        elif len(part) > 1 and "l" in (part[0], part[-1]):
            day = part[1:] if part[0] == "l" else part[:-1]
            nths.append(Nth(number(day, 0, 7, WEEKDAY_NAMES) % 7, 0))
        else:
            plain.update(value % 7 for value in item(part, 0, 7, WEEKDAY_NAMES))
    return plain, nths, False


class Oracle:
    """One expression: which days, which minutes, and whether it follows the clock."""

    def __init__(self, expression):
        fields = ALIASES.get(expression.strip().lower(), expression).lower().split()
        if len(fields) != 5:
            raise Rejected(f"{len(fields)} fields")
        minute, hour, day, month, weekday = fields
        self.minutes, star_minute = field(minute, 0, 59)
        self.hours, star_hour = field(hour, 0, 23)
        self.wild = star_minute or star_hour
        self.last_day = day == "l"
        if self.last_day:
            self.days, self.star_day = set(), False
        else:
            self.days, self.star_day = field("*" if day == "?" else day, 1, 31)
        self.months, _ = field(month, 1, 12, MONTH_NAMES)
        self.weekdays, self.nths, self.star_weekday = weekday_field(weekday)
        if self.nths and day not in ("*", "?"):
            raise Rejected("# or L beside a restricted day of month")
        if not any(map(self.on_day, range(-FIRST_DAY + 1, 400 * 366 - FIRST_DAY))):
            raise Rejected("never fires in the 400 years after which the calendar repeats")
        self._fires = {}

    def on_day(self, number):
        day = date.fromordinal(number + FIRST_DAY)
        if day.month not in self.months:
            return False
        by_day = day.day in self.days or (
            self.last_day and (day + timedelta(days=1)).month != day.month
        )
        by_weekday = day.isoweekday() % 7 in self.weekdays or any(
            nth.matches(day) for nth in self.nths
        )
        if self.star_day or self.star_weekday:
            return by_day and by_weekday
        return by_day or by_weekday

    @cached_property
    def times(self):
        """The minutes of a day that has been found to match."""
        return [
            hour * HOUR_MINUTES + minute
            for hour, minute in itertools.product(sorted(self.hours), sorted(self.minutes))
        ]

    def fires(self, number, clock):
        """The UTC minutes that this wall day gives."""
        key = (clock.zone.key, number)
        if key not in self._fires:
            found = set()
            for time in self.times if self.on_day(number) else ():
                wall = number * DAY_MINUTES + time
                shown = clock.shown(wall)
                if self.wild:
                    found.update(shown)
                elif shown:
                    found.add(shown[0])
                else:
                    found.add(clock.after_gap(wall))
            self._fires[key] = found
        return self._fires[key]

    def after(self, moment, clock, count, until):
        """At most `count` instants after `moment` and up to `until`."""
        first = (moment - EPOCH) // MINUTE + 1
        last = (until - EPOCH) // MINUTE
        found = set()
        # Three days back: behind UTC by an offset, and a gap of a whole day (Apia).
        for day in range(first // DAY_MINUTES - 3, last // DAY_MINUTES + 2):
            found.update(utc for utc in self.fires(day, clock) if first <= utc <= last)
            # What later days give comes later than this one's beginning in UTC.
            if len(found) >= count and sorted(found)[count - 1] < day * DAY_MINUTES:
                break
        return [EPOCH + utc * MINUTE for utc in sorted(found)[:count]]

    def before(self, moment, clock, since):
        """The last instant at or before `moment`, None if that is earlier than `since`."""
        last = (moment - EPOCH) // MINUTE
        first = -((EPOCH - since) // MINUTE)
        found = set()
        for day in range(last // DAY_MINUTES + 2, first // DAY_MINUTES - 4, -1):
            found.update(utc for utc in self.fires(day, clock) if first <= utc <= last)
            # What earlier days give comes before their second next day begins in UTC.
            if found and max(found) >= (day + 2) * DAY_MINUTES:
                break
        return EPOCH + max(found) * MINUTE if found else None


_clocks = {}


def clock_of(name):
    """The clocks are kept: what a day shows is looked up once."""
    if name not in _clocks:
        _clocks[name] = Clock(ZoneInfo(name))
    return _clocks[name]
