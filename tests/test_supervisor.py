"""The supervisor, with children that are none."""

import mmap
from collections import deque
from multiprocessing import Pipe

import pytest

from django_bgtasks.compat import task_backends
from django_bgtasks.worker import supervisor as module
from django_bgtasks.worker.board import board_size
from django_bgtasks.worker.plan import WorkerPlan
from django_bgtasks.worker.processes import ChildProcess


class Launcher:
    """Hears of the end of a child while it starts another, as the real one may."""

    works = True

    def __init__(self):
        self.started = []
        self.dying = []
        self.heard = deque()
        self.pipes = [*Pipe()]

    def fileno(self):
        return self.pipes[0].fileno()

    def start(self):
        if self.dying:
            dead = self.dying.pop()
            dead.exit_code = -9
            self.heard.append(dead)
        ours, theirs = Pipe()
        self.pipes += [ours, theirs]
        child = ChildProcess(1000 + len(self.started), ours, mmap.mmap(-1, board_size(1, 1)))
        child.kill = lambda: None
        self.started.append(child)
        return child

    def watched(self, child):
        return self

    def ended(self):
        found = list(self.heard)
        self.heard.clear()
        return found

    def close(self):
        for end in self.pipes:
            end.close()


@pytest.fixture
def supervisor(db, monkeypatch):
    launcher = Launcher()
    monkeypatch.setattr(module, "launcher", lambda plan: launcher)
    plan = WorkerPlan(
        backend="default",
        database="default",
        name="test",
        queues=("default",),
        by_priority=False,
        any_queue=False,
        excluded=(),
        processes=2,
        threads=1,
        async_concurrency=1,
        lease=30.0,
        poll_interval=1.0,
        shutdown_timeout=1.0,
    )
    made = module.Supervisor(plan, task_backends["default"])
    yield made
    launcher.close()
    made.requests.close()
    made.detector.close()
    made.selector.close()


def test_a_child_that_ended_while_another_started_is_buried_at_once(supervisor):
    supervisor._spawn()
    (first,) = supervisor.children
    supervisor.launcher.dying.append(first)
    supervisor._spawn()
    # Nothing more is heard of it: kept, its leases would be renewed for ever.
    assert [child.pid for child in supervisor.children] == [1001]
