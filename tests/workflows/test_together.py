"""Two parents that finish at the same instant. BGTASKS_ROUNDS=1000 for the whole run."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from django_bgtasks import chain, group, previous, transitions
from django_bgtasks.models import FinishedTask, QueuedTask

from . import tasks
from .driver import Driver

ROUNDS = int(os.environ.get("BGTASKS_ROUNDS", 100))


@pytest.mark.django_db(transaction=True)
def test_of_two_parents_that_end_at_once_the_second_starts_the_child_once():
    driver = Driver()
    flow = chain(
        group(tasks.give.with_args(1), tasks.give.with_args(2)), tasks.total.with_args(previous)
    )
    gate = threading.Barrier(2)
    released = {"first": 0, "second": 0}

    def finish(execution):
        execution.run()
        gate.wait()
        return transitions.exchange("default", [execution.ending], None).ended

    def close(_):
        gate.wait()
        connections.close_all()

    with ThreadPoolExecutor(2) as two_workers:
        for number in range(ROUNDS):
            workflow = flow.enqueue()
            parents = driver.claim(2)
            assert len(parents) == 2
            for ended, parent in zip(two_workers.map(finish, parents), parents, strict=True):
                assert ended == {parent.row.id}
            (child,) = QueuedTask.objects.all()
            assert (child.status, child.attempt) == ("READY", 0), f"round {number}"
            (execution,) = driver.claim(5)
            driver.run(execution)
            assert not QueuedTask.objects.exists()
            workflow.refresh()
            assert (workflow.state, workflow.get(1)) == ("SUCCESSFUL", 3)
            last = max(parents, key=lambda e: FinishedTask.objects.get(pk=e.row.id).finished_at)
            released["first" if last is parents[0] else "second"] += 1
        list(two_workers.map(close, range(2)))
    assert FinishedTask.objects.filter(attempt=1).count() == 3 * ROUNDS
    sys.stdout.write(f"\n{ROUNDS} rounds; the last to end was the {released}\n")
