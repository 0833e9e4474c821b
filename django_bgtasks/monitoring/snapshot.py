"""How things stand at one moment: queues, workers, what waits for its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min, Q
from django.utils.formats import number_format

from .. import workers
from ..db import operations_for
from ..models import QueuedTask, Worker
from ..statistics.reading import Ended, read_ended
from .queues import MOST, QueueFigures, queue_figures

#: Seconds for which failures count as of late.
LATELY = 15 * 60.0


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of tasks; is_capped says that there are more."""

    count: int
    is_capped: bool = False

    @property
    def text(self) -> str:
        """The number for people, such as "10,000+"."""
        return f"{number_format(self.count, force_grouping=True)}{'+' * self.is_capped}"

    @classmethod
    def of(cls, queues: Iterable[QueueFigures], kind: str) -> Counted:
        """Return the tasks of one kind (waiting, ...) in several queues together."""
        listed = list(queues)
        return cls(
            sum(getattr(queue, kind) for queue in listed),
            any(kind in queue.capped for queue in listed),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is not final in a database, and who works on it; now is the database's time."""

    alias: str
    now: datetime
    queues: Sequence[QueueFigures]
    live_workers: Sequence[Worker]
    lost_workers: Sequence[Worker]
    retrying: Counted
    next_due: datetime | None
    next_retry: datetime | None
    #: What ended in the last quarter of an hour, and in the last day.
    lately: Ended
    day: Ended

    @property
    def ready(self) -> Counted:
        return Counted.of(self.queues, "waiting")

    @property
    def running(self) -> Counted:
        return Counted.of(self.queues, "running")

    @property
    def scheduled(self) -> Counted:
        return Counted.of(self.queues, "scheduled")

    @property
    def blocked(self) -> Counted:
        return Counted.of(self.queues, "held")

    @property
    def oldest(self) -> float | None:
        """The seconds that the oldest ready task of a queue that isn't paused has waited."""
        ages = [queue.oldest_age for queue in self.queues if not queue.is_paused]
        return max((age for age in ages if age is not None), default=None)

    @property
    def holds_tasks(self) -> bool:
        """Whether anything is not final."""
        kinds = (self.ready, self.running, self.scheduled, self.blocked)
        return any(counted.count for counted in kinds)

    @property
    def slots(self) -> int:
        """How many plain functions the workers that are alive run at once."""
        return sum(worker.slots for worker in self.live_workers)


def take_snapshot(alias: str) -> Snapshot:
    """Read how things stand, by a number of queries that doesn't grow with the tasks."""
    operations = operations_for(alias)
    known = workers.known(alias)
    queues = queue_figures(alias, staff=known)
    now = queues[0].now if queues else operations.now()
    # Of those that are due next: to look for retries among all might take long.
    due = QueuedTask.objects.using(alias).filter(due_at__isnull=False).order_by("due_at")
    retry = Q(failures__gt=0)
    times = due.values("due_at", "failures")[: MOST + 1].aggregate(
        retrying=Count("due_at", filter=retry),
        next_retry=Min("due_at", filter=retry),
        next_due=Min("due_at"),
    )
    lately, day = read_ended(alias, [LATELY, 86_400.0], now=now)
    return Snapshot(
        alias=alias,
        now=now,
        queues=queues,
        live_workers=[w for w in known if workers.condition_of(w, now) in workers.ALIVE],
        lost_workers=[w for w in known if workers.condition_of(w, now) == workers.Condition.LOST],
        retrying=Counted(min(times["retrying"], MOST), times["retrying"] > MOST),
        next_due=times["next_due"],
        lately=lately,
        day=day,
        next_retry=times["next_retry"],
    )
