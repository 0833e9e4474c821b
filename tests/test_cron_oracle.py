"""Cron expressions against an independent oracle, and what croniter alone gets wrong.

The oracle (cron_oracle.py) shares no code with `django_bgtasks.cron` and none with croniter.
BGTASKS_CRON_CASES=5000 makes the long run, BGTASKS_CRON_SEED another one.
"""

import os
import random
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, CroniterNotAlphaError, croniter

from django_bgtasks.cron import Cron, CronError
from tests.cron_oracle import (
    ALIASES,
    DAY_MINUTES,
    EPOCH,
    FARTHEST_OFFSET,
    Oracle,
    Rejected,
    clock_of,
)

CASES = int(os.environ.get("BGTASKS_CRON_CASES", "250"))
SEED = int(os.environ.get("BGTASKS_CRON_SEED", "20260329"))
# What an oracle of ten times of 29 February needs, and what zoneinfo's tables go back for.
FORWARD = timedelta(days=42 * 366)
BACK = timedelta(days=12 * 366)

# Zone: the years in which the cases start.
ZONES = {
    "Europe/Berlin": (2019, 2030),
    "America/New_York": (2019, 2030),
    "Australia/Lord_Howe": (2019, 2030),  # Half an hour.
    "Africa/Casablanca": (2019, 2030),  # Four changes a year by Ramadan, at +01:00 otherwise.
    "Asia/Kathmandu": (2024, 2030),  # No change, +05:45.
    "America/Sao_Paulo": (2016, 2019),  # Gaps at midnight.
    "America/Santiago": (2019, 2030),  # Gaps at midnight.
    "Europe/London": (2019, 2030),
    "Asia/Tehran": (2020, 2022),  # Gaps at midnight, +03:30.
    "Pacific/Apia": (2010, 2013),  # 30 December 2011 does not exist.
    "Africa/Cairo": (2023, 2030),  # Gaps at midnight, the other change just before it.
    "UTC": (2024, 2030),
}


# Random cases


def transitions(name):
    """The instants of the zone's changes in its years."""
    zone, (first, last) = ZoneInfo(name), ZONES[name]
    moment, end, found = datetime(first, 1, 1, tzinfo=UTC), datetime(last, 12, 31, tzinfo=UTC), []

    def changed(a, b):
        return a.astimezone(zone).utcoffset() != b.astimezone(zone).utcoffset()

    while moment < end:
        for step in (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)):
            while moment < end and not changed(moment, moment + step):
                moment += step
        if moment < end:
            moment += timedelta(minutes=1)
            found.append(moment)
    return found


MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"]
INVALID = [
    {0: "60"},
    {1: "24"},
    {2: "32"},
    {2: "0"},
    {3: "13"},
    {4: "8"},
    {0: "30-10"},
    {1: "22-2"},
    {2: "28-3"},
    {3: "nov-feb"},
    {0: "*/0"},
    {1: "5/0"},
    {0: "15,*"},
    {1: "*,3"},
    {2: "1,*/2"},
    {4: "*,1"},
    {2: "15W"},
    {2: "LW"},
    {0: "H"},
    {1: "R"},
    {0: "?"},
    {1: "?"},
    {3: "?"},
    {3: "L"},
    {4: "1#6"},
    {4: "1#0"},
    {4: "8L"},
    {2: "28", 4: "5#1"},
    {2: "L", 4: "L1"},
    {2: "*/2", 4: "5L"},
    {2: "30", 3: "2", 4: "*"},
    {2: "31", 3: "4,6,9,11", 4: "*"},
    {0: "-5"},
    {0: "5-"},
    {0: "1,,2"},
    {0: "1,"},
    {0: "1.5"},
    {0: "x"},
    {3: "mon"},
    {4: "jan"},
    {4: "* *"},
]


