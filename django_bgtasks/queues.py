"""
Pausing and resuming queues, and when they count as late: the one place that changes either.

From a paused queue no worker takes anything; what runs there finishes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction

from . import wakeups
from .backend import DatabaseBackend
from .compat import task_backends
from .conf import suggestion
from .db import operations_for
from .models.queue import Queue

#: Seconds of the largest latency target: a year.
LONGEST_TARGET = 366 * 86_400
_WHO = Queue._meta.get_field("paused_by").max_length
_WHY = Queue._meta.get_field("reason").max_length


class UnknownQueue(ValueError):
    """No queue has this name, or queues of several databases have it."""


def pause(name: str, *, reason: str = "", by: str = "", database: str | None = None) -> bool:
    """
    Have workers take nothing more from a queue; say whether that changed anything.

    by names who asks and reason says why, for the record. A queue that is
    paused keeps both and its time, unless it is paused for another reason.
    database is its alias, found by the name of the queue if not given. Raise
    UnknownQueue.
    """
    alias = _database_of(name, database)
    said = _text(reason, _WHY)
    changes: dict[str, Any] = {
        "paused_at": operations_for(alias).now_expression(None),
        "paused_by": _text(by, _WHO),
        "reason": said,
    }

    def unit() -> bool:
        with transaction.atomic(using=alias):
            Queue.objects.using(alias).get_or_create(name=name)
            rows = Queue.objects.using(alias).filter(pk=name)
            if rows.filter(paused_at=None).update(**changes):
                return True
            return bool(said and rows.exclude(reason=said).update(**changes))

    operations = operations_for(alias)
    return unit() if operations.connection.in_atomic_block else operations.retrying(unit)


def resume(name: str, *, database: str | None = None) -> bool:
    """
    Have workers take from a queue again, at once; say whether it was paused.

    database as for pause(). Raise UnknownQueue.
    """
    alias = _database_of(name, database)
    changed = (
        Queue.objects.using(alias)
        .filter(pk=name, paused_at__isnull=False)
        .update(paused_at=None, paused_by="", reason="")
    )
    if changed:
        wakeups.on_commit(alias, lambda: wakeups.wake(alias, name))
    return bool(changed)


def set_latency_target(name: str, seconds: float | None, *, database: str | None = None) -> bool:
    """
    Set how long the oldest task of a queue may wait; say whether that changed anything.

    None: as OPTIONS["LATENCY_TARGET"] says. database as for pause(). Raise
    UnknownQueue, and ValueError for less than a second.
    """
    if seconds is not None and not 1 <= seconds <= LONGEST_TARGET:
        raise ValueError(f"A latency target is 1 to {LONGEST_TARGET} seconds, not {seconds!r}.")
    alias = _database_of(name, database)
    rows = Queue.objects.using(alias)
    row, _ = rows.get_or_create(name=name)
    if row.latency_target == seconds:
        return False
    return bool(rows.filter(pk=name).update(latency_target=seconds))


def paused(*, database: str | None = None) -> list[Queue]:
    """Return the paused queues of a database, or of all that our backends use."""
    aliases = databases() if database is None else [database]
    return [
        row
        for alias in aliases
        for row in Queue.objects.using(alias).filter(paused_at__isnull=False).order_by("name")
    ]


def add_configured(database: str) -> None:
    """
    Add the rows of configured queues, so that people see them before a worker came.

    After each migrate; a row says no more than no row: not paused.
    """
    names = dict.fromkeys(name for b in backends(database) for name in b.queue_order)
    rows = Queue.objects.using(database)
    missing = [Queue(name=n) for n in names if not rows.filter(pk=n).exists()]
    rows.bulk_create(missing, ignore_conflicts=True)


def backends(database: str | None = None) -> list[DatabaseBackend]:
    """Return our backends in TASKS, of all databases or of one."""
    return [
        backend
        for backend in task_backends.all()
        if isinstance(backend, DatabaseBackend) and database in (None, backend.database)
    ]


def databases() -> list[str]:
    """Return the aliases of the databases that hold tasks."""
    return list(dict.fromkeys(backend.database for backend in backends()))


def _database_of(name: str, database: str | None) -> str:
    """Return the alias of the database that has a queue. Raise UnknownQueue."""
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
        raise UnknownQueue(f"A queue has a name of 1 to 100 printable characters, not {name!r}.")
    ours = backends(database)
    if database is not None and not ours:
        raise UnknownQueue(
            f"No backend in TASKS has its tasks in database {database!r}."
            f"{suggestion(database, databases())}"
        )
    # What names the queue itself comes before what would take any name.
    for has in (
        lambda backend: name in backend.queues,
        lambda backend: Queue.objects.using(backend.database).filter(pk=name).exists(),
        lambda backend: not backend.queues,
    ):
        found = list(dict.fromkeys(backend.database for backend in ours if has(backend)))
        if len(found) > 1:
            raise UnknownQueue(
                f"Databases {_listed(found)} each have a queue {name!r}. Name one: "
                f"database={found[0]!r}, or --backend on the command line."
            )
        if found:
            return found[0]
    known = _known(ours)
    raise UnknownQueue(
        f"Unknown queue {name!r}.{suggestion(name, known)} Known: {', '.join(known)}."
    )


def _known(ours: Iterable[DatabaseBackend]) -> list[str]:
    names: dict[str, None] = {}
    for backend in ours:
        names.update(dict.fromkeys(backend.queue_order))
        rows = Queue.objects.using(backend.database).order_by("name")
        names.update(dict.fromkeys(rows.values_list("name", flat=True)[:200]))
    return list(names)


def _listed(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} and {names[-1]!r}"


def _text(text: str, longest: int | None) -> str:
    return text.replace("\x00", "").strip()[:longest]
