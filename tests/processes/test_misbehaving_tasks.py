"""Whatever a task does, its row ends with a clear error and the worker runs the next task."""

import pytest

from tests import tasks
from tests.models import Effect

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

# task, state, last error, a part of its text
CASES = [
    (tasks.return_nul, "FAILED", "ResultNotStorable", "NUL"),
    (tasks.return_surrogate, "FAILED", "ResultNotStorable", "surrogate"),
    (tasks.return_nan, "FAILED", "ResultNotStorable", "nan, which JSON can't hold"),
    (tasks.return_set, "FAILED", "ResultNotStorable", "is a set, which JSON can't hold"),
    (tasks.return_17_mb, "FAILED", "ResultNotStorable", "17,000,002 bytes"),
    (tasks.return_deep, "FAILED", "ResultNotStorable", "nested"),
    (tasks.return_very_deep, "FAILED", "ResultNotStorable", "nested"),
    (tasks.raise_nul, "FAILED", "ValueError", "a\ufffdb"),
    (tasks.raise_surrogate, "FAILED", "ValueError", "ValueError: \ufffd"),
    (tasks.raise_17_mb, "FAILED", "ValueError", "characters left out"),
    (tasks.raise_unprintable, "FAILED", "Unprintable", "Unprintable"),
    (tasks.recurse, "FAILED", "RecursionError", "maximum recursion depth"),
    (tasks.call_sys_exit, "FAILED", "SystemExit", "SystemExit: 3"),
    (tasks.raise_keyboard_interrupt, "FAILED", "KeyboardInterrupt", "KeyboardInterrupt"),
    (tasks.raise_memory_error, "FAILED", "MemoryError", "MemoryError"),
    (tasks.raise_cancelled, "FAILED", "CancelledError", "CancelledError"),
    (tasks.call_os_exit, "FAILED", "WorkerLost", "ended with exit code 3"),
    (tasks.kill_own_process, "FAILED", "WorkerLost", "killed by SIGKILL"),
    (tasks.leave_transaction_open, "SUCCESSFUL", None, ""),
    (tasks.leave_autocommit_off, "SUCCESSFUL", None, ""),
    (tasks.close_connection, "SUCCESSFUL", None, ""),
    (tasks.break_connection, "SUCCESSFUL", None, ""),
    (tasks.swallow_database_error, "SUCCESSFUL", None, ""),
    (tasks.change_directory, "SUCCESSFUL", None, ""),
    (tasks.change_language, "SUCCESSFUL", None, ""),
    (tasks.change_time_zone, "SUCCESSFUL", None, ""),
]


def test_each_ends_in_a_final_state_and_the_next_task_runs_as_if_nothing_had_been(start_worker):
    started = []
    for case in CASES:
        started.append((case, case[0].enqueue(), tasks.tell_surroundings.enqueue()))
    worker = start_worker("--processes=1")
    for (task, state, error, text), result, following in started:
        until(lambda r=result: r.refresh() or r.is_finished, timeout=60, message=task.name)
        assert result.state == state, (task.name, worker.output)
        if error:
            last = result.errors[-1]
            assert last.exception_class_path.rpartition(".")[2] == error, task.name
            assert text in last.traceback, (task.name, last.traceback[-500:])
            assert result.reason
        assert following.get(timeout=60) == [True, "en-us", "UTC"], task.name
    # What stood in a transaction that was left open was rolled back.
    assert not Effect.objects.exists()
    assert worker.process.poll() is None


def test_a_task_that_kills_its_process_fails_at_the_third_loss_and_takes_nothing_with_it(
    start_worker,
):
    before = tasks.count.enqueue_many([(f"before {n}",) for n in range(20)])
    poison = tasks.kill_own_process.enqueue()
    after = tasks.count.enqueue_many([(f"after {n}",) for n in range(20)])
    start_worker("--processes=2")
    for result in (*before, *after):
        result.get(timeout=60)
        assert result.attempts == 1
        assert result.errors == []
    until(lambda: poison.refresh() or poison.is_finished)
    assert poison.state == "FAILED"
    assert poison.attempts == 3
    assert [e.exception_class_path for e in poison.errors] == [
        "django_bgtasks.exceptions.WorkerLost"
    ] * 3
    # A task that had run, and was not written yet when its process died, runs again.
    assert Effect.objects.values("name").distinct().count() == 40


def test_on_lost_fail_is_not_run_a_second_time(start_worker):
    result = tasks.kill_own_process_once.enqueue()
    start_worker("--processes=1")
    until(lambda: result.refresh() or result.is_finished)
    assert (result.state, result.attempts) == ("FAILED", 1)
    assert "isn't run again" in result.reason
