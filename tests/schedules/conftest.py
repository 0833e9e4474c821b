"""Schedules in tests: a clock that is passed in, and rows that are made by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from django_bgtasks.models import FinishedTask, QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules.firing import Scheduler
from tests import tasks


class Clock:
    """A moment that only tests move."""

    def __init__(self, now):
        self.now = now

    def forward(self, **parts):
        self.now += timedelta(**parts)
        return self.now

    def back(self, **parts):
        self.now -= timedelta(**parts)
        return self.now


@pytest.fixture
def clock():
    return Clock(datetime(2026, 6, 1, 12, 30, 30, tzinfo=UTC))


@pytest.fixture
def add_schedule(transactional_db, clock):
    """Return a function that adds a schedule, planned from the clock's time on."""

    def add(expression="0 * * * *", **columns):
        columns = {
            "name": "hourly",
            "task_path": tasks.nothing.module_path,
            "time_zone": "UTC",
            **columns,
        }
        row = Schedule(expression=expression, created_at=clock.now, **columns)
        row.plan(clock.now)
        Schedule.objects.bulk_create([row])
        return Schedule.objects.get(name=columns["name"])

    return add


@pytest.fixture
def fire(clock):
    """Return a function that does what a worker's scheduler does now, until all is done."""
    scheduler = Scheduler("default", ["default"])

    def fire():
        ids = []
        while True:
            fired = scheduler.fire_due(now=clock.now)
            ids += fired.ids
            if fired.next_in is None or fired.next_in > 0:
                return ids

    fire.scheduler = scheduler
    return fire


def runs(name="hourly"):
    """Return due times, in UTC, with what became of them, in order."""
    found = ScheduleRun.objects.filter(schedule__name=name).order_by("due_at")
    return [(f"{run.due_at:%d %H:%M}", run.status, run.missed) for run in found]


def finish(ids, status="SUCCESSFUL"):
    """Have tasks be ended, as a worker would."""
    for row in QueuedTask.objects.filter(pk__in=ids):
        copied = {
            f.attname: getattr(row, f.attname)
            for f in FinishedTask._meta.fields
            if hasattr(row, f.attname) and f.attname not in ("status", "claim_id")
        }
        FinishedTask.objects.create(**copied, status=status, finished_at=datetime.now(UTC))
        row.delete()
