"""Real workers in processes of their own, on the test database."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from django_bgtasks.models import QueuedTask

ROOT = Path(__file__).resolve().parents[2]


def until(condition, *, timeout=60, message="the condition did not come true"):
    """Wait for a condition; return what it returned."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"After {timeout} s {message}.")
        time.sleep(0.02)


def all_ended():
    """Return whether every task has ended; to wait for."""
    return not QueuedTask.objects.exists()


def until_all_ended(timeout=120):
    """Wait for the end of every task; if it does not come, say what is left."""
    deadline = time.monotonic() + timeout
    while not all_ended():
        if time.monotonic() > deadline:
            rows = QueuedTask.objects.values_list(
                "status", "task_path", "due_at", "lost_count", "lease_until"
            )
            left = "\n".join(map(str, rows[:10]))
            pytest.fail(f"After {timeout} s {rows.count()} tasks had not ended, such as\n{left}")
        time.sleep(0.05)


def descendants(pid):
    """Return the processes below pid, nearest first."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        for child in parents.get(queue.pop(0), []):
            found.append(child)
            queue.append(child)
    return found


class RunningWorker:
    """A runworker and what it wrote."""

    def __init__(self, process, path):
        self.process = process
        self.path = path
        self.pid = process.pid

    @property
    def output(self):
        return self.path.read_text()

    def says(self, text, timeout=60):
        return until(
            lambda: text in self.output, timeout=timeout, message=f"it did not say {text!r}"
        )

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, timeout=60):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start_worker(transactional_db, tmp_path):
    """Return a function that starts a worker on the test database."""
    workers = []

    def start(*arguments, settings="tests.processes.settings", **env):
        path = tmp_path / f"worker-{len(workers)}.log"
        name = connection.settings_dict["NAME"]
        with path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "django", "runworker", "--no-reload", *map(str, arguments)],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUNBUFFERED": "1",
                    "DJANGO_SETTINGS_MODULE": settings,
                    "BGTASKS_TEST_NAME": str(name),
                    **{key: str(value) for key, value in env.items()},
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        worker = RunningWorker(process, path)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        ended = worker.process.poll()
        if ended is None:
            worker.signal(signal.SIGCONT)
            worker.kill()
        # pytest shows this where a test fails.
        lines = worker.output.splitlines()[-60:]
        sys.stdout.write("\n".join([f"Worker {worker.pid}, exit code {ended}:", *lines, ""]))
    if connection.vendor == "postgresql":
        # A query of a process that was killed runs on, and the database can't be dropped.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@contextmanager
def elapsed():
    began = time.monotonic()
    taken = []
    yield taken
    taken.append(time.monotonic() - began)
