"""Nothing is lost, whoever dies."""

import os
import random
import signal
import sys
import time

import pytest
from django.db.models import Count

from django_bgtasks.models import FinishedTask, QueuedTask
from tests import tasks
from tests.models import Effect

from .conftest import descendants, until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: The whole crash run of the issue takes half a minute a database; by default a shorter one.
SECONDS = float(os.environ.get("BGTASKS_CRASH_SECONDS", "8"))
TASKS = int(os.environ.get("BGTASKS_CRASH_TASKS", "500"))


def report(line):
    """Write what a run found where pytest -s shows it."""
    sys.stdout.write(f"{line}\n")


def test_every_task_ends_successful_while_children_and_workers_are_killed(start_worker):
    seed = int(os.environ.get("BGTASKS_CRASH_SEED", random.randrange(10**6)))
    report(f"seed {seed}")
    random.seed(seed)
    lease = 3
    workers = [start_worker("-p", 2, "-v", 0, TEST_LEASE=lease) for _ in range(2)]

    def restart_the_dead():
        """Do what systemd or a container platform does."""
        for index, worker in enumerate(workers):
            if worker.process.poll() is not None:
                workers[index] = start_worker("-p", 2, "-v", 0, TEST_LEASE=lease)

    def all_ended():
        restart_the_dead()
        return not QueuedTask.objects.exists()

    results = []
    killed = {"child": 0, "worker": 0}
    began = time.monotonic()
    next_kill = began + 1.0
    while (passed := time.monotonic() - began) < SECONDS or len(results) < TASKS:
        due = min(TASKS, int(TASKS * passed / SECONDS) + 1)
        if due > len(results):
            calls = [("crash", n, 0.005) for n in range(len(results), due)]
            results += tasks.count.enqueue_many(calls)
        if time.monotonic() >= next_kill and passed < SECONDS:
            next_kill += 0.5
            restart_the_dead()
            victim = random.randrange(2)
            children = descendants(workers[victim].pid)
            if not children:
                continue  # It is only just starting.
            if random.random() < 0.25:
                workers[victim].kill()
                killed["worker"] += 1
            else:
                os.kill(random.choice(children), signal.SIGKILL)
                killed["child"] += 1
        time.sleep(0.01)
    until(all_ended, timeout=60, message="not all tasks ended")
    states = dict(FinishedTask.objects.values_list("status").annotate(n=Count("pk")).order_by())
    effects = Effect.objects.filter(name="crash").count()
    distinct = Effect.objects.filter(name="crash").values("number").distinct().count()
    lost = sum(FinishedTask.objects.values_list("lost_count", flat=True))
    report(
        f"tasks {TASKS}, killed {killed}, states {states}, effects {effects}, "
        f"of different tasks {distinct}, attempts lost {lost}"
    )
    assert states == {"SUCCESSFUL": TASKS}
    assert distinct == TASKS
    assert sum(killed.values()) >= SECONDS


def test_tasks_of_a_worker_that_was_killed_are_taken_over_after_its_lease(start_worker, tmp_path):
    first = start_worker("-p", 1, TEST_LEASE=2)
    result = tasks.wait_for_file.enqueue(str(tmp_path / "never"))
    until(lambda: Effect.objects.exists())
    first.kill()
    (tmp_path / "never").touch()
    start_worker("-p", 1, TEST_LEASE=2)
    assert result.get(timeout=30) == "done"
    assert result.attempts == 2
    assert "for a whole lease" in result.errors[0].traceback


def test_children_die_with_their_supervisor(start_worker):
    worker = start_worker("-p", 2)
    tasks.nothing.enqueue().get(timeout=30)
    children = descendants(worker.pid)
    assert len(children) >= 2
    worker.kill()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))


def test_a_worker_stopped_past_its_lease_changes_nothing_afterwards(start_worker, tmp_path):
    first = start_worker("-p", 1, "--name", "first", TEST_LEASE=2)
    path = tmp_path / "go"
    result = tasks.wait_for_file.enqueue(str(path), "finished")
    until(lambda: Effect.objects.exists())
    stopped = [first.pid, *descendants(first.pid)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    start_worker("-p", 1, "--name", "second", TEST_LEASE=2)
    until(lambda: Effect.objects.count() == 2, message="the second worker did not begin it")
    # The first could finish now, if its claim were not over.
    for pid in reversed(stopped):
        os.kill(pid, signal.SIGCONT)
    path.touch()
    assert result.get(timeout=30) == "finished"
    assert result.worker_ids == ["first", "second"]
    assert FinishedTask.objects.count() == 1
    first.stop()
    assert QueuedTask.objects.count() == 0
    result.refresh()
    assert result.worker_ids == ["first", "second"]
