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
            scheduler=plan.scheduler,
            maintenance=plan.maintenance,
        )

    def begin(self, now: datetime) -> None:
        """Add the row, and those of queues that had none."""
        self.worker.started_at = self.worker.heartbeat_at = now
        self.worker.save(using=self.alias, force_insert=True)
        Queue.objects.using(self.alias).bulk_create(
            [Queue(name=name) for name in self.worker.queues], ignore_conflicts=True
        )
        self._touch(now)

    def beat(
        self,
        now: datetime,
        state: WorkerState,
        running: int,
        totals: dict[str, int],
        *,
        memory: int = 0,
        clock_offset: float | None = None,
        is_up: bool = True,
    ) -> None:
        """
        Say that the worker lives, and how it fares.

        memory is in bytes, 0 where that isn't known; clock_offset the seconds by
        which this machine's clock is ahead of the database's. Until a child is_up
        the worker has not started.
        """
        self.worker.heartbeat_at = now
        self.worker.state = state
        self.worker.running = running
        self.worker.finished = sum(totals.values())
        self.worker.memory = memory or None
        fields = ["heartbeat_at", "state", "running", "finished", "memory"]
        if clock_offset is not None:
            self.worker.clock_offset = clock_offset
            fields.append("clock_offset")
        if not is_up:
            self.worker.started_at = now
            fields.append("started_at")
        if (
            not Worker.objects.using(self.alias)
            .filter(pk=self.worker.pk)
            .update(**{name: getattr(self.worker, name) for name in fields})
        ):
            if self.worker.started_at is None:
                self.worker.started_at = now
            self.worker.save(using=self.alias, force_insert=True)
        self._touch(now)

    def request(self) -> tuple[str, str]:
        """Return what somebody asks of the worker, "" for nothing, and who."""
        rows = Worker.objects.using(self.alias).filter(pk=self.worker.pk)
        return rows.values_list("request", "requested_by").first() or ("", "")

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
