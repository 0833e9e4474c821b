"""What a worker does with each policy, and what the task's context does for the task."""

import time
from datetime import timedelta

import pytest

from django_bgtasks import carry, queues
from django_bgtasks.models import FinishedTask, QueuedTask, Step
from tests import policy_tasks, tasks
from tests.models import Effect

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


def finish(result, timeout=60):
    until(lambda: result.refresh() or result.is_finished, timeout=timeout)
    return result


# Retries


def test_each_attempt_keeps_its_error_its_worker_and_its_times(start_worker):
    start_worker("-p", 1, "--name", "w")
    result = policy_tasks.fail_until.enqueue(3)
    assert result.get(timeout=60) == 3
    assert [e.exception_class_path for e in result.errors] == ["builtins.ConnectionError"] * 2
    row = FinishedTask.objects.get()
    assert [e["attempt"] for e in row.errors] == [1, 2]
    assert {e["worker_id"] for e in row.errors} == {"w"}
    assert all(e["started_at"] < e["ended_at"] for e in row.errors)
    assert "attempt 2" in row.errors[1]["traceback"]


def test_a_task_can_ask_for_a_retry_that_spends_an_attempt(start_worker):
    start_worker("-p", 1)
    result = policy_tasks.ask_for_a_retry.enqueue(0.05)
    assert result.get(timeout=60) == 3
    assert [e.exception_class_path for e in result.errors] == [
        "django_bgtasks.exceptions.RetryRequested"
    ] * 2
    assert "The partner asked for patience." in result.errors[0].traceback


def test_the_pause_of_a_retry_outlives_every_process(start_worker):
    worker = start_worker("-p", 1)
    result = policy_tasks.ask_for_a_retry.enqueue(3)
    until(lambda: result.refresh() or result.state == "SCHEDULED")
    worker.kill()
    due = QueuedTask.objects.get().due_at
    start_worker("-p", 1)
    until(lambda: result.refresh() or result.attempts == 2)
    assert result.last_attempted_at >= due


def test_a_task_can_snooze_and_spends_no_attempt(start_worker):
    start_worker("-p", 1)
    result = policy_tasks.snooze_twice.enqueue()
    assert result.get(timeout=60) == 1
    assert result.errors == []
    assert Effect.objects.filter(name="snoozed").count() == 3


# Expiry


def test_a_task_that_could_not_start_in_time_is_cancelled_and_says_so(start_worker):
    late = policy_tasks.worth_it_soon.enqueue()
    in_time = policy_tasks.worth_it_soon.using(expires=timedelta(hours=1)).enqueue()
    time.sleep(0.3)
    start_worker("-p", 1)
    assert in_time.get(timeout=60) == "in time"
    finish(late)
    assert late.state == "CANCELLED"
    assert late.reason.startswith("Expired: it could not start before ")
    assert late.errors == []


def test_an_expired_task_that_is_retried_by_hand_runs(start_worker):
    late = policy_tasks.worth_it_soon.enqueue()
    time.sleep(0.3)
    start_worker("-p", 1)
    finish(late)
    late.retry()
    assert late.get(timeout=60) == "in time"


# Queues


def test_a_paused_queue_is_left_alone_within_two_seconds_and_goes_on_when_it_is_resumed(
    start_worker,
):
    start_worker("-p", 1)
    tasks.add.enqueue(1, 1).get(timeout=60)
    queues.pause("default", reason="the shop is closed", by="ada")
    time.sleep(2)
    waiting = tasks.add.enqueue(1, 2)
    time.sleep(1)
    waiting.refresh()
    assert waiting.state == "READY"
    (row,) = queues.paused()
    assert (row.name, row.reason, row.paused_by) == ("default", "the shop is closed", "ada")
    queues.resume("default")
    assert waiting.get(timeout=60) == 3


# Exactly once


def counters():
    return dict(Effect.objects.values_list("name", "number"))


def test_an_atomic_task_that_fails_leaves_nothing_behind(start_worker):
    Effect.objects.create(name="first")
    start_worker("-p", 1)
    failed = finish(policy_tasks.fail_atomically.enqueue("first"))
    assert failed.state == "FAILED"
    assert failed.errors[0].exception_class_path == "builtins.ValueError"
    unstorable = finish(policy_tasks.return_what_cannot_be_stored.enqueue("first"))
    assert "ResultNotStorable" in unstorable.reason
    assert counters() == {"first": 0}
    assert not QueuedTask.objects.exists()
    assert FinishedTask.objects.count() == 2


