"""A worker's row, for people, and what a worker reads about its queues."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import datetime

from .._version import __version__
from ..ids import new_id
from ..models import Queue, Worker, WorkerState
from .plan import WorkerPlan


class Heartbeat:
    """Writes the row of one worker. Times are the database's."""

    def __init__(self, plan: WorkerPlan) -> None:
        self.alias = plan.database
        self.health_file = plan.health_file
        self.last: datetime | None = None
        self.worker = Worker(
            id=new_id(),
            name=plan.name,
            backend=plan.backend,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            queues=[] if plan.any_queue else list(plan.queues),
            processes=plan.processes,
            threads=plan.threads,
            state=WorkerState.RUNNING,
            lease=plan.lease,
        )

    def begin(self, now: datetime) -> None:
        """Add the row, and those of queues that had none."""
        self.worker.started_at = self.worker.heartbeat_at = now
        self.worker.save(using=self.alias, force_insert=True)
        Queue.objects.using(self.alias).bulk_create(
            [Queue(name=name) for name in self.worker.queues], ignore_conflicts=True
        )
        self._touch(now)

    def beat(self, now: datetime, state: WorkerState, running: int, totals: dict[str, int]) -> None:
        """Say that the worker lives, and how it fares."""
        self.worker.heartbeat_at = now
        self.worker.state = state
        self.worker.running = running
        self.worker.finished = sum(totals.values())
        fields = ["heartbeat_at", "state", "running", "finished"]
        if (
            not Worker.objects.using(self.alias)
            .filter(pk=self.worker.pk)
            .update(**{name: getattr(self.worker, name) for name in fields})
        ):
            if self.worker.started_at is None:
                self.worker.started_at = now
            self.worker.save(using=self.alias, force_insert=True)
        self._touch(now)

    def end(self, totals: dict[str, int]) -> None:
        """Say that the worker has stopped."""
        self.beat(self.worker.heartbeat_at, WorkerState.STOPPED, 0, totals)

    def paused_queues(self, queues: Sequence[str]) -> set[str]:
        """Return the names of the paused queues."""
        return set(
            Queue.objects.using(self.alias)
            .filter(paused_at__isnull=False)
            .values_list("name", flat=True)
        )

    def _touch(self, now: datetime) -> None:
        self.last = now
        if self.health_file:
            with open(self.health_file, "w") as file:
                file.write(f"{now.isoformat()}\n")