class Grammar:
    """Draws expressions; the hours and days around the instant `near` are frequent.

    Half of them leave the days open, so that the next times lie in the nights of the change.
    """

    def __init__(self, rng, near, zone):
        self.rng = rng
        before, after = ((near + timedelta(minutes=m)).astimezone(zone) for m in (-1, 0))
        self.hours = [before.hour, (before.hour + 1) % 24, after.hour]
        self.near = rng.choice([before, after])
        self.open = 1 if rng.random() < 0.5 else 0

    def odds(self, **weights):
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def written(self, value, names=None):
        if names and self.rng.random() < 0.4:
            return self.rng.choice([str.lower, str.upper, str.title])(names[value])
        return f"{value:02}" if self.rng.random() < 0.05 else str(value)

    def field(self, low, high, pick, shape, names=None):
        rng, write = self.rng, lambda value: self.written(value, names)
        step = rng.choice([1, 2, 2, 3, 4, 5, 7, 10, 15, 20, 29, 30, 40, rng.randint(1, high)])
        if shape == "star":
            return "*"
        if shape == "stepped star":
            return f"*/{min(step, high)}"
        if shape == "from":
            return f"{write(pick())}/{min(step, high)}"
        if shape == "list":
            items = ["one", "one", "one", "range", "stepped range", "from"]
            drawn = rng.choices(items, [6, 6, 6, 2, 1, 1], k=rng.randint(2, 4))
            return ",".join(self.field(low, high, pick, item, names) for item in drawn)
        if "range" in shape:
            a, b = pick(), pick() if rng.random() < 0.4 else rng.randint(low, high)
            wraps = names is WEEKDAYS
            a, b = (a, b) if wraps else (min(a, b), max(a, b))
            if rng.random() < 0.15:
                b = a
            elif rng.random() < 0.05:
                a, b = low, high
            return f"{write(a)}-{write(b)}" + (f"/{min(step, high)}" if "stepped" in shape else "")
        return write(pick())

    def minute(self):
        return self.field(
            0,
            59,
            lambda: self.rng.choice([0, 0, 15, 30, 30, 45, 59, self.rng.randint(0, 59)]),
            self.odds(
                one=45,
                star=8,
                **{"stepped star": 15, "list": 12, "range": 7, "stepped range": 6, "from": 7},
            ),
        )

    def hour(self):
        return self.field(
            0,
            23,
            lambda: self.rng.choice([0, 1, 2, 3, 4, 23, *self.hours * 3, self.rng.randint(0, 23)]),
            self.odds(
                one=45,
                star=13,
                **{"stepped star": 12, "list": 10, "range": 8, "stepped range": 6, "from": 6},
            ),
        )

    def day(self):
        shape = self.odds(
            star=50 + 500 * self.open,
            question=3,
            last=6,
            one=18,
            **{"stepped star": 7, "list": 6, "range": 5, "stepped range": 3, "from": 3},
        )
        if shape in ("question", "last"):
            return "?" if shape == "question" else "L"
        picks = [1, 28, 29, 30, 31, *[self.near.day] * 4, self.rng.randint(1, 31)]
        return self.field(1, 31, lambda: self.rng.choice(picks), shape)

    def month(self):
        shape = self.odds(
            star=70 + 700 * self.open,
            one=14,
            **{"stepped star": 4, "list": 5, "range": 4, "stepped range": 2, "from": 2},
        )
        picks = [2, *[self.near.month] * 4, self.rng.randint(1, 12)]
        return self.field(1, 12, lambda: self.rng.choice(picks), shape, [None, *MONTHS])

    def weekday(self, restricted):
        shape = self.odds(
            star=50 + 500 * self.open,
            question=3,
            nth=0 if restricted else 10,
            one=12,
            **{"stepped star": 6, "list": 7, "range": 9, "stepped range": 4, "from": 5},
        )
        if shape == "question":
            return "?"
        if shape == "nth":
            return ",".join(self.nth() for _ in range(self.rng.choice([1, 1, 1, 2])))
        picks = [7, *[self.near.isoweekday()] * 2, *range(8)]
        return self.field(0, 7, lambda: self.rng.choice(picks), shape, WEEKDAYS)

    def nth(self):
        day = self.rng.choice([self.near.isoweekday(), self.rng.randint(0, 7)])
        n = self.rng.randint(1, 5)
        return self.rng.choice([f"{day}#{n}", f"{day}#{n}", f"{day}L", f"L{day}"])

    def expression(self):
        if self.rng.random() < 0.04:
            return self.rng.choice(list(ALIASES))
        day = self.day()
        fields = [self.minute(), self.hour(), day, self.month()]
        fields.append(self.weekday(day[0] not in "*?"))
        if self.rng.random() < 0.04:
            for position, text in self.rng.choice(INVALID).items():
                fields[position] = text
        return " ".join(fields)


