"""What a scheduler does about due times, with a clock that is passed in."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from django_bgtasks import transitions
from django_bgtasks.models import FinishedTask, QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules.firing import TRIES, Scheduler
from django_bgtasks.schedules.turn import MOST_MADE_UP, start_of
from tests import tasks

from .conftest import finish, runs

HOURS = ["01 13:00", "01 14:00", "01 15:00"]


def at(text):
    return datetime.fromisoformat(f"2026-06-{text.replace(' ', 'T')}+00:00")


def due_of(task_id):
    return QueuedTask.objects.get(pk=task_id).options["schedule"]["due_at"]


def test_nothing_fires_before_it_is_due(add_schedule, fire, clock):
    add_schedule()
    assert fire() == []
    clock.forward(minutes=29)
    assert fire() == []
    assert fire.scheduler.fire_due(now=clock.now).next_in == 30.0


def test_a_due_time_enqueues_the_task_with_its_arguments(add_schedule, fire, clock):
    add_schedule(
        task_path=tasks.add.module_path, args=[2], kwargs={"b": 3}, queue_name="reports", priority=7
    )
    clock.forward(minutes=30)
    (task_id,) = fire()
    row = QueuedTask.objects.get(pk=task_id)
    assert (row.task_path, row.args, row.kwargs) == (tasks.add.module_path, [2], {"b": 3})
    assert (row.queue_name, row.priority, row.status) == ("reports", 7, "READY")
    assert row.options["schedule"] == {
        "name": "hourly",
        "due_at": "2026-06-01T13:00:00+00:00",
        "missed": 0,
    }
    run = ScheduleRun.objects.get()
    assert (str(run.task_id), run.due_at, run.kind) == (task_id, at("01 13:00"), "plan")
    assert run.fired_at - run.due_at == timedelta(seconds=30)


def test_a_due_time_fires_once_however_often_anybody_looks(add_schedule, fire, clock):
    add_schedule()
    clock.forward(minutes=30)
    assert len(fire()) == 1
    assert fire() == []
    # Even if the plan is lost: the runs know.
    Schedule.objects.update(next_due_at=at("01 13:00"), look_at=at("01 13:00"))
    assert fire() == []
    assert runs() == [("01 13:00", "FIRED", 0)]


def test_an_error_after_the_insert_undoes_the_run_and_the_task(
    add_schedule, fire, clock, monkeypatch
):
    add_schedule()
    clock.forward(minutes=30)
    with monkeypatch.context() as patched:
        patched.setattr(
            "django_bgtasks.schedules.turn.Turn._save",
            lambda *args: (_ for _ in ()).throw(RuntimeError("crash")),
        )
        assert fire.scheduler.fire_due(now=clock.now).ids == []
    assert not ScheduleRun.objects.exists()
    assert not QueuedTask.objects.exists()
    clock.forward(seconds=5)
    assert len(fire()) == 1
    assert runs() == [("01 13:00", "FIRED", 0)]


# Missed runs: nobody was there for three due times.


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue", "cancel"])
@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [("01 15:00", "MISSED", 2)]),
        ("once", [("01 15:00", "FIRED", 2)]),
    ],
)
def test_missed_runs_are_skipped_or_made_up_for_by_one(
    add_schedule, fire, clock, missed, expected, overlap
):
    add_schedule(missed=missed, overlap=overlap)
    clock.forward(hours=3)
    ids = fire()
    assert runs() == expected
    assert len(ids) == QueuedTask.objects.count() == (missed == "once")
    # The plan goes on as if nothing had been.
    clock.forward(minutes=30)
    finish(ids)
    assert len(fire()) == 1
    assert runs()[-1] == ("01 16:00", "FIRED", 0)


def test_each_missed_run_is_made_up_for_at_once_where_runs_may_overlap(add_schedule, fire, clock):
    add_schedule(missed="all", overlap="allow")
    clock.forward(hours=3)
    ids = fire()
    assert runs() == [(hour, "FIRED", 0) for hour in HOURS]
    assert [due_of(pk)[8:16].replace("T", " ") for pk in ids] == HOURS


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_each_missed_run_is_made_up_for_in_turn_where_runs_must_not_overlap(
    add_schedule, fire, clock, overlap
):
    add_schedule(missed="all", overlap=overlap)
    clock.forward(hours=3)
    first = fire()
    assert [status for _, status, _ in runs()] == ["FIRED", "HELD", "HELD"]
    clock.forward(seconds=2)
    assert fire() == []
    finish(first)
    clock.forward(seconds=2)
    second = fire()
    assert [status for _, status, _ in runs()] == ["FIRED", "FIRED", "HELD"]
    finish(second, "FAILED")
    clock.forward(seconds=2)
    third = fire()
    assert runs() == [(hour, "FIRED", 0) for hour in HOURS]
    assert [due_of(pk)[11:16] for pk in third] == ["15:00"]
    finish(third)
    clock.forward(seconds=2)
    assert fire() == []
    assert not Schedule.objects.get().holds


def test_of_missed_runs_that_cancel_each_other_the_last_remains(add_schedule, fire, clock):
    add_schedule(missed="all", overlap="cancel")
    clock.forward(hours=3)
    fire()
    assert runs() == [(hour, "FIRED", 0) for hour in HOURS]
    assert [due_of(row.pk)[11:16] for row in QueuedTask.objects.all()] == ["15:00"]
    cancelled = FinishedTask.objects.filter(status="CANCELLED")
    assert {row.reason for row in cancelled} == {
        "Cancelled by schedule hourly: its next run is due"
    }
    assert cancelled.count() == 2


def test_not_more_than_a_bound_of_missed_runs_is_made_up_for(add_schedule, fire, clock, caplog):
    add_schedule("* * * * *", missed="all", overlap="allow")
    clock.forward(hours=3)
    with caplog.at_level(logging.WARNING, "django_bgtasks.worker"):
        fire()
    assert "missed" in caplog.text
    fired = [due for due, status, _ in runs() if status == "FIRED"]
    # The last hundred, and the one that is in time.
    assert len(fired) == MOST_MADE_UP + 1
    assert (fired[0], fired[-1]) == ("01 13:50", "01 15:30")
    assert runs()[0] == ("01 13:49", "MISSED", 78)


def test_a_run_that_is_a_little_late_is_not_missed(add_schedule, fire, clock):
    add_schedule(missed="skip")
    clock.forward(minutes=30, seconds=25)
    assert len(fire()) == 1


def test_a_run_in_time_stands_for_those_that_were_missed(add_schedule, fire, clock):
    add_schedule(missed="once")
    clock.forward(hours=2, minutes=30)
    assert len(fire()) == 1
    assert runs() == [("01 15:00", "FIRED", 2)]


def test_years_of_missed_seconds_are_dealt_with_at_once(add_schedule, fire, clock):
    add_schedule("every 1 second", missed="once", overlap="allow")
    clock.forward(days=900)
    ids = fire()
    # Those of the last minute are in time.
    assert len(ids) == 61
    assert runs()[0][2] == 1000


# Overlap: the task of an earlier run has not ended.


@pytest.mark.parametrize(
    ("overlap", "statuses", "waiting"),
    [
        ("allow", ["FIRED", "FIRED", "FIRED"], ["13:00", "14:00", "15:00"]),
        ("skip", ["FIRED", "SKIPPED", "SKIPPED"], ["13:00"]),
        ("queue", ["FIRED", "HELD", "SKIPPED"], ["13:00"]),
        ("cancel", ["FIRED", "FIRED", "FIRED"], ["15:00"]),
    ],
)
def test_what_happens_at_a_due_time_while_an_earlier_task_has_not_ended(
    add_schedule, fire, clock, overlap, statuses, waiting
):
    add_schedule(overlap=overlap)
    for minutes in (30, 60, 60):
        clock.forward(minutes=minutes)
        fire()
    assert [status for _, status, _ in runs()] == statuses
    assert sorted(due_of(row.pk)[11:16] for row in QueuedTask.objects.all()) == waiting


def test_a_held_run_begins_when_the_one_before_has_ended(add_schedule, fire, clock):
    add_schedule(overlap="queue")
    clock.forward(minutes=30)
    first = fire()
    clock.forward(hours=1)
    assert fire() == []
    finish(first, "FAILED")
    clock.forward(seconds=1)
    assert [due_of(pk)[11:16] for pk in fire()] == ["14:00"]
    assert runs() == [("01 13:00", "FIRED", 0), ("01 14:00", "FIRED", 0)]


def test_a_running_task_that_is_replaced_is_made_to_end(add_schedule, fire, clock):
    add_schedule(overlap="cancel")
    clock.forward(minutes=30)
    (first,) = fire()
    from django_bgtasks.ids import new_id
    from django_bgtasks.models import Cancellation

    QueuedTask.objects.filter(pk=first).update(status="RUNNING", claim_id=new_id())
    clock.forward(hours=1)
    assert len(fire()) == 1
    request = Cancellation.objects.get()
    assert (str(request.task_id), request.force) == (first, True)
    assert request.reason == "Cancelled by schedule hourly: its next run is due"


# Bounds


def test_a_schedule_runs_as_often_as_it_may(add_schedule, fire, clock):
    add_schedule(max_runs=2, overlap="allow")
    for _ in range(4):
        clock.forward(hours=1)
        fire()
    assert len(runs()) == 2
    assert Schedule.objects.get().next_due_at is None


def test_a_schedule_keeps_to_its_start_and_end(add_schedule, fire, clock):
    add_schedule(start_at=at("01 15:00"), end_at=at("01 17:00"), overlap="allow")
    for _ in range(8):
        clock.forward(hours=1)
        fire()
    assert [due for due, _, _ in runs()] == ["01 15:00", "01 16:00", "01 17:00"]


def test_a_single_time_fires_once_and_for_all(add_schedule, fire, clock):
    add_schedule("at 2026-06-01 14:00")
    clock.forward(hours=2)
    assert len(fire()) == 1
    clock.forward(days=900)
    assert fire() == []
    assert runs() == [("01 14:00", "FIRED", 0)]


def test_an_interval_does_not_drift(add_schedule, fire, clock):
    add_schedule("every 20 minutes", overlap="allow")
    for _ in range(6):
        clock.forward(minutes=21)
        fire()
    # 13:00 was fired at 13:03:30, too late by more than the grace, and yet 13:20 follows.
    assert {due[-2:] for due, _, _ in runs()} == {"00", "20", "40"}


def test_an_interval_is_counted_from_the_start(add_schedule, clock):
    row = add_schedule("every 2 weeks", start_at=datetime(2026, 6, 3, 9, tzinfo=UTC))
    assert row.upcoming(2) == [
        datetime(2026, 6, 3, 9, tzinfo=UTC),
        datetime(2026, 6, 17, 9, tzinfo=UTC),
    ]


def test_jitter_spreads_starts_and_is_the_same_for_all(add_schedule, fire, clock):
    row = add_schedule(jitter=600.0)
    due = at("01 13:00")
    starts = [start_of(Schedule(name=f"s{n}", jitter=600.0), due) for n in range(200)]
    delays = sorted((start - due).total_seconds() for start in starts)
    assert 0 <= delays[0] < 60
    assert 540 < delays[-1] < 600
    clock.forward(minutes=30)
    (task_id,) = fire()
    task = QueuedTask.objects.get(pk=task_id)
    assert task.run_after == start_of(row, due)
    assert ScheduleRun.objects.get().due_at == due


def test_a_firing_that_comes_too_late_is_not_worth_it(add_schedule, fire, clock):
    add_schedule(expires=900.0)
    clock.forward(minutes=50)
    assert fire() == []
    assert runs() == [("01 13:00", "MISSED", 0)]
    clock.forward(minutes=40)
    (task_id,) = fire()
    assert QueuedTask.objects.get(pk=task_id).options["expires_at"] == "2026-06-01T14:15:00+00:00"


# Clocks


def test_a_clock_that_goes_back_fires_nothing_twice(add_schedule, fire, clock):
    add_schedule("*/10 * * * *", overlap="allow")
    for _ in range(6):
        clock.forward(minutes=10)
        fire()
    seen = runs()
    assert len(seen) == 6
    clock.back(hours=1)
    for _ in range(6):
        clock.forward(minutes=10)
        assert fire() == []
    assert runs() == seen
    clock.forward(minutes=10)
    assert len(fire()) == 1


def test_a_clock_that_goes_forward_misses_what_it_leaves_out(add_schedule, fire, clock):
    add_schedule("*/10 * * * *", missed="skip", overlap="allow")
    clock.forward(hours=1)
    fire()
    assert runs() == [("01 13:20", "MISSED", 4), ("01 13:30", "FIRED", 0)]


def test_what_a_clock_left_out_by_mistake_comes_when_it_is_set_right(add_schedule, fire, clock):
    add_schedule("*/10 * * * *", missed="skip", overlap="allow")
    clock.forward(hours=1)
    assert len(fire()) == 1
    clock.back(hours=1)
    fire()
    for _ in range(60):
        clock.forward(minutes=1)
        fire()
    # The five that were left out, each once, and 13:30 not again.
    assert runs() == [
        *((f"01 {time}", "FIRED", 0) for time in ("12:40", "12:50", "13:00", "13:10", "13:20")),
        ("01 13:30", "FIRED", 0),
    ]
    assert QueuedTask.objects.count() == 6


# What can't be fired


def test_a_schedule_that_raises_does_not_stop_the_others_and_disables_itself(
    add_schedule, fire, clock, caplog
):
    add_schedule(name="broken", task_path=tasks.add.module_path, args=["one too many", 2, 3])
    add_schedule()
    clock.forward(minutes=30)
    with caplog.at_level(logging.ERROR, "django_bgtasks.worker"):
        assert len(fire()) == 1
        for _ in range(TRIES):
            clock.forward(minutes=1, seconds=5)
            fire()
    broken = Schedule.objects.get(name="broken")
    assert (broken.enabled, broken.look_at, broken.errors) == (False, None, TRIES)
    assert "add() takes" in broken.error or "argument" in broken.error
    assert "Schedule 'broken' is disabled: it could not be fired 10 times." in caplog.text
    assert runs("broken") == []


def test_a_schedule_that_the_database_refuses_does_not_stop_the_others(
    add_schedule, fire, clock, monkeypatch
):
    """Such as a value that one database can't hold."""
    add_schedule(name="refused")
    add_schedule()
    insert = transitions.enqueue

    def refuse(alias, rows, **options):
        if '"refused"' in (rows[0][10] or ""):
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM of_no_such_table")
        insert(alias, rows, **options)

    monkeypatch.setattr(transitions, "enqueue", refuse)
    clock.forward(minutes=30)
    assert len(fire()) == 1
    assert runs() == [("01 13:00", "FIRED", 0)]
    refused = Schedule.objects.get(name="refused")
    assert (refused.errors, refused.enabled) == (1, True)
    assert runs("refused") == []


