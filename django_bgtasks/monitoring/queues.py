"""
The queues as operators see them: what waits, since when, what runs, who listens.

The admin, the dashboard, `bgtasks status` and the health rules print the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .. import queues, workers
from ..conf import OPTIONS
from ..db import operations_for
from ..db.backlogs import Backlog, backlogs
from ..models.queue import Queue
from ..models.worker import Worker
from ..states import LiveStatus

#: Tasks of a queue are counted up to here.
MOST = 10_000
#: Queues of a database that are listed.
MOST_QUEUES = 200


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """
    One queue. Times are aware, and the database's; durations are in seconds.

    waiting are the tasks that a worker may start now, held those that wait for
    a limit or for a workflow. What is named in capped is larger than it is given.
    """

    name: str
    database: str
    now: datetime
    waiting: int
    scheduled: int
    held: int
    running: int
    capped: frozenset[str]
    oldest_at: datetime | None
    paused_at: datetime | None
    paused_by: str
    reason: str
    #: Those that take from it, and those that listen but take nothing now.
    workers: tuple[Worker, ...]
    resting: tuple[Worker, ...]
    latency_target: float
    #: Whether the target is its own, and not that of OPTIONS["LATENCY_TARGET"].
    has_own_target: bool

    @property
    def is_paused(self) -> bool:
        """Whether workers take nothing from it."""
        return self.paused_at is not None

    @property
    def oldest_age(self) -> float | None:
        """How long its oldest waiting task might have run already; None if none is known."""
        if self.oldest_at is None:
            return None
        return max(0.0, (self.now - self.oldest_at).total_seconds())

    @property
    def is_late(self) -> bool:
        """Whether a task waits for longer than the target, and not because of a pause."""
        age = self.oldest_age
        return not self.is_paused and age is not None and age > self.latency_target

    @property
    def is_unserved(self) -> bool:
        """Whether tasks wait, and no worker takes from it."""
        return self.waiting > 0 and not self.workers


def queue_figures(
    alias: str, names: Sequence[str] | None = None, *, staff: Sequence[Worker] | None = None
) -> list[QueueFigures]:
    """
    Return the figures of the queues of a database, in the order of names.

    Without names all that are configured or were seen, in the order of the
    settings. staff is workers.known(alias), read if not given. It takes one
    statement each for the queues, the workers and up to a hundred backlogs, and
    where QUEUES is empty one more for each queue in which tasks are ready.
    """
    rows = Queue.objects.using(alias).order_by("name")
    if names is None:
        found = {row.name: row for row in rows[:MOST_QUEUES]}
        names = _all_names(alias, list(found))
    else:
        found = {row.name: row for row in rows.filter(pk__in=list(names))}
    if staff is None:
        staff = workers.known(alias)
    now, by_name = backlogs(operations_for(alias), names, MOST)
    targets = _targets(alias)
    default = targets.get("", OPTIONS["LATENCY_TARGET"].default)
    return [
        _figures(
            found.get(name) or Queue(name=name),
            alias,
            now,
            by_name[name],
            [worker for worker in staff if workers.serves(worker, name)],
            targets.get(name, default),
        )
        for name in names
    ]


def _all_names(alias: str, seen: Sequence[str]) -> list[str]:
    ours = queues.backends(alias)
    names = [*(name for backend in ours for name in backend.queue_order), *seen]
    if any(not backend.queues for backend in ours):
        names += operations_for(alias).queue_names()
    return list(dict.fromkeys(names))[:MOST_QUEUES]


def _targets(alias: str) -> dict[str, float]:
    """Return the LATENCY_TARGET of each configured queue, under "" that of all others."""
    targets: dict[str, float] = {}
    for backend in queues.backends(alias):
        for name in ("", *backend.queue_order):
            targets.setdefault(name, backend.conf.latency_target)
    return targets


def _figures(
    row: Queue,
    alias: str,
    now: datetime,
    backlog: Backlog,
    listening: Sequence[Worker],
    target: float,
) -> QueueFigures:
    counted = {
        "waiting": backlog.counts[LiveStatus.READY],
        "scheduled": backlog.counts[LiveStatus.SCHEDULED],
        "held": backlog.counts[LiveStatus.WAITING],
        "running": backlog.counts[LiveStatus.RUNNING],
    }
    conditions = [(worker, workers.condition_of(worker, now)) for worker in listening]
    return QueueFigures(
        name=row.name,
        database=alias,
        now=now,
        **{name: min(count, MOST) for name, count in counted.items()},
        capped=frozenset(name for name, count in counted.items() if count > MOST),
        oldest_at=backlog.oldest_at,
        paused_at=row.paused_at,
        paused_by=row.paused_by,
        reason=row.reason,
        workers=tuple(worker for worker, said in conditions if said in workers.TAKING),
        resting=tuple(
            worker for worker, said in conditions if said in workers.ALIVE - workers.TAKING
        ),
        latency_target=target if row.latency_target is None else row.latency_target,
        has_own_target=row.latency_target is not None,
    )