@dataclass(frozen=True)
class Case:
    expression: str
    zone: str
    start: datetime
    restarts: tuple

    def __str__(self):
        return f"{self.expression!r} in {self.zone} from {self.start.isoformat()}"


def instant(rng, middle, hours):
    """Near `middle`; half of them on a whole minute, some just beside one."""
    moment = middle + timedelta(minutes=rng.randint(-hours * 60, hours * 60))
    beside = [timedelta(0)] * 4 + [timedelta(microseconds=1), -timedelta(microseconds=1)]
    return moment + rng.choice([*beside, timedelta(seconds=rng.randint(1, 59))])


def drawn(seed, count):
    rng = random.Random(seed)
    changes = {name: transitions(name) for name in ZONES}
    for i in range(count):
        name = list(ZONES)[i % len(ZONES)]
        year = rng.randint(*ZONES[name])
        near = rng.choice(
            [
                *(changes[name] and [rng.choice(changes[name])] * 9),
                datetime(year, 12, 31, 12, tzinfo=UTC),
                datetime(year, 2, 28, 12, tzinfo=UTC),
                datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=rng.randint(0, 364)),
            ]
        )
        restarts = tuple(instant(rng, near, hours) for hours in (2, 2, 12, 48))
        expression = Grammar(rng, near, ZoneInfo(name)).expression()
        early = near - timedelta(hours=rng.choice([0, 2, 12, 48, 240]))
        yield Case(expression, name, instant(rng, early, 4), restarts)


@pytest.fixture(scope="module")
def cases():
    return list(drawn(SEED, CASES))


@pytest.fixture(scope="module")
def pairs(cases):
    """Each case with its Cron and Oracle, None where one rejects the expression."""
    return [
        (case, made(Cron, CronError, case.expression), made(Oracle, Rejected, case.expression))
        for case in cases
    ]


def made(kind, error, expression):
    try:
        return kind(expression)
    except error:
        return None


class Report:
    """What was compared and what differed."""

    def __init__(self, what):
        self.what = what
        self.counts = Counter()
        self.differences = []

    def compare(self, case, start, expected, got):
        self.counts["compared"] += 1
        if expected != got:
            self.differences.append((case.expression, case.zone, start, expected, got))

    def conclude(self):
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        summary = f"{self.what}: {counts}, {len(self.differences)} differ (seed {SEED})"
        sys.stdout.write(summary + "\n")
        lines = [
            f"{expression!r} in {zone} from {start}: expected {shown(expected)}, got {shown(got)}"
            for expression, zone, start, expected, got in self.differences[:10]
        ]
        assert not self.differences, "\n".join([summary, *lines])


def shown(value):
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def both(pairs):
    return [pair for pair in pairs if pair[1] is not None and pair[2] is not None]


def next_ten(cron, zone, start, until):
    """The next ten, as far as they lie within the oracle's window."""
    found, moment = [], start
    while len(found) < 10:
        moment = cron.after(moment, zone)
        if moment is None or moment > until:
            break
        found.append(moment)
    return found


def test_the_same_expressions_are_rejected(pairs):
    report = Report("expressions")
    for case, cron, oracle in pairs:
        report.counts["rejected"] += oracle is None
        verdicts = ["rejected" if which is None else "accepted" for which in (oracle, cron)]
        report.compare(case, case.start, *verdicts)
    report.conclude()


def test_the_next_ten_times_are_those_of_the_oracle(pairs):
    report = Report("next ten")
    for case, cron, oracle in both(pairs):
        until = case.start + FORWARD
        expected = oracle.after(case.start, clock_of(case.zone), 10, until)
        got = next_ten(cron, ZoneInfo(case.zone), case.start, until)
        report.counts["times"] += len(expected)
        report.counts["fewer than ten"] += len(expected) < 10
        report.compare(case, case.start, expected, got)
    report.conclude()


