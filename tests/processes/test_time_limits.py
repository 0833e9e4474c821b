"""A task that takes too long ends, whatever it is doing; its neighbours finish."""

import time

import pytest

from tests import policy_tasks, tasks
from tests.models import Effect

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: What hangs, and whether the process has to be killed for it. What is caught at once on
#: one database may take the kill on another: None.
HANGING = [
    (policy_tasks.sleep_too_long, False),
    (policy_tasks.swallow_the_timeout, True),
    (policy_tasks.hold_the_lock_of_the_interpreter, True),
    (policy_tasks.match_a_pathological_pattern, None),
    (policy_tasks.hash_for_a_minute, True),
    (policy_tasks.swallow_the_cancellation, True),
    (policy_tasks.sleep_too_long_async, False),
    (policy_tasks.block_the_loop, True),
    (policy_tasks.wait_in_the_database, None),
]


def seconds_of(result):
    return (result.finished_at - result.last_attempted_at).total_seconds()


def test_each_task_that_hangs_ends_as_a_timeout_and_its_neighbours_finish(start_worker):
    worker = start_worker("--processes=2")
    started = []
    for task, killed in HANGING:
        before = tasks.add.enqueue_many([(n, n) for n in range(5)])
        started.append((task, killed, task.enqueue()))
        after = tasks.add.enqueue_many([(n, n) for n in range(5)])
        for n, result in enumerate((*before, *after)):
            assert result.get(timeout=60) == 2 * (n % 5)
            assert result.errors == []
    for task, killed, result in started:
        until(lambda r=result: r.refresh() or r.is_finished, message=f"{task.name} did not end")
        assert result.state == "FAILED", task.name
        assert result.reason.startswith("TaskTimeout: "), (task.name, result.reason)
        (error,) = result.errors
        assert error.exception_class_path == "django_bgtasks.exceptions.TaskTimeout"
        was_killed = "process was killed" in error.traceback
        if killed is not None:
            assert was_killed == killed, (task.name, error.traceback)
        if not was_killed:
            assert "longer than its timeout of 0.5 s" in error.traceback
            assert task.name in error.traceback  # Where it was.
        assert result.attempts == 1
        assert result.worker_ids
    assert worker.process.poll() is None


def test_where_a_killed_task_was_stands_in_the_log(start_worker):
    worker = start_worker("--processes=1")
    result = policy_tasks.hold_the_lock_of_the_interpreter.enqueue()
    until(lambda: result.refresh() or result.is_finished)
    assert "did not end in time" in worker.output
    assert "in hold_the_lock_of_the_interpreter" in worker.output


def test_a_task_can_clean_up_after_a_timeout(start_worker):
    start_worker("--processes=1")
    result = policy_tasks.clean_up_on_timeout.enqueue()
    until(lambda: result.refresh() or result.is_finished)
    assert result.state == "FAILED"
    assert Effect.objects.filter(name="cleaned up").count() == 1
    caught = policy_tasks.finish_in_spite_of_a_timeout.enqueue()
    assert caught.get(timeout=60) == "caught"


def test_a_timeout_is_a_failure_that_is_retried_and_no_loss(start_worker):
    start_worker("--processes=1")
    result = policy_tasks.hang_once.enqueue()
    assert result.get(timeout=60) == "second"
    assert result.attempts == 2
    assert [e.exception_class_path for e in result.errors] == [
        "django_bgtasks.exceptions.TaskTimeout"
    ]


def test_threads_are_interrupted_in_python_code_and_killed_in_a_wait(start_worker):
    start_worker("--processes=1", "--threads=3")
    neighbours = tasks.count.enqueue_many([("neighbour", n, 0.02) for n in range(50)])
    hung = policy_tasks.sleep_too_long.enqueue()
    until(lambda: hung.refresh() or hung.is_finished)
    assert hung.state == "FAILED"
    assert "TaskTimeout" in hung.reason
    for result in neighbours:
        result.get(timeout=60)
        assert result.errors == []


def test_a_timeout_may_be_given_with_the_call(start_worker):
    start_worker("--processes=1")
    result = tasks.count.using(timeout=0.3, grace=5).enqueue("never", seconds=30)
    until(lambda: result.refresh() or result.is_finished)
    assert "timeout of 0.3 s" in result.errors[-1].traceback
    assert not Effect.objects.exists()


def test_a_task_knows_its_deadline(start_worker):
    start_worker("--processes=1")
    assert policy_tasks.tell_the_deadline.enqueue().get(timeout=60) == pytest.approx(100, abs=1)


def test_tasks_without_a_timeout_run_on_beside_those_with_one(start_worker):
    start_worker("--processes=2")
    long = tasks.count.enqueue("long", seconds=3)
    policy_tasks.hold_the_lock_of_the_interpreter.enqueue()
    time.sleep(0.1)
    assert long.get(timeout=60) == 0
    assert Effect.objects.filter(name="long").count() == 1
