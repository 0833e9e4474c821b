"""run_tasks(): what workers would do, in the test's thread and transaction."""

from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_bgtasks import chain, group, previous, queues, schedule
from django_bgtasks.compat import task_finished
from django_bgtasks.exceptions import TaskFailed, UnknownTask
from django_bgtasks.models import FinishedTask, QueuedTask, ScheduleRun
from django_bgtasks.signals import task_retried
from django_bgtasks.testing import run_tasks
from tests.models import Effect
from tests.workflows import tasks as flows

from . import tasks
from .cases import IN_BOTH


def states():
    live = QueuedTask.objects.values_list("status", flat=True)
    return sorted([*live, *FinishedTask.objects.values_list("status", flat=True)])


def counts(done):
    return done.successful, done.failed, done.cancelled, done.retried, done.snoozed


# Ends


@IN_BOTH
def test_what_is_enqueued_runs_and_its_results_are_returned(in_transaction):
    first, second = tasks.note.enqueue("a", 1), tasks.note.enqueue("b", 2)
    done = run_tasks()
    assert counts(done) == (2, 0, 0, 0, 0)
    assert [(r.id, r.state, r.return_value) for r in done.tasks] == [
        (first.id, "SUCCESSFUL", 1),
        (second.id, "SUCCESSFUL", 2),
    ]
    assert first.get(timeout=0) == 1
    assert Effect.objects.count() == 2


@pytest.mark.django_db
def test_where_nothing_is_enqueued_nothing_runs():
    assert counts(run_tasks()) == (0, 0, 0, 0, 0)


@IN_BOTH
def test_what_tasks_enqueue_runs_too(in_transaction):
    tasks.enqueue_another.enqueue(3)
    assert run_tasks().successful == 4
    assert Effect.objects.filter(name="child").count() == 3


@IN_BOTH
def test_what_a_task_leaves_to_on_commit_is_called(in_transaction):
    tasks.enqueue_on_commit.enqueue()
    assert run_tasks().successful == 2
    assert Effect.objects.filter(name="committed").exists()


@IN_BOTH
def test_async_tasks_run(in_transaction):
    tasks.note_async.enqueue("async")
    (result,) = run_tasks().tasks
    assert result.return_value == 1
    assert Effect.objects.filter(name="async").exists()


@pytest.mark.django_db(transaction=True)
def test_an_async_test_awaits_it_in_a_thread():
    from asgiref.sync import async_to_sync

    async def test():
        await tasks.note_async.aenqueue("async")
        return await sync_to_async(run_tasks)()

    assert async_to_sync(test)().successful == 1


@pytest.mark.django_db
def test_queues_are_taken_in_their_order_and_tasks_by_priority():
    tasks.send_receipt.enqueue(1)
    low = tasks.note.enqueue("low")
    high = tasks.note.using(priority=5).enqueue("high")
    done = run_tasks()
    assert [r.id for r in done.tasks][:2] == [high.id, low.id]


@pytest.mark.django_db
def test_a_paused_queue_is_left_alone():
    queues.pause("emails")
    tasks.send_receipt.enqueue(1)
    assert run_tasks().tasks == []
    queues.resume("emails")
    assert run_tasks().successful == 1


# Failures


@IN_BOTH
def test_the_first_failure_is_raised_and_written(in_transaction):
    tasks.note_and_fail.enqueue("a")
    tasks.note.enqueue("later")
    with pytest.raises(ValueError, match=r"^a\n") as raised:
        run_tasks()
    assert raised.value.args == ("a",)
    (note,) = raised.value.__notes__
    assert "tests.testing.tasks.note_and_fail" in note
    assert "raise_errors=False" in note
    assert states() == ["FAILED", "READY"]
    # As on a worker: what was written before it raised stays.
    assert Effect.objects.filter(name="a").exists()
    assert run_tasks().successful == 1