def test_the_next_time_does_not_depend_on_where_one_starts(pairs):
    report = Report("restarts")
    for case, cron, oracle in both(pairs):
        for start in case.restarts:
            until = start + FORWARD
            expected = oracle.after(start, clock_of(case.zone), 1, until)
            got = cron.after(start, ZoneInfo(case.zone))
            got = [] if got is None or got > until else [got]
            report.compare(case, start, expected, got)
            for fire in expected:
                # One microsecond makes the difference between this time and the next.
                short = fire - timedelta(microseconds=1)
                report.compare(case, short, fire, cron.after(short, ZoneInfo(case.zone)))
                following = oracle.after(fire, clock_of(case.zone), 1, until)
                got = cron.after(fire, ZoneInfo(case.zone))
                got = [] if got is None or got > until else [got]
                report.compare(case, fire, following, got)
    report.conclude()


def test_the_last_time_is_that_of_the_oracle(pairs):
    report = Report("last time")
    for case, cron, oracle in both(pairs):
        zone, clock = ZoneInfo(case.zone), clock_of(case.zone)
        for start in (case.start, *case.restarts[1:3]):
            since = start - BACK
            expected = oracle.before(start, clock, since)
            got = cron.before(start, zone)
            report.counts["none in the window"] += expected is None
            report.compare(case, start, expected, None if got and got < since else got)
            if expected:
                report.compare(case, expected, expected, cron.before(expected, zone))
    report.conclude()


def test_the_times_are_whole_minutes_in_utc():
    for expression in ("*/7 * * * *", "30 2 * * *"):
        fire = Cron(expression).after(
            datetime(2026, 3, 29, 0, 59, 59, 999999, UTC), ZoneInfo("Europe/Berlin")
        )
        assert fire == datetime(2026, 3, 29, 1, tzinfo=UTC)
        assert fire.utcoffset() == timedelta(0)


# By hand

BY_HAND = [
    # RELIABILITY.md 4.1, the column of Debian: zone, day, expression, times until 06:00.
    ("Europe/Berlin", "2026-03-29", "30 2 * * *", "03:00+0200"),
    ("Europe/Berlin", "2026-03-29", "*/15 2 * * *", ""),
    ("Europe/Berlin", "2026-03-29", "30 */2 * * *", "00:30+0100 04:30+0200"),
    ("Europe/Berlin", "2026-10-25", "30 2 * * *", "02:30+0200"),
    ("Europe/Berlin", "2026-10-25", "0,30 2 * * *", "02:00+0200 02:30+0200"),
    ("Europe/Berlin", "2026-10-25", "30 2-3 * * *", "02:30+0200 03:30+0100"),
    (
        "Europe/Berlin",
        "2026-10-25",
        "0 * * * *",
        "00:00+0200 01:00+0200 02:00+0200 02:00+0100 03:00+0100 04:00+0100 05:00+0100",
    ),
    (
        "Europe/Berlin",
        "2026-10-25",
        "*/15 2 * * *",
        "02:00+0200 02:15+0200 02:30+0200 02:45+0200 02:00+0100 02:15+0100 02:30+0100 02:45+0100",
    ),
    ("America/New_York", "2026-11-01", "30 1 * * *", "01:30-0400"),
    ("Australia/Lord_Howe", "2026-10-04", "15 2 * * *", "02:30+1100"),
    ("Australia/Lord_Howe", "2026-04-05", "45 1 * * *", "01:45+1100"),
    (
        "Australia/Lord_Howe",
        "2026-04-05",
        "45 * * * *",
        "00:45+1100 01:45+1100 01:45+1030 02:45+1030 03:45+1030 04:45+1030 05:45+1030",
    ),
    (
        "Australia/Lord_Howe",
        "2026-04-05",
        "*/20 0-2 * * *",
        "00:00+1100 00:20+1100 00:40+1100 01:00+1100 01:20+1100 01:40+1100"
        " 01:40+1030 02:00+1030 02:20+1030 02:40+1030",
    ),
    ("America/Santiago", "2026-09-06", "@daily", "01:00-0300"),
    ("Africa/Casablanca", "2026-02-15", "30 2 * * *", "02:30+0100"),
    ("Africa/Casablanca", "2026-03-22", "30 2 * * *", "03:00+0100"),
    # Not in the table: one fire for all that a gap swallowed, and for what is due at its end.
    ("Europe/Berlin", "2026-03-29", "0,30 2-3 * * *", "03:00+0200 03:30+0200"),
    (
        "Europe/Berlin",
        "2026-03-29",
        "*/30 * * * *",
        "00:00+0100 00:30+0100 01:00+0100 01:30+0100 03:00+0200 03:30+0200"
        " 04:00+0200 04:30+0200 05:00+0200 05:30+0200",
    ),
    ("America/Santiago", "2026-09-06", "*/30 0 * * *", ""),
    ("Pacific/Apia", "2011-12-31", "0 12 30 12 *", "00:00+1400"),
    ("Pacific/Apia", "2011-12-31", "0 */3 30 12 *", ""),
]