def test_an_unreadable_schedule_does_not_stop_the_others_when_the_clock_goes_back(
    add_schedule, fire, clock
):
    add_schedule(name="unreadable")
    add_schedule()
    assert fire() == []
    Schedule.objects.filter(name="unreadable").update(expression="nonsense")
    clock.back(hours=1)
    assert fire() == []
    clock.forward(minutes=31)
    assert len(fire()) == 1
    assert runs() == [("01 12:00", "FIRED", 0)]


def test_a_task_that_only_other_workers_know_is_left_to_them(add_schedule, fire, clock):
    add_schedule(task_path="tests.tasks.of_the_next_release")
    clock.forward(minutes=30)
    assert fire() == []
    row = Schedule.objects.get()
    assert (row.errors, row.enabled) == (1, True)
    assert "of_the_next_release" in row.error
    # It doesn't wait for a worker that knows the task.
    assert row.look_at == at("01 13:00")
    Schedule.objects.update(task_path=tasks.nothing.module_path)
    knows = Scheduler("default", ["default"])
    assert len(knows.fire_due(now=clock.now).ids) == 1
    assert Schedule.objects.get().errors == 0


def test_schedules_of_another_backend_are_left_to_its_workers(add_schedule, clock):
    add_schedule(backend="elsewhere")
    clock.forward(minutes=30)
    assert Scheduler("default", ["default"]).fire_due(now=clock.now).ids == []


