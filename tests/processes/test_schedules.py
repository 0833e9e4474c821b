"""Schedules and real workers: each due time once, whatever happens to the workers."""

import os
import random
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from django_bgtasks.models import FinishedTask, QueuedTask, Schedule, ScheduleRun, Worker
from django_bgtasks.schedules.firing import Scheduler
from tests import tasks
from tests.models import Effect

from .conftest import until, until_all_ended

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: The run of the issue: BGTASKS_SCHEDULE_SECONDS=120.
SECONDS = float(os.environ.get("BGTASKS_SCHEDULE_SECONDS", "10"))


def add_schedule(name, expression, **columns):
    return Schedule.objects.create(
        name=name,
        expression=expression,
        time_zone="UTC",
        **{"task_path": tasks.nothing.module_path, **columns},
    )


def test_a_worker_fires_a_schedule_and_the_task_knows_which_due_time_it_is(start_worker):
    add_schedule("each second", "every 1 second", task_path=tasks.tell_firing.module_path)
    start_worker("-p", 1)
    until(lambda: FinishedTask.objects.filter(status="SUCCESSFUL").count() >= 2)
    task = FinishedTask.objects.filter(status="SUCCESSFUL").first()
    run = ScheduleRun.objects.get(task_id=task.pk)
    assert task.return_value == ["each second", run.due_at.isoformat(), 0]


def test_a_schedule_that_is_made_while_a_worker_runs_is_heard_of(start_worker):
    start_worker("-p", 1)
    assert tasks.add.enqueue(1, 2).get(timeout=60) == 3
    FinishedTask.objects.all().delete()
    at = timezone.now() + timedelta(seconds=2)
    add_schedule("once", f"at {at.isoformat()}")
    until(lambda: FinishedTask.objects.exists())
    run = ScheduleRun.objects.get()
    assert run.due_at == at


def test_a_worker_without_a_scheduler_fires_nothing(start_worker):
    add_schedule("each second", "every 1 second")
    start_worker("-p", 1, "--no-scheduler")
    assert tasks.add.enqueue(1, 2).get(timeout=60) == 3
    time.sleep(1.5)
    assert not ScheduleRun.objects.exists()
    # And says so: a list of schedules warns if there is no other.
    assert not Worker.objects.get().scheduler