def from_midnight_to_six(day, zone):
    midnight = datetime.fromisoformat(day).replace(tzinfo=zone)
    return midnight.astimezone(UTC), midnight.replace(hour=6).astimezone(UTC)


@pytest.mark.parametrize(("zone", "day", "expression", "times"), BY_HAND)
def test_the_nights_of_a_change_are_those_of_debian(zone, day, expression, times):
    zone, cron = ZoneInfo(zone), Cron(expression)
    midnight, six = from_midnight_to_six(day, zone)
    found, moment = [], midnight - timedelta(seconds=1)
    while (moment := cron.after(moment, zone)) < six:
        found.append(moment.astimezone(zone).strftime("%H:%M%z"))
    assert found == times.split()


@pytest.mark.parametrize(("zone", "day", "expression", "times"), BY_HAND)
def test_the_oracle_itself_says_what_was_written_by_hand(zone, day, expression, times):
    midnight, six = from_midnight_to_six(day, ZoneInfo(zone))
    just_before = timedelta(seconds=1)
    found = Oracle(expression).after(
        midnight - just_before, clock_of(zone), 1000, six - just_before
    )
    assert [t.astimezone(ZoneInfo(zone)).strftime("%H:%M%z") for t in found] == times.split()


DAYS_BY_HAND = [
    # The first three days in May 2026, which begins on a Friday.
    ("0 0 * * 5#2", "8"),
    ("0 0 * * 5L", "29"),
    ("0 0 * * L5", "29"),
    ("0 0 * * 7L", "31"),
    ("0 0 * * 5#5,1#1", "4 29"),
    ("0 0 L * *", "31"),
    ("0 0 L * 1", "4 11 18"),
    ("0 0 10-12 * *", "10 11 12"),
    ("0 0 12-12 * *", "12"),
    ("0 0 12-12/5 * *", "12"),
    ("0 0 10/15 * *", "10 25"),
    ("0 0 */15 * *", "1 16 31"),
    ("0 0 */2 * 1", "11 25"),
    ("0 0 2-30/2 * 1", "2 4 6"),
    ("0 0 13 * 5", "1 8 13"),
    ("0 0 13 * ?", "13"),
    ("0 0 ? * 5", "1 8 15"),
    ("0 0 9 * */3", "9"),
    ("0 0 1-31 * 5", "1 2 3"),
    ("0 0 * * 0", "3 10 17"),
    ("0 0 * * 7", "3 10 17"),
    ("0 0 * * 7/1", "3 10 17"),
    ("0 0 * * 6/1", "2 9 16"),
    ("0 0 * * 4/2", "2 7 9"),
    ("0 0 * * 7-7", "3 10 17"),
    ("0 0 * * 1-1", "4 11 18"),
    ("0 0 * * fri-sun", "1 2 3"),
    ("0 0 * * 6-1", "2 3 4"),
    ("0 0 * * sat-mon/2", "2 4 9"),
    ("0 0 * * 7-1", "3 4 10"),
    ("0 0 * MAY Sun", "3 10 17"),
    ("@weekly", "3 10 17"),
    ("@monthly", "1"),
    ("@yearly", ""),
    ("0 0 29 2 *", ""),
]