@IN_BOTH
def test_failures_are_counted_on_demand(in_transaction):
    tasks.fail.enqueue()
    tasks.note.enqueue("a")
    done = run_tasks(raise_errors=False)
    assert counts(done) == (1, 1, 0, 0, 0)
    assert done.tasks[0].errors[0].exception_class_path == "builtins.ValueError"


@pytest.mark.django_db
def test_what_would_end_the_process_fails_the_test_alone():
    tasks.exit_the_process.enqueue()
    with pytest.raises(TaskFailed, match=r"SystemExit\(3\)"):
        run_tasks()


@pytest.mark.django_db
def test_an_unknown_task_is_raised():
    tasks.note.enqueue("a")
    QueuedTask.objects.update(task_path="tests.testing.tasks.renamed")
    with pytest.raises(UnknownTask, match="renamed"):
        run_tasks()
    assert states() == ["SCHEDULED"]


@IN_BOTH
def test_a_statement_that_fails_does_not_end_the_tests_transaction(in_transaction):
    tasks.break_the_statement.enqueue()
    assert run_tasks(raise_errors=False).failed == 1
    assert states() == ["FAILED"]
    tasks.swallow_an_error.enqueue()
    assert run_tasks().tasks[0].return_value == "swallowed"


@IN_BOTH
def test_a_block_without_savepoint_is_undone_as_on_a_worker(in_transaction):
    tasks.fail_in_a_block_without_savepoint.enqueue()
    assert run_tasks(raise_errors=False).failed == 1
    assert not Effect.objects.exists()


@IN_BOTH
def test_the_work_of_an_atomic_task_is_undone_when_it_fails(in_transaction):
    tasks.note_atomic.enqueue("kept")
    tasks.note_atomic.enqueue("undone", then_fail=True)
    assert counts(run_tasks(raise_errors=False))[:2] == (1, 1)
    assert [row.name for row in Effect.objects.all()] == ["kept"]


# Attempts


@IN_BOTH
def test_other_attempts_follow_at_once(in_transaction):
    result = tasks.fail_twice.enqueue("a")
    before = timezone.now()
    done = run_tasks()
    assert counts(done) == (1, 0, 0, 2, 0)
    assert timezone.now() - before < timedelta(seconds=60)
    result.refresh()
    assert (result.return_value, result.attempts) == ("third", 3)


@pytest.mark.django_db
def test_context_retry_is_another_attempt():
    tasks.ask_again.enqueue()
    done = run_tasks()
    assert (done.retried, done.tasks[0].return_value) == (1, 2)


@pytest.mark.django_db
def test_a_task_that_snoozes_waits():
    tasks.snooze.enqueue()
    assert counts(run_tasks()) == (0, 0, 0, 0, 1)
    assert states() == ["SCHEDULED"]
    Effect.objects.create(name="awake")
    assert run_tasks(until=timedelta(minutes=6)).successful == 1


@pytest.mark.django_db
def test_a_task_without_an_end_is_told_of():
    tasks.enqueue_itself.enqueue()
    with pytest.raises(RuntimeError, match=r"tests\.testing\.tasks\.enqueue_itself .*most="):
        run_tasks(most=20)
    assert states() == ["READY", *["SUCCESSFUL"] * 20]


@IN_BOTH
def test_the_signals_of_a_worker_are_sent(in_transaction):
    heard = []

    def on_finished(task_result, **kwargs):
        heard.append(task_result.state)

    def on_retried(delay, **kwargs):
        heard.append(delay)

    task_finished.connect(on_finished)
    task_retried.connect(on_retried)
    try:
        tasks.fail_twice.enqueue("a")
        run_tasks()
    finally:
        task_finished.disconnect(on_finished)
        task_retried.disconnect(on_retried)
    assert heard == [60, 120, "SUCCESSFUL"]


# Limits


@IN_BOTH
def test_tasks_of_a_limit_run_one_after_the_other(in_transaction):
    tasks.one_at_a_time.enqueue_many([{"name": str(n)} for n in range(5)])
    assert run_tasks().successful == 5
    assert states() == ["SUCCESSFUL"] * 5