def test_each_due_time_fires_once_while_workers_are_killed(start_worker):
    """Four workers, a schedule every second, and SIGKILL at random."""
    add_schedule(
        "each second",
        "every 1 second",
        task_path=tasks.count_firing.module_path,
        overlap="allow",
        missed="all",
    )
    workers = [start_worker("-p", 1, TEST_MAX_LOST=1000) for _ in range(4)]
    until(ScheduleRun.objects.exists)
    began, kills = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        time.sleep(random.uniform(0.3, 1.2))
        place = random.randrange(4)
        workers[place].kill()
        kills += 1
        workers[place] = start_worker("-p", 1, TEST_MAX_LOST=1000)
    until(lambda: ScheduleRun.objects.count() >= SECONDS * 0.8, timeout=120)
    Schedule.objects.update(look_at=None, enabled=False)
    until_all_ended()
    due = list(ScheduleRun.objects.order_by("due_at").values_list("due_at", flat=True))
    # None left out, none twice: one row for each second from the first to the last.
    assert due == [due[0] + timedelta(seconds=n) for n in range(len(due))]
    fired = ScheduleRun.objects.filter(status="FIRED")
    assert fired.count() == len(due)
    enqueued = FinishedTask.objects.filter(task_path=tasks.count_firing.module_path)
    assert enqueued.count() == len(due)
    assert not QueuedTask.objects.exists()
    per_due = Counter(Effect.objects.values_list("name", flat=True))
    assert set(per_due) == {moment.isoformat() for moment in due}
    drift = sorted((run.fired_at - run.due_at).total_seconds() for run in fired)
    sys.stdout.write(
        f"{connection.vendor}: {len(due)} due times, {kills} workers killed, one task each; "
        f"fired late by {drift[len(drift) // 2] * 1000:.0f} ms at the median, "
        f"{drift[int(len(drift) * 0.99)] * 1000:.0f} ms at the 99th of 100\n"
    )


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_many_schedules_that_are_not_due_cost_one_query_a_second(
    start_worker, django_assert_num_queries
):
    """What it costs, and how soon one among them starts: BGTASKS_SCHEDULES=5000 is the issue's."""
    count = int(os.environ.get("BGTASKS_SCHEDULES", "500"))
    seconds, samples = (30, 100) if count >= 5000 else (3, 3)
    worker = start_worker("-p", 1)
    assert tasks.add.enqueue(1, 2).get(timeout=60) == 3

    def cost():
        before = cpu_seconds(worker.pid)
        time.sleep(seconds)
        return (cpu_seconds(worker.pid) - before) / seconds

    without = cost()
    now = timezone.now()
    rows = [
        Schedule(
            name=f"yearly {number}",
            task_path=tasks.nothing.module_path,
            expression=f"{number % 60} {number // 60 % 24} 1 1 *",
            time_zone="Europe/Berlin",
        )
        for number in range(count)
    ]
    planning = time.perf_counter()
    for row in rows:
        row.plan(now)
    planning = (time.perf_counter() - planning) / count
    Schedule.objects.bulk_create(rows)
    scheduler = Scheduler("default", ["default"])
    # Its first look asks whether the clock was ahead, too.
    scheduler.fire_due()
    with django_assert_num_queries(1):
        assert scheduler.fire_due().ids == []
    with_them = cost()
    add_schedule("each second", "every 1 second", overlap="allow")
    until(lambda: FinishedTask.objects.count() >= 2 + samples, timeout=60 + 2 * samples)
    delays = sorted(
        (FinishedTask.objects.get(pk=run.task_id).started_at - run.due_at).total_seconds() * 1000
        for run in ScheduleRun.objects.order_by("due_at")[1 : samples + 1]
    )
    sys.stdout.write(
        f"{connection.vendor}: the supervisor takes {without:.2%} of a core without schedules, "
        f"{with_them:.2%} with {count} that are not due (planned in {planning * 1e6:.0f} us "
        f"each); a task starts {delays[len(delays) // 2]:.0f} ms after its due time at the "
        f"median, {delays[int(len(delays) * 0.99) - 1]:.0f} ms at the 99th of 100\n"
    )


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@pytest.mark.skipif(FAKETIME is None, reason="Debian's package faketime is not installed.")
@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "back"])
def test_a_clock_that_is_set_fires_nothing_twice_and_stops_nothing(
    start_worker, tmp_path, direction
):
    """The clock of the worker's machine; SQLite's is the same, a server keeps its own."""
    shift = tmp_path / "shift"
    shift.write_text("+0")
    add_schedule("each second", "every 1 second", overlap="allow", missed="skip")
    start_worker(
        "-p",
        1,
        LD_PRELOAD=FAKETIME,
        FAKETIME_TIMESTAMP_FILE=shift,
        FAKETIME_NO_CACHE=1,
        FAKETIME_DONT_FAKE_MONOTONIC=1,
    )
    until(lambda: ScheduleRun.objects.filter(status="FIRED").count() >= 3)
    shift.write_text(f"{direction * 3600:+d}")
    time.sleep(1.2)
    fired = ScheduleRun.objects.filter(status="FIRED")
    before = fired.count()
    until(lambda: fired.count() >= before + 3, timeout=30)
    shift.write_text("+0")
    before = fired.count()
    until(lambda: fired.count() >= before + 3, timeout=30)
    due = list(fired.values_list("due_at", flat=True))
    assert len(set(due)) == len(due)
    tasks_of = list(fired.values_list("task_id", flat=True))
    assert len(set(tasks_of)) == len(tasks_of)