@pytest.mark.parametrize(("expression", "days"), DAYS_BY_HAND)
def test_the_days_are_those_written_by_hand(expression, days):
    cron, moment, found = Cron(expression), datetime(2026, 4, 30, 23, 59, tzinfo=UTC), []
    end = datetime(2026, 6, 1, tzinfo=UTC)
    while len(found) < 3 and (moment := cron.after(moment, ZoneInfo("UTC"))) < end:
        found.append(str(moment.day))
    assert found == days.split()


@pytest.mark.parametrize(("expression", "days"), DAYS_BY_HAND)
def test_the_days_of_the_oracle_are_those_written_by_hand(expression, days):
    start, end = (datetime(2026, 4, 30, 23, 59, tzinfo=UTC), datetime(2026, 5, 31, 1, tzinfo=UTC))
    found = Oracle(expression).after(start, clock_of("UTC"), 3, end)
    assert [str(t.day) for t in found] == days.split()


@pytest.mark.parametrize("fields", INVALID, ids=lambda fields: "-".join(fields.values()))
def test_what_is_invalid_or_never_fires_is_rejected_by_both(fields):
    expression = " ".join(fields.get(i, "0" if i < 2 else "*") for i in range(5))
    with pytest.raises(Rejected):
        Oracle(expression)
    with pytest.raises(CronError):
        Cron(expression)


@pytest.mark.parametrize("expression", ["", "* * * *", "* * * * * *", "@reboot", "@every 5m"])
def test_what_has_not_five_fields_is_rejected_by_both(expression):
    with pytest.raises(Rejected):
        Oracle(expression)
    with pytest.raises(CronError):
        Cron(expression)


@pytest.mark.parametrize("zone", ZONES)
def test_a_look_each_hour_at_the_clock_misses_nothing(zone):
    clock, rng = clock_of(zone), random.Random(SEED)
    changes = [(change - EPOCH).days for change in transitions(zone)]
    years = [(date(year, 1, 1) - date(1970, 1, 1)).days for year in ZONES[zone]]
    for day in (*rng.sample(changes, min(4, len(changes))), rng.randint(*years)):
        start = day * DAY_MINUTES
        walked = clock.walk(start - FARTHEST_OFFSET, start + DAY_MINUTES + FARTHEST_OFFSET)
        for wall in range(start, start + DAY_MINUTES):
            assert clock.shown(wall) == walked.get(wall, ())


def test_the_zones_have_the_gaps_and_repeats_that_they_are_here_for():
    def kinds(zone, day):
        start = (date.fromisoformat(day) - date(1970, 1, 1)).days * DAY_MINUTES
        shown = [clock_of(zone).shown(wall) for wall in range(start, start + DAY_MINUTES)]
        numbers = Counter(map(len, shown))
        return numbers[0], numbers[2]

    assert kinds("Europe/Berlin", "2026-03-29") == (60, 0)
    assert kinds("Europe/Berlin", "2026-10-25") == (0, 60)
    assert kinds("Australia/Lord_Howe", "2026-10-04") == (30, 0)
    assert kinds("Australia/Lord_Howe", "2026-04-05") == (0, 30)
    assert kinds("America/Sao_Paulo", "2018-11-04") == (60, 0)
    assert kinds("Africa/Cairo", "2026-04-24") == (60, 0)
    assert kinds("Pacific/Apia", "2011-12-30") == (DAY_MINUTES, 0)
    assert kinds("Asia/Kathmandu", "2026-03-29") == (0, 0)


# croniter alone: where one of these fails, croniter has changed, and cron.py may become simpler


def of_croniter(expression, start, count, zone="Europe/Berlin", **options):
    start = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
    times = croniter(expression, start, ret_type=datetime, **options)
    return [times.get_next().strftime("%d %H:%M%z") for _ in range(count)]


