"""run_tasks(): what workers would do, in this thread and transaction, now or until a moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from .. import registry, transitions
from ..exceptions import TaskFailed, Undecipherable, UnknownTask
from ..models.limit import LimitKey, LimitWait
from ..models.queued import QueuedTask
from ..queues import databases
from ..results import fetch_result
from ..schedules.firing import Scheduler
from ..schedules.sync import sync
from ..states import FinalStatus
from ..worker.announcer import send_enqueued
from ..worker.execution import Execution
from ..worker.maintenance import promote_due
from .clock import Clock
from .slot import Slot

#: Attempts of one run_tasks(), unless it is told otherwise.
MOST = 1_000


@dataclass(slots=True)
class TasksRun:
    """
    What run_tasks() did.

    successful, failed and cancelled count tasks by their end, retried and
    snoozed attempts after which the task runs again. tasks has the results of
    those that ended, in the order in which they did.
    """

    successful: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    snoozed: int = 0
    tasks: list[Any] = field(default_factory=list)


def run_tasks(
    *,
    until: datetime | timedelta | None = None,
    schedules: Iterable[str] | None = None,
    raise_errors: bool = True,
    most: int = MOST,
) -> TasksRun:
    """
    Run the tasks that are enqueued, as workers would, in this thread and transaction.

    What they enqueue runs, too, and so do their other attempts, without the
    pauses before these. With until, an aware datetime or a timedelta from now,
    time goes on to that moment: what is scheduled until then, pauses before
    other attempts included, runs when it is due, and schedules fire. schedules
    are the names of those that fire, None for all.

    The first failure that no other attempt follows is raised here, when it is
    written; with raise_errors=False it is counted. Raise RuntimeError within
    transaction.atomic(), and after most attempts.
    """
    if schedules is not None and until is None:
        raise TypeError("schedules=... says nothing without until=...: time stands still.")
    names = databases()
    if not names:
        raise no_backend()
    clock = Clock()
    end = _moment(until, clock.now())
    done = TasksRun()
    with clock.running():
        runners = [_Runner(name, clock, done, raise_errors, most) for name in names]
        if end is not None:
            for runner in runners:
                runner.plan(schedules)
        while True:
            while any(runner.run_ready(pauses=end is not None) for runner in runners):
                pass
            # A rate lets the next task start when its time has come, until or not.
            moments = [m for runner in runners for m in runner.moments(travels=end is not None)]
            if not moments or (end is not None and min(moments) > end):
                return done
            clock.forward_to(min(moments))


def no_backend() -> ImproperlyConfigured:
    """Return the exception that says what settings this needs."""
    return ImproperlyConfigured(
        "No backend in TASKS is a django_bgtasks.DatabaseBackend, so there are no rows to run. "
        "ImmediateBackend runs tasks when they are enqueued, DummyBackend never."
    )


def _moment(until: datetime | timedelta | None, now: datetime) -> datetime | None:
    if isinstance(until, timedelta):
        return now + until
    if until is not None and (not isinstance(until, datetime) or timezone.is_naive(until)):
        raise TypeError(f"until must be an aware datetime or a timedelta, not {until!r}.")
    return until


class _Runner:
    """What workers do for one database."""

    def __init__(
        self, alias: str, clock: Clock, done: TasksRun, raise_errors: bool, most: int
    ) -> None:
        self._alias = alias
        self._clock = clock
        self._done = done
        self._raise_errors = raise_errors
        self._most = self._left = most
        self._slot = Slot(alias)
        self._scheduler: Scheduler | None = None

    def plan(self, schedules: Iterable[str] | None) -> None:
        """Make rows of what the project declares, as a worker does when it starts."""
        for backend in self._slot.backends.values():
            registry.load_task_modules(backend.conf.task_modules)
            sync(backend)
        self._scheduler = Scheduler(self._alias, self._slot.backends, names=schedules)

    def run_ready(self, *, pauses: bool) -> bool:
        """Run all that may run at this moment; say whether there was any."""
        ran = False
        self._fire()
        promote_due(self._alias)
        while True:
            execution = self._slot.claim()
            if execution is not None:
                self._run(execution, pauses=pauses)
                ran = True
            elif not self._slot.refill():
                return ran

    def _fire(self) -> None:
        if self._scheduler is None:
            return
        while True:
            fired = self._scheduler.fire_due()
            if fired.ids:
                send_enqueued(fired.ids, self._alias, next(iter(self._slot.backends.values())))
            if fired.next_in is None or fired.next_in > 0:
                return

    def moments(self, *, travels: bool) -> list[datetime]:
        """Return when there is something to do again, each in the future."""
        now = self._clock.now()
        waits = LimitWait.objects.using(self._alias).values("digest")
        rates = LimitKey.objects.using(self._alias).filter(pk__in=waits, next_at__gt=now)
        found = [rates.order_by("next_at").values_list("next_at", flat=True).first()]
        if travels:
            due = QueuedTask.objects.using(self._alias).filter(due_at__isnull=False)
            found.append(due.order_by("due_at").values_list("due_at", flat=True).first())
        if self._scheduler is not None:
            found.append(self._scheduler.next_look())
        return [moment for moment in found if moment is not None]

    def _run(self, execution: Execution, *, pauses: bool) -> None:
        row = execution.row
        if self._left <= 0:
            transitions.release(self._alias, [(row.id, row.claim_id)])
            raise RuntimeError(
                f"After {self._most:,} attempts there are still tasks; {row.task_path} is next. "
                "Does one enqueue itself? run_tasks(most=...) allows more."
            )
        self._left -= 1
        if not self._slot.run(execution, pauses=pauses):
            return
        done, ending = self._done, execution.ending
        if ending is None:
            done.retried += execution.retry_delay is not None
            done.snoozed += execution.put_off_delay is not None
            # Neither of the two is the task's own wish to be run later.
            if self._raise_errors and isinstance(execution.exception, UnknownTask | Undecipherable):
                _surface(execution)
            return
        done.successful += ending.status == FinalStatus.SUCCESSFUL
        done.failed += ending.status == FinalStatus.FAILED
        done.cancelled += ending.status == FinalStatus.CANCELLED
        done.tasks.append(fetch_result(row.id, self._alias))
        if self._raise_errors and ending.status == FinalStatus.FAILED:
            _surface(execution)


def _surface(execution: Execution) -> NoReturn:
    """Raise what a task raised, in the test that ran it."""
    error, row = execution.exception, execution.row
    where = f"{row.task_path} ({row.id}), attempt {row.attempt}"
    if not isinstance(error, Exception):
        # SystemExit and the like would end more than the test.
        raise TaskFailed(f"{where} raised {error!r}") from error
    error.add_note(f"In {where}. run_tasks(raise_errors=False) counts failures instead.")
    raise error
