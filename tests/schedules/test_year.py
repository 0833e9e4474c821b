"""A year of twenty schedules, through both changes of the clock, without waiting for it."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from django_bgtasks.models import QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules.firing import Scheduler
from django_bgtasks.timetables import zone_of
from tests import tasks

#: expression, zone, how often it is due in 2027: 365 days, of which 261 are Monday to
#: Friday; clocks change on 28 March and 31 October in Berlin and Warsaw, on 14 March and
#: 7 November in New York, on 4 April and 3 October in Lord Howe.
PLAN = [
    ("30 2 * * *", "Europe/Berlin", 365),  # fixed: after the gap, and at the first of two
    ("0 2 * * 1-5", "Europe/Warsaw", 261),
    ("15 2 * * *", "Australia/Lord_Howe", 365),
    ("30 1 * * *", "America/New_York", 365),
    ("0,30 2 * * *", "Europe/Berlin", 729),  # both of the gap at one instant, 03:00
    ("30 */2 * 3,10 *", "Europe/Berlin", 12 * 62),  # wild: 02:30 not once, and once more
    ("*/30 2 * * *", "Europe/Berlin", 730),
    ("0 */6 * 3,11 *", "America/New_York", 4 * 61),
    ("@daily", "Asia/Kathmandu", 365),
    ("@weekly", "Europe/Berlin", 52),
    ("@monthly", "Europe/Berlin", 12),
    ("@yearly", "America/New_York", 1),
    ("0 12 L * *", "Europe/Berlin", 12),
    ("0 9 * * 1#2", "Europe/Warsaw", 12),
    ("0 9 * * 5L", "Europe/Warsaw", 12),
    ("0 0 13 * 5", "UTC", 12 + 53 - 1),  # the 13th or a Friday; one is both, 53 Fridays
    ("0 8 29 2 *", "UTC", 0),
    ("every 36 hours", "Europe/Berlin", 243),
    ("every 2 weeks", "Europe/Berlin", 26),
    ("at 2027-03-28 02:30", "Europe/Berlin", 1),
]


@pytest.mark.django_db(transaction=True)
def test_each_schedule_of_a_year_fires_as_often_as_its_due_times_say():
    rows = []
    for number, (expression, zone, _) in enumerate(PLAN):
        row = Schedule(
            name=f"{number} {expression}",
            task_path=tasks.nothing.module_path,
            expression=expression,
            time_zone=zone,
            overlap="allow",
        )
        # The year of each zone's own calendar.
        first = datetime(2027, 1, 1, tzinfo=zone_of(zone))
        row.end_at = first.replace(year=2028) - timedelta(seconds=1)
        row.plan(first - timedelta(seconds=1))
        # Else the clock seems to have been ahead.
        row.planned_from = None
        rows.append(row)
    Schedule.objects.bulk_create(rows)
    scheduler = Scheduler("default", ["default"])
    now = datetime(2026, 12, 30, tzinfo=UTC)
    end = datetime(2028, 1, 2, tzinfo=UTC)
    while now < end:
        fired = scheduler.fire_due(now=now)
        # Sleep until the next is due, as a worker does.
        if fired.next_in is None:
            break
        now += timedelta(seconds=max(fired.next_in, 0.001))
    counts = Counter(ScheduleRun.objects.values_list("schedule__name", "status"))
    expected = {(row.name, "FIRED"): n for row, (_, _, n) in zip(rows, PLAN, strict=True) if n}
    assert counts == expected
    assert QueuedTask.objects.count() == sum(expected.values())