@pytest.mark.parametrize(
    ("zone", "day", "expression", "times"),
    [
        # A fixed time in the repeated hour fires at both passes.
        ("Europe/Berlin", "2026-10-25", "30 2 * * *", "02:30+0200 02:30+0100"),
        (
            "Europe/Berlin",
            "2026-10-25",
            "0,30 2 * * *",
            "02:00+0200 02:30+0200 02:00+0100 02:30+0100",
        ),
        ("Europe/Berlin", "2026-10-25", "30 2-3 * * *", "02:30+0200 02:30+0100 03:30+0100"),
        ("America/New_York", "2026-11-01", "30 1 * * *", "01:30-0400 01:30-0500"),
        ("Australia/Lord_Howe", "2026-04-05", "45 1 * * *", "01:45+1100 01:45+1030"),
        ("Africa/Casablanca", "2026-02-15", "30 2 * * *", "02:30+0100 02:30+0000"),
        # A wild one in a gap is moved behind it.
        ("Europe/Berlin", "2026-03-29", "*/15 2 * * *", "03:00+0200"),
        ("Europe/Berlin", "2026-03-29", "30 */2 * * *", "00:30+0100 03:00+0200 04:30+0200"),
        # The second 01:40 is missing in a repeated half hour.
        (
            "Australia/Lord_Howe",
            "2026-04-05",
            "*/20 0-2 * * *",
            "00:00+1100 00:20+1100 00:40+1100 01:00+1100 01:20+1100 01:40+1100"
            " 02:00+1030 02:20+1030 02:40+1030",
        ),
    ],
)
def test_croniter_alone_is_wrong_in_the_nights_of_a_change(zone, day, expression, times):
    just_before = datetime.fromisoformat(day) - timedelta(seconds=1)
    count = len(times.split())
    found = of_croniter(expression, just_before.isoformat(), count + 1, zone)
    assert [time[3:] for time in found[:count]] == times.split()
    assert found[count][:2] != found[count - 1][:2] or found[count][3:] >= "06"


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        # Equal ranges are whole fields: each hour, each day.
        ("0 9-9 * * *", "01 01:00+0200, 01 02:00+0200"),
        ("30 8 * * 1-1", "01 08:30+0200, 02 08:30+0200"),
        ("0 0 1-1 * *", "02 00:00+0200, 03 00:00+0200"),
        ("0 0 7-7/2 * *", "03 00:00+0200, 05 00:00+0200"),
        # Sunday with a step is every day.
        ("0 0 * * 7/1", "02 00:00+0200, 03 00:00+0200"),
        # Hours that run backwards wrap.
        ("0 22-2 * * *", "01 01:00+0200, 01 02:00+0200, 01 22:00+0200"),
        # A stepped star in a day field makes OR: the 4th of May is the first Monday.
        ("0 0 */2 * 1", "03 00:00+0200, 04 00:00+0200, 05 00:00+0200"),
    ],
)
def test_croniter_alone_reads_fields_otherwise(expression, times):
    expected = times.split(", ")
    assert of_croniter(expression, "2026-05-01", len(expected)) == expected


def test_croniter_alone_knows_the_last_friday_only_with_the_letter_first():
    assert of_croniter("0 0 * * L5", "2026-05-01", 1) == ["29 00:00+0200"]
    with pytest.raises(CroniterNotAlphaError):
        of_croniter("0 0 * * 5L", "2026-05-01", 1)


def test_croniter_alone_never_fires_where_a_day_of_month_meets_an_nth_weekday():
    with pytest.raises(CroniterBadDateError):
        of_croniter("0 0 28 * 5#1", "2026-05-01", 1)


def test_croniter_alone_misjudges_what_never_fires():
    # Mondays of February: valid.
    assert not croniter.is_valid("0 0 30 2 1", strict=True)
    # Never.
    assert croniter.is_valid("0 0 30 2 *")


def test_croniter_alone_takes_a_sixth_field_for_seconds():
    assert of_croniter("* * * * * 30", "2026-05-01", 1) == ["01 00:00+0200"]
