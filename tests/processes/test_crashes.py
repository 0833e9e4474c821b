"""Nothing is lost, whoever dies."""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

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


class Crashes:
    """
    Two workers of two children: every half second a child or a worker is
    killed, or, with stops, a worker is stopped until others have its tasks.

    stale counts results of another attempt than the row's last one: a worker
    that had lost its claim wrote them.
    """

    LEASE = 3

    def __init__(self, start_worker, settings="tests.processes.settings", *, stops=False):
        self.stops = stops
        self.start_worker = start_worker
        self.settings = settings
        self.hits = {"child killed": 0, "worker killed": 0, "worker stopped": 0}
        self.stopped = {}
        self.workers = [self.start() for _ in range(2)]

    def start(self):
        return self.start_worker(
            "-p", 2, "-v", 0, settings=self.settings, TEST_LEASE=self.LEASE
        )  # fmt: skip

    def restart_the_dead(self):
        """Do what systemd or a container platform does."""
        for index, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                self.workers[index] = self.start()

    def hit(self):
        """Hit somebody; return whether somebody was there."""
        self.restart_the_dead()
        worker = random.choice(self.workers)
        children = descendants(worker.pid)
        if len(children) < 3 or worker.pid in self.stopped:
            return False  # It is only just starting, or stopped.
        if self.stops:
            if self.stopped:
                return False
            pids = (*reversed(children), worker.pid)
            for pid in reversed(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            timer = threading.Timer(self.LEASE + 1.5, self.wake, (worker.pid, pids))
            self.stopped[worker.pid] = timer
            timer.start()
            self.hits["worker stopped"] += 1
        elif random.random() < 0.25:
            worker.kill()
            self.hits["worker killed"] += 1
        else:
            with suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)
            self.hits["child killed"] += 1
        return True

    def wake(self, worker, pids):
        """
        Let stopped processes go on; from a thread, as one may hold SQLite's lock.

        The supervisor goes on a moment later: it would end its children at once,
        and it is the fence in the database that is tried here.
        """
        for pid in pids:
            if pid == worker:
                time.sleep(0.5)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.pop(worker, None)

    def duration(self, number):
        """Return how long a task takes; a stopped worker must hold long ones."""
        return 2.5 if self.stops and number % 20 == 0 else 0.005

    def run(self, seconds, count, *, patience=60):
        results = 0
        began = time.monotonic()
        next_hit = began + 1.5
        while (passed := time.monotonic() - began) < seconds or results < count:
            due = min(count, int(count * passed / seconds) + 1)
            if due > results:
                calls = [("crash", n, self.duration(n)) for n in range(results, due)]
                results += len(tasks.count_attempt.enqueue_many(calls))
            if time.monotonic() >= next_hit and passed < seconds and self.hit():
                next_hit = time.monotonic() + 0.5
            time.sleep(0.01)
        for timer in list(self.stopped.values()):
            timer.join()
        until(self._all_ended, timeout=patience, message="not all tasks ended")
        for row in FinishedTask.objects.filter(status="FAILED"):
            report(f"failed: {row.errors}")
        rows = FinishedTask.objects.values_list("status", "attempt", "return_value")
        self.states = dict(Counter(status for status, _, _ in rows))
        self.stale = sum(v != attempt for status, attempt, v in rows if status == "SUCCESSFUL")
        effects = Effect.objects.filter(name="crash")
        self.effects = effects.count()
        self.distinct = effects.values("number").distinct().count()
        report(
            f"{count} tasks, {self.hits}, states {self.states}, effects {self.effects} of "
            f"{self.distinct} tasks, stale results {self.stale}"
        )

    def _all_ended(self):
        self.restart_the_dead()
        return not QueuedTask.objects.exists()


def test_every_task_ends_successful_while_children_and_workers_are_killed(start_worker):
    seed = int(os.environ.get("BGTASKS_CRASH_SEED", random.randrange(10**6)))
    report(f"seed {seed}")
    random.seed(seed)
    crashes = Crashes(start_worker)
    crashes.run(SECONDS, TASKS)
    assert crashes.states == {"SUCCESSFUL": TASKS}
    assert crashes.distinct == TASKS
    assert crashes.stale == 0
    assert sum(crashes.hits.values()) >= SECONDS / 2


def test_tasks_of_a_worker_that_was_killed_are_taken_over_after_its_lease(start_worker, tmp_path):
    first = start_worker("-p", 1, TEST_LEASE=2)
    result = tasks.wait_for_file.enqueue(str(tmp_path / "never"))
    until(lambda: Effect.objects.exists())
    first.kill()
    (tmp_path / "never").touch()
    start_worker("-p", 1, TEST_LEASE=2)
    assert result.get(timeout=60) == "done"
    assert result.attempts == 2
    assert "for a whole lease" in result.errors[0].traceback


def test_children_die_with_their_supervisor(start_worker):
    worker = start_worker("-p", 2)
    tasks.nothing.enqueue().get(timeout=60)
    children = descendants(worker.pid)
    assert len(children) >= 2
    worker.kill()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))


def outcome_of_a_stopped_worker(start_worker, tmp_path, settings):
    """Stop a worker past its lease and let it go on; return whose result is kept."""
    first = start_worker("-p", 1, "--name", "first", settings=settings, TEST_LEASE=2)
    path = tmp_path / "go"
    result = tasks.wait_for_own_file.enqueue(str(path))
    until(lambda: Effect.objects.filter(name="began on first").exists())
    stopped = [first.pid, *descendants(first.pid)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    start_worker("-p", 1, "--name", "second", settings=settings, TEST_LEASE=2)
    until(lambda: Effect.objects.filter(name="began on second").exists())
    # Its child may finish now; its supervisor, which would end it, goes on later.
    Path(f"{path}.first").touch()
    for pid in stopped[1:]:
        os.kill(pid, signal.SIGCONT)
    until(
        lambda: "is dropped" in first.output or FinishedTask.objects.exists(),
        message="the first worker's child did not finish",
    )
    os.kill(first.pid, signal.SIGCONT)
    Path(f"{path}.second").touch()
    value = result.get(timeout=60)
    first.stop()
    assert FinishedTask.objects.count() == 1
    assert not QueuedTask.objects.exists()
    return value


def test_a_worker_stopped_past_its_lease_changes_nothing_afterwards(start_worker, tmp_path):
    settings = "tests.processes.settings"
    assert outcome_of_a_stopped_worker(start_worker, tmp_path, settings) == "second"


def test_that_test_fails_without_the_fence(start_worker, tmp_path):
    settings = "tests.processes.unfenced_settings"
    assert outcome_of_a_stopped_worker(start_worker, tmp_path, settings) == "first"


@pytest.mark.skipif(SECONDS < 30, reason="A long run: see BGTASKS_CRASH_SECONDS.")
def test_workers_that_are_stopped_past_their_leases_overwrite_nothing(start_worker):
    crashes = Crashes(start_worker, stops=True)
    crashes.run(SECONDS * 1.5, 400)
    # A task that is lost with three workers in a row has failed, by rule.
    assert sum(crashes.states.values()) == 400
    assert crashes.stale == 0
    assert crashes.hits["worker stopped"] >= 1


@pytest.mark.skipif(SECONDS < 30, reason="Only a long run is sure to meet a stale write.")
def test_that_run_fails_without_the_fence(start_worker):
    crashes = Crashes(start_worker, "tests.processes.unfenced_settings", stops=True)
    try:
        crashes.run(SECONDS * 1.5, 400, patience=20)
    except pytest.fail.Exception:
        return  # It doesn't even come to an end.
    assert crashes.stale > 0