def test_an_atomic_task_commits_with_what_it_enqueues(start_worker):
    Effect.objects.create(name="first")
    Effect.objects.create(name="second")
    start_worker("-p", 1, "--threads=2")
    result = policy_tasks.count_atomically.enqueue("first")
    result.get(timeout=60)
    until(lambda: FinishedTask.objects.count() == 2)
    assert counters() == {"first": 1, "second": 1}
    assert result.attempts == 1


def test_a_step_that_completed_is_not_made_again(start_worker):
    start_worker("-p", 1)
    result = policy_tasks.fail_between_steps.enqueue()
    assert result.get(timeout=60) == [[1, 1], [1, 2]]
    assert result.attempts == 3
    assert sorted(Effect.objects.values_list("name", flat=True)) == [
        "task 1 step 1",
        "task 1 step 2",
    ]
    assert list(Step.objects.order_by("pk").values_list("name", "attempt")) == [
        ("first", 1),
        ("second", 3),
    ]


def test_a_step_that_fails_takes_its_work_back(start_worker):
    start_worker("-p", 1)
    assert policy_tasks.fail_within_a_step.enqueue().get(timeout=60) == "done"
    assert Effect.objects.count() == 1


def test_a_step_needs_a_name_of_its_own(start_worker):
    start_worker("-p", 1)
    result = finish(policy_tasks.take_a_step_twice.enqueue())
    assert "StepFailed" in result.reason
    assert "Give each its own name" in result.errors[0].traceback


def test_coroutines_take_steps(start_worker):
    start_worker("-p", 1)
    assert policy_tasks.take_async_steps.enqueue().get(timeout=60) == [7, [1, 1]]
    assert sorted(Effect.objects.values_list("name", flat=True)) == ["asked", "task 1 step 1"]


# Context


def test_a_run_leaves_progress_labels_and_its_log_and_knows_its_metadata(start_worker):
    start_worker("-p", 1)
    with carry(request_id="r-1"):
        result = policy_tasks.leave_notes.using(metadata={"user": 7}).enqueue()
    value = result.get(timeout=60)
    assert value == {
        "metadata": {"request_id": "r-1", "user": 7},
        "key": result.id,
        "same": True,
    }
    assert result.progress["message"] == "Importing rows"
    assert (result.progress["current"], result.progress["total"]) == (47, 120)
    assert result.labels == {"team": "billing", "rows": 47}
    row = FinishedTask.objects.get()
    assert "WARNING tests.policies: imported 47 rows" in row.errors[0]["log"]
    assert "all is well" not in row.errors[0]["log"]
    assert "all is well" in row.notes["log"]


def test_what_a_task_enqueues_carries_its_metadata_on(start_worker):
    start_worker("-p", 1)
    with carry(request_id="r-2"):
        outer = policy_tasks.enqueue_another.enqueue()
    inner = policy_tasks.leave_notes.get_result(outer.get(timeout=60))
    assert inner.get(timeout=60)["metadata"] == {"request_id": "r-2"}


def test_progress_is_seen_while_the_task_runs(start_worker):
    start_worker("-p", 1)
    result = policy_tasks.track_until_cancelled.enqueue()
    until(lambda: result.refresh() or (result.progress and result.progress["current"] > 3))
    assert result.progress["total"] == 100_000
    assert result.progress["message"] == "Counting"
    result.cancel()
    finish(result)


def test_records_of_a_task_say_which_task_it_is(start_worker):
    worker = start_worker("-p", 1, settings="tests.processes.logging_settings")
    result = policy_tasks.leave_notes.enqueue()
    result.get(timeout=60)
    lines = [line for line in worker.output.splitlines() if "imported 47 rows" in line]
    assert lines[0] == f"[{result.id} leave_notes 1 default] imported 47 rows"
    assert lines[1] == f"[{result.id} leave_notes 2 default] imported 47 rows"


# Renames


def test_a_task_that_moved_is_found_by_its_former_path(start_worker):
    result = policy_tasks.moved.enqueue(3)
    QueuedTask.objects.update(task_path="tests.policy_tasks.where_it_was")
    unknown = tasks.add.enqueue(1, 1)
    QueuedTask.objects.filter(pk=unknown.id).update(task_path="tests.policy_tasks.never_was")
    start_worker("-p", 1)
    assert result.get(timeout=60) == 3
    # One that nobody knows is parked, and says so; it doesn't fail.
    until(lambda: unknown.refresh() or unknown.state == "SCHEDULED")
    assert "No task 'tests.policy_tasks.never_was'" in unknown.reason
    assert unknown.attempts == 0
