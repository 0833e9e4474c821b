"""A worker from start to stop."""

import json
import os
import signal
import urllib.error
import urllib.request
from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from django_bgtasks.models import FinishedTask, Queue, QueuedTask, Worker
from tests import tasks
from tests.models import Effect

from .conftest import descendants, until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


def test_sync_and_async_tasks_return_their_values(start_worker):
    start_worker("-p", 1)
    assert tasks.add.enqueue(2, b=3).get(timeout=60) == 5
    assert tasks.count_async.enqueue("async", 7).get(timeout=60) == 7
    assert tasks.tell_context.enqueue().get(timeout=60) == [1, 1, True]


def test_an_error_is_kept_with_its_traceback(start_worker):
    start_worker("-p", 1)
    result = tasks.raise_error.enqueue("broken")
    until(lambda: result.refresh() or result.is_finished)
    assert (result.status, result.attempts) == ("FAILED", 1)
    (error,) = result.errors
    assert error.exception_class is ValueError
    assert "in raise_error" in error.traceback
    assert "django_bgtasks/worker" not in error.traceback


def test_a_task_that_raises_is_run_again_and_keeps_its_errors(start_worker):
    start_worker("-p", 1)
    result = tasks.raise_until_third.enqueue("again")
    assert result.get(timeout=60) == "third"
    assert result.attempts == 3
    assert [e.exception_class_path for e in result.errors] == ["builtins.ConnectionError"] * 2


def test_async_tasks_run_at_the_same_time(start_worker):
    start_worker("-p", 1, "--async-concurrency", 20)
    tasks.nothing.enqueue().get(timeout=60)
    results = tasks.sleep_async.enqueue_many([(1.0,)] * 20)
    began = timezone.now()
    for result in results:
        result.get(timeout=60)
    assert timezone.now() - began < timedelta(seconds=10)


def test_threads_run_tasks_at_the_same_time(start_worker, tmp_path):
    start_worker("-p", 1, "-t", 4)
    path = tmp_path / "go"
    results = [tasks.wait_for_file.enqueue(str(path), n) for n in range(4)]
    until(lambda: Effect.objects.count() == 4, message="not all four began")
    path.touch()
    assert [result.get(timeout=60) for result in results] == [0, 1, 2, 3]


def test_a_slow_task_does_not_hold_back_those_behind_it(start_worker, tmp_path):
    start_worker("-p", 2)
    tasks.count.enqueue_many([("quick",)] * 50)
    path = tmp_path / "go"
    slow = tasks.wait_for_file.enqueue(str(path))
    others = tasks.count.enqueue_many([("behind",)] * 50)
    for result in others:
        result.get(timeout=60)
    slow.refresh()
    assert slow.state == "RUNNING"
    path.touch()
    slow.get(timeout=60)


def test_scheduled_tasks_start_when_they_are_due(start_worker):
    start_worker("-p", 1)
    tasks.nothing.enqueue().get(timeout=60)
    result = tasks.nothing.using(run_after=timedelta(seconds=1.5)).enqueue()
    assert result.state == "SCHEDULED"
    result.get(timeout=60)
    late = result.last_attempted_at - result.task.run_after
    assert timedelta(0) <= late < timedelta(seconds=5)


def test_burst_runs_what_is_ready_and_exits(start_worker):
    tasks.add.enqueue_many([(n, n) for n in range(30)])
    later = tasks.add.using(run_after=timedelta(hours=1)).enqueue(1, 1)
    worker = start_worker("--burst", "-p", 2)
    assert worker.process.wait(60) == 0
    assert FinishedTask.objects.filter(status="SUCCESSFUL").count() == 30
    assert QueuedTask.objects.get().pk == UUID(later.id)
    assert "30 successful, 0 failed" in worker.output


def test_only_the_named_queues_are_served(start_worker):
    mail = tasks.nothing.using(queue_name="emails").enqueue()
    other = tasks.nothing.enqueue()
    worker = start_worker("emails", "--burst", "-p", 1)
    assert worker.process.wait(60) == 0
    mail.refresh()
    other.refresh()
    assert (mail.state, other.state) == ("SUCCESSFUL", "READY")


def test_a_paused_queue_waits_until_it_is_resumed(start_worker):
    Queue.objects.create(name="emails", paused_at=timezone.now())
    mail = tasks.nothing.using(queue_name="emails").enqueue()
    start_worker("-p", 1)
    tasks.nothing.enqueue().get(timeout=60)
    mail.refresh()
    assert mail.state == "READY"
    Queue.objects.filter(name="emails").update(paused_at=None)
    mail.get(timeout=60)


def test_the_first_signal_lets_tasks_finish(start_worker, tmp_path):
    worker = start_worker("-p", 2)
    path = tmp_path / "go"
    running = tasks.wait_for_file.enqueue(str(path))
    until(lambda: Effect.objects.exists())
    worker.signal(signal.SIGTERM)
    worker.says("Finishing 1 running task")
    waiting = tasks.nothing.enqueue()
    path.touch()
    assert worker.process.wait(60) == 0
    running.refresh()
    waiting.refresh()
    assert (running.state, waiting.state) == ("SUCCESSFUL", "READY")
    assert Worker.objects.get().state == "STOPPED"


