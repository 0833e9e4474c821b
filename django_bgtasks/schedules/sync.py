"""From what code and settings declare to rows: at the start of a worker, and by command."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from ..arguments import normalise
from ..db import operations_for
from ..models.schedule import Schedule, Source
from ..timetables import TimetableError
from .declarations import Declaration, declared
from .specification import Specification

logger = logging.getLogger("django_bgtasks.worker")

_DECLARED = (Source.CODE.value, Source.SETTINGS.value)


@dataclass(slots=True)
class Changes:
    """What a sync did, or would do: names of schedules."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    #: Declared, but an operator's schedule has the name.
    taken: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def columns_of(specification: Specification) -> dict[str, Any]:
    """Return what a specification says as columns of Schedule."""
    return {
        "task_path": specification.task,
        "backend": specification.backend,
        # As JSON gives them back: else a tuple would look like a change at each start.
        "args": normalise(list(specification.args)),
        "kwargs": normalise(dict(specification.kwargs)),
        "queue_name": specification.queue_name or "",
        "priority": specification.priority,
        "expression": specification.when,
        "time_zone": specification.tz,
        "missed": specification.missed,
        "overlap": specification.overlap,
        "start_at": specification.start,
        "end_at": specification.end,
        "max_runs": specification.max_runs,
        "jitter": specification.jitter,
        "expires": specification.expires,
        "success_within": specification.success_within,
    }


def specification_of(row: Schedule) -> Specification:
    """Return what a row says."""
    return Specification(
        name=row.name,
        task=row.task_path,
        when=row.expression,
        tz=row.time_zone,
        args=row.args,
        kwargs=row.kwargs,
        backend=row.backend,
        queue_name=row.queue_name or None,
        priority=row.priority,
        missed=row.missed,
        overlap=row.overlap,
        start=row.start_at,
        end=row.end_at,
        max_runs=row.max_runs,
        jitter=row.jitter,
        expires=row.expires,
        success_within=row.success_within,
        enabled=row.enabled,
    )


def sync(backend: Any, *, dry_run: bool = False) -> Changes:
    """
    Make the rows of declared schedules what code and settings say; return what changed.

    What an operator disabled stays disabled, and an operator's own schedules
    are left alone. A changed time is planned from now on. Raise InvalidSchedule
    for what is wrong in the settings; nothing is changed then.
    """
    wanted = {d.specification.name: d for d in declared(backend)}
    operations = operations_for(backend.database)

    def unit() -> Changes:
        with operations.step():
            return _sync(backend, wanted, dry_run=dry_run)

    if operations.connection.in_atomic_block:
        return unit()
    return operations.retrying(unit)


def _sync(backend: Any, wanted: dict[str, Declaration], *, dry_run: bool) -> Changes:
    changes = Changes()
    rows = Schedule.objects.using(backend.database)
    there = {
        row.name: row
        for row in rows.select_for_update().filter(backend=backend.alias, source__in=_DECLARED)
    }
    others = set(
        rows.filter(name__in=[name for name in wanted if name not in there]).values_list(
            "name", flat=True
        )
    )
    for name, declaration in wanted.items():
        columns = columns_of(declaration.specification)
        columns |= {"source": declaration.source, "source_detail": declaration.where[:255]}
        row = there.get(name)
        if row is not None:
            if all(getattr(row, key) == value for key, value in columns.items()):
                changes.unchanged.append(name)
                if not dry_run:
                    _replan(row)
                continue
            changes.changed.append(name)
            for key, value in columns.items():
                setattr(row, key, value)
            if not dry_run:
                row.save(using=backend.database)
        elif name in others:
            changes.taken.append(name)
        else:
            changes.added.append(name)
            if not dry_run:
                made = Schedule(name=name, enabled=declaration.specification.enabled, **columns)
                made.plan(operations_for(backend.database).now())
                # Another worker may be adding it.
                rows.bulk_create([made], ignore_conflicts=True)
    changes.removed = sorted(set(there) - set(wanted))
    if changes.removed and not dry_run:
        rows.filter(pk__in=[there[name].pk for name in changes.removed]).delete()
    return changes


def _replan(row: Schedule) -> None:
    """Plan anew what is still to come: the rules of a time zone may have changed."""
    if row.next_due_at is None or row.look_at != row.next_due_at:
        return
    now = operations_for(row._state.db or "default").now()
    if row.next_due_at <= now:
        return
    try:
        expected = row.next_after(now)
    except TimetableError:
        return  # When it is due, that is written down.
    if expected is not None and expected != row.next_due_at:
        logger.warning("Schedule %r is planned anew, for %s.", row.name, expected)
        Schedule.objects.using(row._state.db).filter(pk=row.pk, next_due_at=row.next_due_at).update(
            next_due_at=expected, look_at=expected
        )


def log_changes(changes: Changes) -> None:
    """Say in the worker's log what a sync did."""
    for verb in ("added", "changed", "removed"):
        if names := getattr(changes, verb):
            logger.info("Schedules %s: %s.", verb, ", ".join(sorted(names)))
    for name in changes.taken:
        logger.warning(
            "Schedule %r is declared in code or settings, but one that was made in the admin "
            "has its name: rename that.",
            name,
        )
