"""What people do to schedules, and what they are told."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone, translation

from django_bgtasks.exceptions import DuplicateTask
from django_bgtasks.models import QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules import watching
from django_bgtasks.schedules.by_hand import (
    NotPossible,
    backfill,
    run_now,
    set_enabled,
    still_running,
)
from django_bgtasks.schedules.words import describe
from django_bgtasks.worker.maintenance import forget_runs
from tests import policy_tasks, tasks

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


# Unique keys


def test_run_by_hand_that_a_unique_key_gives_away_is_written_down_as_skipped(add_schedule):
    row = add_schedule(task_path=policy_tasks.import_feed.module_path, args=[7])
    there = policy_tasks.import_feed.enqueue(7)
    result = run_now(row, by="ann", alias="default")
    assert (result.id, result.created) == (there.id, False)
    run = ScheduleRun.objects.get()
    assert (run.status, run.reason) == ("SKIPPED", f"Task {there.id} has its unique key.")


def test_run_by_hand_that_a_unique_key_refuses_is_written_down_as_skipped(add_schedule):
    row = add_schedule(task_path=policy_tasks.charge.module_path, args=[7])
    policy_tasks.charge.enqueue(7)
    with pytest.raises(DuplicateTask):
        run_now(row, by="ann", alias="default")
    run = ScheduleRun.objects.get()
    assert (run.status, run.kind, run.task_id) == ("SKIPPED", "manual", None)
    assert "has the unique key" in run.reason


@pytest.mark.parametrize("name", ["import_feed", "charge"])
def test_backfill_that_a_unique_key_gives_away_counts_as_not_done(add_schedule, name):
    task = getattr(policy_tasks, name)
    row = add_schedule(task_path=task.module_path, args=[7], overlap="allow")
    found = backfill(row, at(9), at(11), alias="default")
    assert found.due == [at(9)]
    assert list(found.refused) == [at(10), at(11)]
    assert "unique key" in found.refused[at(10)]
    assert [status for _, status, _ in runs()] == ["FIRED", "SKIPPED", "SKIPPED"]
    again = backfill(row, at(9), at(11), dry_run=True, alias="default")
    assert (again.done, again.due) == ([at(9)], [at(10), at(11)])


# Bounds


def test_backfill_stays_between_start_and_end(add_schedule):
    row = add_schedule(start_at=at(10), end_at=at(11))
    assert backfill(row, at(8), at(13), dry_run=True, alias="default").due == [at(10), at(11)]
    with pytest.raises(NotPossible, match="It starts at 2026-06-01 10:00"):
        backfill(row, at(8), at(9), alias="default")
    with pytest.raises(NotPossible, match="It ends at 2026-06-01 11:00"):
        backfill(row, at(12), at(13), alias="default")


@pytest.mark.parametrize(
    "act",
    [
        lambda row: set_enabled(row, False, alias="default"),
        lambda row: run_now(row, alias="default"),
        lambda row: backfill(row, at(9), at(9), alias="default"),
    ],
)
def test_what_is_done_to_a_schedule_that_was_deleted_is_refused_in_words(add_schedule, act):
    row = add_schedule()
    Schedule.objects.all().delete()
    with pytest.raises(NotPossible, match="Schedule 'hourly' is gone"):
        act(row)


# Success in time


def late(clock):
    return [p.rule for p in watching.problems("default", now=clock.now) if p.rule == "success"]


def test_success_is_not_missed_after_the_last_run(add_schedule, fire, clock):
    add_schedule(max_runs=1, success_within=600)
    clock.forward(minutes=30)
    ids = fire()
    clock.forward(minutes=15)
    assert late(clock) == ["success"]
    finish(ids)
    clock.forward(hours=5)
    assert late(clock) == []


def test_success_is_not_missed_of_what_was_due_while_disabled(add_schedule, clock):
    row = add_schedule(success_within=600, enabled=False)
    clock.forward(hours=5)
    row.enabled = True
    row.plan(clock.now)
    Schedule.objects.bulk_update([row], ["enabled", "planned_from", "next_due_at", "look_at"])
    assert late(clock) == []


def test_success_is_not_missed_of_what_another_expression_would_have_had_due(add_schedule):
    row = add_schedule("0 0 1 1 *", success_within=600)
    row.expression = "* * * * *"
    row.save()
    now = timezone.now()
    found = watching.problems("default", now=now + timedelta(seconds=30))
    assert [p.rule for p in found if p.rule == "success"] == []


def test_success_of_the_last_due_time_before_the_end_counts(add_schedule, fire, clock):
    add_schedule(success_within=600, end_at=at(13) + timedelta(minutes=5))
    clock.forward(minutes=30)
    ids = fire()
    clock.forward(hours=3)
    assert late(clock) == ["success"]
    finish(ids)
    assert late(clock) == []


@pytest.mark.parametrize(
    ("when", "text"),
    [
        # One of both days begins with a star: both must match.
        ("0 9 */2 * 1", "At 09:00, every 2 days, only on Monday"),
        ("0 9 */2 3 1-5", "At 09:00, every 2 days, Monday through Friday, only in March"),
        # Else either one is enough.
        ("0 9 13 * 5", "At 09:00, on day 13 of the month, or on Friday"),
        ("0 9 13 * 1-5", "At 09:00, on day 13 of the month, or Monday through Friday"),
        ("0 9 ? * 1", "At 09:00, only on Monday"),
    ],
)
def test_words_say_whether_one_day_is_enough(when, text):
    assert describe(when) == text