def test_after_the_timeout_tasks_are_handed_back_unharmed(start_worker, tmp_path):
    worker = start_worker("-p", 1, "--shutdown-timeout", 0.5)
    result = tasks.wait_for_file.enqueue(str(tmp_path / "never"))
    until(lambda: Effect.objects.exists())
    worker.signal(signal.SIGINT)
    assert worker.process.wait(60) == 0
    result.refresh()
    assert (result.state, result.attempts, result.errors) == ("READY", 0, [])
    assert "Handing back 1 task." in worker.output


def test_a_second_signal_hands_back_at_once(start_worker, tmp_path):
    worker = start_worker("-p", 1)
    result = tasks.wait_for_file.enqueue(str(tmp_path / "never"))
    until(lambda: Effect.objects.exists())
    worker.signal(signal.SIGTERM)
    worker.says("Finishing 1 running task")
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(60) == 4
    result.refresh()
    assert (result.state, result.attempts) == ("READY", 0)


def test_quiet_stops_taking_and_goes_on_running(start_worker, tmp_path):
    worker = start_worker("-p", 1)
    path = tmp_path / "go"
    running = tasks.wait_for_file.enqueue(str(path))
    until(lambda: Effect.objects.exists())
    worker.signal(signal.SIGUSR1)
    worker.says("Quiet")
    path.touch()
    running.get(timeout=60)
    waiting = tasks.nothing.enqueue()
    until(lambda: Worker.objects.get().state == "QUIET")
    waiting.refresh()
    assert waiting.state == "READY"
    assert worker.stop() == 0


def test_stacks_are_written_on_request(start_worker, tmp_path):
    worker = start_worker("-p", 1)
    path = tmp_path / "go"
    result = tasks.wait_for_file.enqueue(str(path))
    until(lambda: Effect.objects.exists())
    worker.signal(signal.SIGUSR2)
    worker.says("in wait_for_file")
    path.touch()
    result.get(timeout=60)


def test_children_are_replaced_after_so_many_tasks(start_worker):
    worker = start_worker("-p", 1, "--recycle-tasks", 5)
    results = tasks.process_id.enqueue_many([()] * 30)
    pids = {result.get(timeout=60) for result in results}
    assert len(pids) > 1
    worker.says("is replaced: it ran")


def test_a_child_that_eats_the_memory_is_replaced(start_worker):
    worker = start_worker("-p", 1, "--recycle-memory", "150M")
    first = tasks.process_id.enqueue().get(timeout=60)
    tasks.fill_memory.enqueue(200).get(timeout=60)
    worker.says("MiB of memory")
    assert tasks.process_id.enqueue().get(timeout=60) != first


def test_children_are_replaced_after_some_time(start_worker):
    worker = start_worker("-p", 1, "--recycle-after", 1)
    first = tasks.process_id.enqueue().get(timeout=60)
    worker.says("is replaced: it is 1 s old")
    until(lambda: tasks.process_id.enqueue().get(timeout=60) != first)


def test_a_worker_finishes_after_so_many_tasks(start_worker):
    tasks.add.enqueue_many([(1, 1)] * 20)
    worker = start_worker("-p", 1, "--max-tasks", 10)
    assert worker.process.wait(60) == 0
    assert FinishedTask.objects.count() >= 10


def test_a_worker_finishes_after_its_time(start_worker):
    worker = start_worker("-p", 1, "--max-runtime", "1s")
    assert worker.process.wait(60) == 0
    assert "it ran for 1 s" in worker.output


def test_health_is_told_by_a_file_and_a_port(start_worker, tmp_path):
    path = tmp_path / "alive"
    worker = start_worker("-p", 1, "--health-file", path, "--health-port", 18471)
    until(path.exists)

    def status():
        try:
            with urllib.request.urlopen("http://127.0.0.1:18471/") as response:
                return response.status
        except (urllib.error.URLError, ConnectionError):
            return None

    until(lambda: status() == 200)
    assert worker.stop() == 0


def test_json_lines_name_task_and_outcome(start_worker):
    result = tasks.raise_error.enqueue("with\nlines \x1b[31m")
    worker = start_worker("--burst", "-p", 1, "--log-format", "json")
    assert worker.process.wait(60) == 0
    lines = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    failed = next(line for line in lines if line["event"] == "task.failed")
    assert failed["id"] == result.id
    assert failed["task"] == "tests.tasks.raise_error"
    assert "raise_error" in failed["traceback"]
    assert len([line for line in lines if line["event"] == "task.started"]) == 1


def test_a_task_that_the_code_does_not_know_is_put_off_and_then_fails(start_worker):
    gone = tasks.nothing.enqueue()
    QueuedTask.objects.filter(pk=gone.id).update(task_path="tests.tasks.removed")
    worker = start_worker("-p", 1)
    until(lambda: gone.refresh() or gone.state == "SCHEDULED")
    assert gone.attempts == 0
    assert "No task 'tests.tasks.removed'" in gone.reason
    worker.stop()
    QueuedTask.objects.update(status="READY", due_at=None)
    start_worker("-p", 1, TEST_GRACE=0)
    until(lambda: gone.refresh() or gone.is_finished)
    assert gone.state == "FAILED"
    assert "Add it to OPTIONS['ALIASES']" in gone.errors[-1].traceback


def test_the_process_tree_of_a_worker_is_gone_after_it_stopped(start_worker):
    worker = start_worker("-p", 2)
    tasks.nothing.enqueue().get(timeout=60)
    tree = descendants(worker.pid)
    assert worker.stop() == 0
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in tree))