@IN_BOTH
def test_a_rate_moves_the_time_forward(in_transaction):
    tasks.one_a_minute.enqueue_many([{"name": str(n)} for n in range(3)])
    assert run_tasks().successful == 3
    first, second, third = tasks.times
    assert second - first >= timedelta(seconds=59)
    assert third - second >= timedelta(seconds=59)
    assert timezone.now() < second


@pytest.mark.django_db
def test_a_rate_stops_at_the_moment_that_is_given():
    tasks.one_a_minute.enqueue_many([{"name": str(n)} for n in range(3)])
    assert run_tasks(until=timedelta(seconds=90)).successful == 2
    assert states() == ["SUCCESSFUL", "SUCCESSFUL", "WAITING"]
    assert run_tasks().successful == 1


# Workflows


@IN_BOTH
def test_workflows_run_to_their_end(in_transaction):
    flow = chain(
        group(flows.give.with_args(n) for n in range(3)), flows.total.with_args(previous)
    ).enqueue()
    assert run_tasks().successful == 4
    assert flow.get(timeout=0) == 3


@IN_BOTH
def test_what_follows_a_failure_in_a_workflow_runs(in_transaction):
    chain(flows.fail.with_args(), on_failure=flows.note.with_args("failed")).enqueue()
    done = run_tasks(raise_errors=False)
    assert (done.successful, done.failed) == (1, 1)
    assert Effect.objects.filter(name="failed").exists()


@IN_BOTH
def test_what_a_task_adds_to_its_workflow_runs(in_transaction):
    chain(flows.fan_out.with_args(3)).enqueue()
    assert run_tasks().successful > 1
    assert set(states()) == {"SUCCESSFUL"}


# Time


@IN_BOTH
def test_a_task_for_later_waits_unless_time_goes_on(in_transaction):
    tasks.note.using(run_after=timedelta(hours=1)).enqueue("later")
    assert run_tasks().tasks == []
    assert run_tasks(until=timedelta(minutes=59)).tasks == []
    assert run_tasks(until=timezone.now() + timedelta(minutes=61)).successful == 1


@IN_BOTH
def test_pauses_are_waited_for_when_time_goes_on(in_transaction):
    tasks.fail_twice.enqueue("a")
    assert counts(run_tasks(until=timedelta(seconds=30))) == (0, 0, 0, 1, 0)
    done = run_tasks(until=timedelta(hours=1))
    assert counts(done) == (1, 0, 0, 1, 0)
    first, second, third = tasks.times
    assert second - first >= timedelta(seconds=60)
    assert third - second >= timedelta(seconds=120)


@pytest.mark.django_db
def test_time_is_what_it_was_afterwards():
    tasks.note.using(run_after=timedelta(days=30)).enqueue("later")
    before = timezone.now()
    assert run_tasks(until=timedelta(days=31)).successful == 1
    assert timezone.now() - before < timedelta(days=1)


@pytest.mark.django_db
def test_a_task_that_is_too_late_is_cancelled():
    tasks.perishable.enqueue()
    tasks.one_a_minute.enqueue("a")
    QueuedTask.objects.filter(task_path__endswith="perishable").update(status="SCHEDULED")
    QueuedTask.objects.filter(task_path__endswith="perishable").update(
        due_at=timezone.now() + timedelta(minutes=1)
    )
    assert counts(run_tasks(until=timedelta(minutes=2))) == (1, 0, 1, 0, 0)


@IN_BOTH
def test_a_clock_that_the_test_has_set_is_the_databases_too(in_transaction, monkeypatch):
    """As freezegun and time-machine do: timezone.now() is another."""
    tasks.note.using(run_after=timedelta(hours=1)).enqueue("later")
    moment = timezone.now() + timedelta(hours=2)
    monkeypatch.setattr(timezone, "now", lambda: moment)
    (result,) = run_tasks().tasks
    assert result.started_at == result.finished_at == moment


