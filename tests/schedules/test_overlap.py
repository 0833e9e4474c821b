"""Where plan, backfill and runs by hand of one schedule meet."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from django_bgtasks.models import FinishedTask, QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules.by_hand import backfill, run_now, set_enabled, still_running
from django_bgtasks.schedules.turn import LOOK_BACK, MOST_MADE_UP
from tests import policy_tasks, tasks

from .conftest import finish, runs

pytestmark = pytest.mark.django_db


def at(hour, day=1):
    return datetime(2026, 6, day, hour, tzinfo=UTC)


def ended_runs(row, count):
    """Add runs whose results were pruned, one a minute, up to now."""
    now = timezone.now()
    ScheduleRun.objects.bulk_create(
        ScheduleRun(
            schedule=row,
            due_at=now - timedelta(minutes=number),
            fired_at=now - timedelta(minutes=number),
            status="FIRED",
            task_id=f"01a2057c-0353-71a9-aa8e-{number:012}",
        )
        for number in range(1, count + 1)
    )


def test_backfill_of_long_ago_in_turn_runs_one_at_a_time(add_schedule, fire):
    row = add_schedule(overlap="skip")
    ended_runs(row, LOOK_BACK + 20)
    backfill(row, at(9), at(11), alias="default")
    now = timezone.now()
    for _ in range(5):
        now += timedelta(seconds=2)
        fire.scheduler.fire_due(now=now)
    assert QueuedTask.objects.count() == 1
    assert still_running(row, alias="default") == [str(QueuedTask.objects.get().pk)]


def test_each_of_very_many_tasks_that_have_not_ended_is_found(add_schedule):
    row = add_schedule(overlap="allow")
    for _ in range(2):
        run_now(row, alias="default")
    backfill(row, at(0), at(0) + timedelta(hours=LOOK_BACK), alias="default")
    assert len(still_running(row, alias="default")) == LOOK_BACK + 3


def test_plan_that_cancels_leaves_alone_what_people_asked_for(add_schedule, fire, clock):
    row = add_schedule(overlap="cancel")
    result = run_now(row, alias="default")
    clock.forward(minutes=30)
    (planned,) = fire()
    clock.forward(hours=1)
    (second,) = fire()
    assert {str(task.pk) for task in QueuedTask.objects.all()} == {result.id, second}
    assert str(FinishedTask.objects.get().pk) == planned


def test_plan_that_cancels_leaves_a_backfill_alone(add_schedule, fire, clock):
    clock.now = timezone.now()
    row = add_schedule(overlap="cancel")
    backfill(row, at(9), at(10), alias="default")
    now = timezone.now() + timedelta(seconds=2)
    (first,) = fire.scheduler.fire_due(now=now).ids
    now += timedelta(hours=1)
    (planned,) = fire.scheduler.fire_due(now=now).ids
    assert {str(task.pk) for task in QueuedTask.objects.all()} == {first, planned}
    assert not FinishedTask.objects.exists()


def test_task_of_another_that_has_the_unique_key_is_not_cancelled(add_schedule, fire, clock):
    add_schedule(task_path=policy_tasks.import_feed.module_path, args=[7], overlap="cancel")
    other = policy_tasks.import_feed.enqueue(7)
    for minutes in (30, 60):
        clock.forward(minutes=minutes)
        fire()
    assert [status for _, status, _ in runs()] == ["SKIPPED", "SKIPPED"]
    assert QueuedTask.objects.filter(pk=other.id).exists()


# Disabling


def held(add_schedule, fire, clock):
    """Have one run go on, and another one wait for it."""
    row = add_schedule(overlap="queue")
    clock.forward(minutes=30)
    first = fire()
    clock.forward(hours=1)
    fire()
    assert [status for _, status, _ in runs()] == ["FIRED", "HELD"]
    return row, first


def test_what_waits_of_a_plan_is_left_out_when_it_is_disabled(add_schedule, fire, clock):
    row, first = held(add_schedule, fire, clock)
    set_enabled(row, False, alias="default")
    run = ScheduleRun.objects.latest("due_at")
    assert (run.status, run.reason) == ("SKIPPED", "The schedule was disabled.")
    assert not Schedule.objects.get().holds
    finish(first)
    set_enabled(row, True, alias="default")
    now = timezone.now() + timedelta(seconds=5)
    assert fire.scheduler.fire_due(now=now).ids == []


def test_late_save_that_disables_leaves_out_what_waits_too(add_schedule, fire, clock):
    add_schedule(overlap="queue")
    stale = Schedule.objects.get()
    clock.forward(minutes=30)
    fire()
    clock.forward(hours=1)
    fire()
    stale.enabled = False
    stale.save()
    assert runs()[-1][1] == "SKIPPED"
    assert Schedule.objects.values_list("enabled", "holds", "look_at").get() == (False, False, None)


def test_backfill_in_turn_goes_on_when_the_plan_is_disabled(add_schedule, fire):
    row = add_schedule(overlap="skip")
    backfill(row, at(9), at(11), alias="default")
    set_enabled(row, False, alias="default")
    now = timezone.now()
    for _ in range(3):
        now += timedelta(seconds=2)
        finish(fire.scheduler.fire_due(now=now).ids)
    assert ScheduleRun.objects.filter(kind="backfill", status="FIRED").count() == 3
    assert not ScheduleRun.objects.filter(kind="plan").exists()
    assert Schedule.objects.get().look_at is None


def test_error_is_forgotten_when_a_held_run_begins(add_schedule, fire, clock):
    _, first = held(add_schedule, fire, clock)
    finish(first)
    Schedule.objects.update(task_path="tests.tasks.gone")
    clock.forward(seconds=2)
    fire()
    assert Schedule.objects.get().errors == 1
    Schedule.objects.update(task_path=tasks.nothing.module_path)
    fire.scheduler._unknown.clear()
    clock.forward(seconds=2)
    assert fire()
    assert Schedule.objects.values_list("errors", "error").get() == (0, "")


# Catching up


def catch_up(fire, clock, minutes):
    """Have a worker look each minute whose tasks take twenty of them."""
    begun = {}
    for number in range(minutes):
        begun.update(dict.fromkeys(fire(), number))
        finish([pk for pk, since in begun.items() if number == since + 20])
        clock.forward(minutes=1)
    return runs()


def test_times_that_are_due_while_missed_ones_are_made_up_for_are_run_too(
    add_schedule, fire, clock
):
    add_schedule(missed="all", overlap="skip")
    clock.forward(hours=3)  # 15:30: those of 13, 14 and 15 were missed.
    found = catch_up(fire, clock, 100)
    assert found == [(f"01 {hour}:00", "FIRED", 0) for hour in (13, 14, 15, 16, 17)]


def test_time_that_is_due_just_as_missed_ones_are_found_is_run_too(add_schedule, fire, clock):
    add_schedule(missed="all", overlap="skip")
    clock.forward(hours=1, minutes=30)  # 14:00:30: 13:00 was missed, 14:00 is in time.
    assert catch_up(fire, clock, 30) == [("01 13:00", "FIRED", 0), ("01 14:00", "FIRED", 0)]


def test_once_the_missed_runs_are_made_up_for_overlap_counts_again(add_schedule, fire, clock):
    add_schedule(missed="all", overlap="skip")
    clock.forward(hours=2)
    for _ in range(2):
        finish(fire())
        clock.forward(seconds=2)
    clock.forward(minutes=30)
    assert len(fire()) == 1
    clock.forward(hours=1)
    assert fire() == []
    assert [status for _, status, _ in runs()] == ["FIRED", "FIRED", "FIRED", "SKIPPED"]


def test_while_missed_runs_are_made_up_for_not_more_than_a_bound_waits(add_schedule, fire, clock):
    add_schedule("* * * * *", missed="all", overlap="skip")
    clock.forward(hours=3)
    fire()
    clock.forward(minutes=1)
    fire()
    assert ScheduleRun.objects.filter(status="HELD").count() == MOST_MADE_UP
    last = ScheduleRun.objects.latest("due_at")
    assert (last.status, last.reason) == ("SKIPPED", "100 runs wait already.")