# Plans


def test_a_changed_time_counts_from_now_on(add_schedule, fire, clock):
    row = add_schedule()
    row.expression = "*/5 * * * *"
    row.save()
    assert row.next_due_at > datetime.now(UTC)
    assert row.look_at == row.next_due_at


def test_pausing_and_resuming_makes_up_for_nothing(add_schedule, fire, clock):
    row = add_schedule()
    row.enabled = False
    row.save()
    assert row.look_at is None
    clock.forward(hours=5)
    assert fire() == []
    row.enabled = True
    row.save()
    assert row.next_due_at > datetime.now(UTC)
    assert runs() == []


def test_changes_of_other_columns_leave_the_plan_alone(add_schedule):
    row = add_schedule()
    planned = row.next_due_at
    row.priority = 3
    row.save()
    assert Schedule.objects.get().next_due_at == planned


def test_a_form_that_is_saved_late_undoes_nothing_that_a_worker_wrote(add_schedule, fire, clock):
    add_schedule(overlap="allow")
    row = Schedule.objects.get()
    clock.forward(minutes=30)
    assert len(fire()) == 1
    fired = Schedule.objects.get()
    row.priority = 3
    row.save()
    saved = Schedule.objects.get()
    assert (saved.priority, saved.runs, saved.last_due_at) == (3, 1, fired.last_due_at)
    assert (saved.next_due_at, saved.look_at) == (fired.next_due_at, fired.look_at)
    assert fire() == []
