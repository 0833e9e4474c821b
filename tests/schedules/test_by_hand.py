"""What people do to schedules, and what they are told."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone, translation

from django_bgtasks.models import QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules import watching
from django_bgtasks.schedules.by_hand import NotPossible, backfill, run_now, still_running
from django_bgtasks.schedules.words import describe
from django_bgtasks.worker.maintenance import forget_runs
from tests import tasks

from .conftest import finish, runs


def at(hour):
    return datetime(2026, 6, 1, hour, tzinfo=UTC)


def test_run_now_enqueues_and_leaves_the_plan_alone(add_schedule):
    row = add_schedule(task_path=tasks.add.module_path, args=[1, 2], overlap="skip")
    planned = Schedule.objects.values().get()
    result = run_now(row, by="ann", alias="default")
    assert QueuedTask.objects.get().args == [1, 2]
    assert still_running(row, alias="default") == [result.id]
    run = ScheduleRun.objects.get()
    assert (run.kind, run.reason, str(run.task_id)) == ("manual", "Run by ann.", result.id)
    assert Schedule.objects.values().get() == planned


def test_a_backfill_runs_what_was_not_run(add_schedule, fire, clock):
    row = add_schedule(overlap="allow")
    clock.forward(hours=2)
    fire()
    found = backfill(row, at(10), at(14), by="ann", alias="default")
    # The run of 14:00 stood for 13:00, too; yet that itself was not run.
    assert [due.hour for due in found.due] == [10, 11, 12, 13]
    assert [due.hour for due in found.done] == [14]
    kinds = ScheduleRun.objects.order_by("due_at").values_list("kind", flat=True)
    assert list(kinds) == [*["backfill"] * 4, "plan"]
    again = backfill(row, at(10), at(14), alias="default")
    assert again.due == []


def test_a_backfill_makes_up_for_what_was_skipped(add_schedule, fire, clock):
    row = add_schedule(missed="skip", overlap="allow")
    clock.forward(hours=4)
    fire()
    assert runs() == [("01 16:00", "MISSED", 3)]
    found = backfill(row, at(13), at(16), alias="default")
    assert [due.hour for due in found.due] == [13, 14, 15, 16]
    assert {status for _, status, _ in runs()} == {"FIRED"}


def test_a_backfill_that_must_not_overlap_runs_in_turn(add_schedule, fire, clock):
    row = add_schedule(overlap="skip")
    found = backfill(row, at(9), at(11), alias="default")
    assert found.in_turn
    assert not QueuedTask.objects.exists()
    now = timezone.now()
    for hour in (9, 10, 11):
        now += timedelta(seconds=2)
        (task_id,) = fire.scheduler.fire_due(now=now).ids
        assert QueuedTask.objects.get().options["schedule"]["due_at"][11:13] == f"{hour:02}"
        finish([task_id])
    statuses = ScheduleRun.objects.filter(kind="backfill").values_list("status", flat=True)
    assert list(statuses) == ["FIRED"] * 3


def test_a_dry_run_writes_nothing(add_schedule):
    row = add_schedule()
    assert len(backfill(row, at(9), at(11), dry_run=True, alias="default").due) == 3
    assert not ScheduleRun.objects.exists()


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (at(11), at(9), "before it starts"),
        (at(9), timezone.now() + timedelta(hours=1), "has not come yet"),
        (at(9) + timedelta(minutes=1), at(9) + timedelta(minutes=2), "is not due in that range"),
        (at(9).replace(year=2020), at(9), "more than 1,000 times"),
        (at(9).replace(tzinfo=None), at(9), "aware datetimes"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(add_schedule, start, end, message):
    row = add_schedule()
    with pytest.raises(NotPossible, match=message):
        backfill(row, start, end, alias="default")


# Watching


def test_the_last_runs_say_what_came_of_their_tasks(add_schedule, fire, clock):
    row = add_schedule(overlap="skip")
    clock.forward(minutes=30)
    first = fire()
    clock.forward(hours=1)
    fire()
    finish(first, "FAILED")
    clock.forward(hours=1)
    fire()
    outcomes = watching.latest(row, alias="default")
    assert [outcome.state for outcome in outcomes] == ["READY", "SKIPPED", "FAILED"]
    assert outcomes[0].drift == 30.0
    (last,) = watching.last_of(list(Schedule.objects.all()), alias="default").values()
    assert last.state == "READY"


def test_last_runs_of_many_schedules_take_three_queries(
    add_schedule, fire, clock, django_assert_num_queries
):
    for number in range(5):
        add_schedule(name=f"s{number}")
    clock.forward(minutes=30)
    fire()
    rows = list(Schedule.objects.all())
    with django_assert_num_queries(3):
        assert len(watching.last_of(rows, alias="default")) == 5


def test_a_schedule_that_nobody_fires_is_a_problem(add_schedule, clock):
    add_schedule()
    clock.forward(minutes=31)
    (problem,) = watching.problems("default", now=clock.now)
    assert (problem.rule, problem.schedule) == ("overdue", "hourly")
    assert "was due 90 s ago and has not been fired" in problem.text


def test_a_schedule_must_succeed_in_time_if_asked(add_schedule, fire, clock):
    add_schedule(success_within=600.0)
    clock.forward(minutes=30)
    ids = fire()
    assert watching.problems("default", now=clock.now) == []
    clock.forward(minutes=10)
    (problem,) = watching.problems("default", now=clock.now)
    assert problem.rule == "success"
    assert "was due at 2026-06-01 13:00 UTC and has not succeeded within 10 minutes" in problem.text
    finish(ids, "FAILED")
    assert len(watching.problems("default", now=clock.now)) == 1
    # Run again by hand, it makes good.
    result = run_now(Schedule.objects.get(), alias="default")
    finish([result.id])
    assert watching.problems("default", now=clock.now) == []


def test_a_schedule_that_could_not_be_fired_is_a_problem(add_schedule, fire, clock):
    add_schedule(task_path="tests.tasks.gone")
    clock.forward(minutes=30)
    fire()
    (problem,) = watching.problems("default", now=clock.now)
    assert problem.rule == "error"
    assert "can't be fired: No task 'tests.tasks.gone'" in problem.text


def test_old_runs_are_forgotten_but_the_latest(add_schedule):
    row = add_schedule()
    now = timezone.now()
    times = [now - timedelta(days=days) for days in (90, 60, 45, 1)]
    for moment in times[:3]:
        ScheduleRun.objects.create(schedule=row, due_at=moment, fired_at=moment, status="FIRED")
    Schedule.objects.update(last_due_at=times[2])
    forget_runs("default")
    assert [run.due_at for run in ScheduleRun.objects.all()] == [times[2]]


# Words


@pytest.mark.parametrize(
    ("when", "language", "text"),
    [
        ("0 2 * * 1-5", "en", "At 02:00, Monday through Friday"),
        ("@daily", "en", "At 00:00"),
        ("every 15 minutes", "en", "Every 15 minutes"),
        ("every 1 hour", "en", "Every hour"),
        ("at 2027-01-01 08:00", "en", "Once, at Jan. 1, 2027, 8 a.m."),
        ("0 2 * * 1-5", "de", "Um 02:00, Montag bis Freitag"),
        ("0 2 * * 1-5", "pl", "O 02:00, od poniedziałek do piątek"),
        ("nonsense", "en", "nonsense"),
    ],
)
def test_a_schedule_in_words(when, language, text):
    with translation.override(language):
        assert describe(when) == text
