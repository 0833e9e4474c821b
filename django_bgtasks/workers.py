"""
Workers as their rows tell: which are alive, and asking one to take no more, or to stop.

A worker obeys at its next beat. Nothing makes a quiet worker take tasks again: stop it, and
start another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.db.models import TextChoices
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import pgettext_lazy

from . import queues
from .conf import suggestion
from .db import operations_for
from .models.worker import Worker, WorkerRequest, WorkerState

#: Rows of a database that are read.
MOST = 1_000
#: Seconds by which the clock of a worker's machine may differ from the database's.
CLOCK_TOLERANCE = 5.0
#: Digits of the end of an id that are enough to mean a worker.
TAIL = 6
_WHO = Worker._meta.get_field("requested_by").max_length


class UnknownWorker(ValueError):
    """No worker has this name or id, or several have it."""


class CannotObey(ValueError):
    """The worker has stopped, or nothing is heard of it."""


class Condition(TextChoices):
    """What a worker says of itself, and what can be told by its silence."""

    STARTING = "STARTING", pgettext_lazy("Worker", "Starting")
    RUNNING = "RUNNING", pgettext_lazy("Worker", "Running")
    QUIET = "QUIET", pgettext_lazy("Worker", "Quiet")
    STOPPING = "STOPPING", pgettext_lazy("Worker", "Stopping")
    LOST = "LOST", pgettext_lazy("Worker", "Lost")
    STOPPED = "STOPPED", pgettext_lazy("Worker", "Stopped")


#: Conditions of a worker that is there.
ALIVE = frozenset({Condition.STARTING, Condition.RUNNING, Condition.QUIET, Condition.STOPPING})
#: Conditions of a worker that takes tasks, or will soon.
TAKING = frozenset({Condition.STARTING, Condition.RUNNING})


def known(alias: str) -> list[Worker]:
    """
    Return the workers of a database that it has heard of, the latest first.

    Each has an attribute clock, the database's time when it was read. Those of
    which nothing was heard for an hour are forgotten.
    """
    clock = operations_for(alias).now_expression(None)
    return list(Worker.objects.using(alias).annotate(clock=clock).order_by("-started_at")[:MOST])


def live(alias: str) -> list[Worker]:
    """Return the workers of a database that are there."""
    return [worker for worker in known(alias) if condition_of(worker) in ALIVE]


def lost(alias: str) -> list[Worker]:
    """Return the workers of a database that fell silent without having stopped."""
    return [worker for worker in known(alias) if condition_of(worker) == Condition.LOST]


def condition_of(worker: Worker, now: datetime | None = None) -> Condition:
    """Return the condition of a worker; now is its attribute clock if not given."""
    if worker.state == WorkerState.STOPPED:
        return Condition.STOPPED
    if silence(worker, now) > worker.lease:
        return Condition.LOST
    if worker.state == WorkerState.RUNNING and worker.heartbeat_at == worker.started_at:
        return Condition.STARTING
    return Condition(worker.state)


def silence(worker: Worker, now: datetime | None = None) -> float:
    """Return the seconds since a worker was heard of."""
    moment = now or getattr(worker, "clock", None) or timezone.now()
    return max(0.0, (moment - worker.heartbeat_at).total_seconds())


def serves(worker: Worker, queue: str) -> bool:
    """Say whether a worker listens to a queue."""
    return not worker.queues or queue in worker.queues


def only_served_by(leaving: Sequence[Worker], others: Iterable[Worker]) -> list[str]:
    """Return the queues that no worker would take from if those that are leaving left."""
    gone = {worker.pk for worker in leaving}
    staying = [w for w in others if w.pk not in gone and condition_of(w) in TAKING]
    names = dict.fromkeys(name for worker in leaving for name in worker.queues)
    return [name for name in names if not any(serves(worker, name) for worker in staying)]


def clock_differs(worker: Worker) -> bool:
    """Say whether the clock of a worker's machine differs from the database's too much."""
    return abs(worker.clock_offset) > CLOCK_TOLERANCE


def facts(worker: Worker) -> dict[str, Any]:
    """Return what is known of a worker as JSON can hold it, times in UTC."""
    return {
        "database": worker._state.db,
        "id": str(worker.pk),
        "name": worker.name,
        "state": condition_of(worker).value.lower(),
        "backend": worker.backend,
        "host": worker.hostname,
        "pid": worker.pid,
        "version": worker.version,
        "queues": worker.queues,
        "processes": worker.processes,
        "threads": worker.threads,
        "running": worker.running,
        "finished": worker.finished,
        "memory": worker.memory,
        "clock_offset": round(worker.clock_offset, 3),
        "scheduler": worker.scheduler,
        "maintenance": worker.maintenance,
        "started_at": worker.started_at.isoformat(),
        "heartbeat_at": worker.heartbeat_at.isoformat(),
        "request": worker.request.lower(),
        "requested_at": worker.requested_at and worker.requested_at.isoformat(),
        "requested_by": worker.requested_by,
    }


def find(term: str, *, database: str | None = None) -> Worker:
    """
    Return the worker of a name, of an id, or of the last six digits of one or more.

    Of several with a name the one that is alive. database is an alias; without
    it all that hold tasks are searched. Raise UnknownWorker.
    """
    aliases = queues.databases() if database is None else [database]
    rows = [worker for alias in aliases for worker in known(alias)]
    found = [worker for worker in rows if worker.name == term]
    if not found:
        digits = term.lower()
        found = [worker for worker in rows if _means(digits, str(worker.pk))]
    alive = [worker for worker in found if condition_of(worker) in ALIVE]
    if len(alive) > 1:
        ids = ", ".join(f"{worker.pk} (pid {worker.pid})" for worker in alive)
        raise UnknownWorker(f"Several workers are {term!r}. Give the id of one: {ids}.")
    if found:
        return (alive or found)[0]
    names = list(dict.fromkeys(w.name for w in rows if condition_of(w) in ALIVE))
    if not names:
        raise UnknownWorker(
            f"Unknown worker {term!r}. No worker is alive. To start one, type: manage.py runworker"
        )
    raise UnknownWorker(
        f"Unknown worker {term!r}.{suggestion(term, names)} Alive: {', '.join(names[:20])}."
    )


def _means(digits: str, pk: str) -> bool:
    return pk == digits or (len(digits) >= TAIL and pk.endswith(digits))


def ask(worker: Worker, request: str, *, by: str = "") -> bool:
    """
    Ask a worker to take no more tasks or to stop; say whether that is new to it.

    request is one of WorkerRequest; by names who asks, for the record. The first
    to ask stays in it. Raise CannotObey for a worker that has stopped, or of
    which nothing is heard.
    """
    wanted = WorkerRequest(request)
    alias = worker._state.db or "default"
    operations = operations_for(alias)
    rows = Worker.objects.using(alias).filter(pk=worker.pk)
    now = operations.now_expression(None)
    row = rows.annotate(clock=now).first()
    if row is None or condition_of(row) == Condition.STOPPED:
        raise CannotObey(_("%(name)s has stopped.") % {"name": worker.name})
    if condition_of(row) == Condition.LOST:
        raise CannotObey(
            _(
                "Nothing was heard of %(name)s for %(seconds)d s, so it can't obey. Its tasks "
                "run again elsewhere."
            )
            % {"name": worker.name, "seconds": silence(row)}
        )
    if wanted == WorkerRequest.QUIET:
        open_to_it = rows.filter(state=WorkerState.RUNNING, request="")
    else:
        open_to_it = rows.filter(
            state__in=(WorkerState.RUNNING, WorkerState.QUIET),
            request__in=("", WorkerRequest.QUIET),
        )
    who = by.replace("\x00", "").strip()[:_WHO]
    return bool(open_to_it.update(request=wanted, requested_at=now, requested_by=who))