@pytest.mark.django_db
def test_the_default_of_a_field_is_told_the_time_of_the_clock():
    tasks.make_a_member.using(run_after=timedelta(days=30)).enqueue("ann")
    run_tasks(until=timedelta(days=31))
    assert User.objects.get().date_joined - timezone.now() > timedelta(days=29)
    assert timezone.template_localtime(timezone.now()).tzinfo is not None


@IN_BOTH
def test_schedules_fire_when_time_goes_on(in_transaction, monkeypatch):
    schedule("0 * * * *", name="hourly", tz="UTC", args=["hourly"])(tasks.note)
    moment = datetime(2030, 5, 1, 12, 30, tzinfo=UTC)
    monkeypatch.setattr(timezone, "now", lambda: moment)
    assert run_tasks().tasks == []
    assert run_tasks(until=timedelta(hours=3)).successful == 3
    fired = ScheduleRun.objects.values_list("due_at", flat=True).order_by("due_at")
    assert [due.hour for due in fired] == [13, 14, 15]


@IN_BOTH
def test_a_second_journey_fires_nothing_twice(in_transaction, monkeypatch):
    schedule("0 * * * *", name="hourly", tz="UTC", args=["hourly"])(tasks.note)
    moment = datetime(2030, 5, 1, 12, 30, tzinfo=UTC)
    monkeypatch.setattr(timezone, "now", lambda: moment)
    assert run_tasks(until=timedelta(hours=1)).successful == 1
    assert run_tasks(until=timedelta(hours=1)).successful == 0
    assert run_tasks(until=timedelta(hours=3)).successful == 2


@pytest.mark.django_db
def test_only_schedules_that_are_named_fire():
    schedule("* * * * *", name="often", args=["often"])(tasks.note)
    schedule("0 * * * *", name="hourly", args=["hourly"])(tasks.note)
    assert run_tasks(until=timedelta(hours=2), schedules=["hourly"]).successful == 2
    assert set(Effect.objects.values_list("name", flat=True)) == {"hourly"}
    with pytest.raises(TypeError, match="until"):
        run_tasks(schedules=["hourly"])


@pytest.mark.django_db
@pytest.mark.parametrize("until", [datetime(2030, 1, 1), 3600, "tomorrow"])
def test_a_moment_is_an_aware_datetime_or_a_timedelta(until):
    with pytest.raises(TypeError, match="until must be"):
        run_tasks(until=until)


# Where it can't be


@IN_BOTH
def test_a_block_of_ones_own_is_refused(in_transaction):
    tasks.note.enqueue("a")
    with transaction.atomic(), pytest.raises(RuntimeError, match="after the block"):
        run_tasks()
    assert states() == ["READY"]


@override_settings(TASKS={"default": {"BACKEND": "django_bgtasks.DummyBackend", "QUEUES": []}})
def test_without_a_backend_of_the_database_there_is_nothing_to_run():
    with pytest.raises(ImproperlyConfigured, match="DatabaseBackend"):
        run_tasks()


ELSEWHERE = {
    "default": {
        "BACKEND": "django_bgtasks.DatabaseBackend",
        "QUEUES": [],
        "OPTIONS": {"DATABASE": "other"},
    }
}


@pytest.mark.parametrize(
    "in_transaction",
    [
        pytest.param(True, marks=pytest.mark.django_db(databases=["default", "other"])),
        pytest.param(
            False, marks=pytest.mark.django_db(transaction=True, databases=["default", "other"])
        ),
    ],
)
@override_settings(TASKS=ELSEWHERE)
def test_tasks_of_another_database_run(in_transaction):
    tasks.note.enqueue("a")
    tasks.fail_twice.enqueue("b")
    chain(flows.give.with_args(3), flows.show.with_args(previous)).enqueue()
    assert run_tasks().successful == 4
    assert FinishedTask.objects.using("other").count() == 4
    assert not FinishedTask.objects.exists()
    tasks.fail.enqueue()
    with pytest.raises(ValueError, match="oh"):
        run_tasks()
