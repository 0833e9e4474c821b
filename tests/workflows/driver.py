"""Runs tasks in this thread by the worker's own parts: claim, execution, transitions."""

from datetime import timedelta

from django.utils import timezone

from django_bgtasks import transitions
from django_bgtasks.compat import task_backends
from django_bgtasks.db import ClaimRequest, operations_for
from django_bgtasks.ids import new_id
from django_bgtasks.models import QueuedTask
from django_bgtasks.states import LiveStatus
from django_bgtasks.worker.execution import Execution
from django_bgtasks.worker.outcomes import write_other


class Driver:
    """One slot. on_run is called with each execution before it runs."""

    def __init__(self, on_run=None, queues=None, alias="default"):
        self.backend = task_backends[alias]
        self.database = self.backend.database
        self.queues = queues or self.backend.queue_order
        self.on_run = on_run
        self.ran = []

    def claim(self, limit=1):
        request = ClaimRequest(
            queues=self.queues, limit=limit, claim_id=new_id(), worker_id="driver", lease=60.0
        )
        rows = transitions.exchange(self.database, [], request).claimed
        made = [Execution(row, self.backend, 0) for row in rows]
        for execution in made:
            execution.resolve()
        return made

    def run(self, execution):
        """Call the function, and write what came of it; return whether it was ours."""
        if self.on_run is not None:
            self.on_run(execution)
        execution.run()
        self.ran.append(execution.task.name if execution.task else execution.row.task_path)
        return self.write(execution)

    def write(self, execution):
        held = (execution.row.id, execution.row.claim_id)
        if execution.written:
            return True
        if execution.ending is not None:
            return held[0] in transitions.exchange(self.database, [execution.ending], None).ended
        return write_other(self.database, execution)

    def step(self):
        """Run one task; say whether there was one."""
        claimed = self.claim()
        for execution in claimed:
            self.run(execution)
        return bool(claimed)

    def drain(self, most=10_000):
        """Run tasks until none is READY; due ones are made so."""
        for _ in range(most):
            if not self.step() and not self.promote():
                return self
        raise AssertionError(f"After {most} tasks there are still some.")

    def promote(self):
        """Make all SCHEDULED tasks READY, whenever they are due."""
        QueuedTask.objects.using(self.database).filter(status=LiveStatus.SCHEDULED).update(
            due_at=timezone.now() - timedelta(minutes=1)
        )
        return transitions.promote(self.database, 1000)

    def lose(self, execution, *, max_lost=3):
        """Do as if the process that runs it had died."""
        return transitions.rescue(
            self.database,
            [(execution.row.id, execution.row.claim_id)],
            why="the test says so.",
            max_lost=max_lost,
        )


def operations():
    return operations_for("default")
