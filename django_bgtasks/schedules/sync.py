"""From what code and settings declare to rows: at the start of a worker, and by command."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q

from .. import queues
from ..arguments import normalise
from ..db import operations_for
from ..exceptions import InvalidSchedule
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
    #: Declared, but another schedule has the name; and whose that is.
    taken: list[str] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)

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
    are left alone; what was disabled by its errors is tried again. A row follows
    its declaration to another backend, or to another alias of this one. A
    changed time is planned from now on. Raise InvalidSchedule for what is wrong
    in the settings; nothing is changed then.
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
    elsewhere, ours = _declared_elsewhere(backend)
    rows = Schedule.objects.using(backend.database)
    mine = Q(backend=backend.alias, source__in=_DECLARED)
    there = {
        row.name: row for row in rows.select_for_update().filter(mine | Q(name__in=list(wanted)))
    }
    for name, declaration in wanted.items():
        row = there.get(name)
        if row is None:
            changes.added.append(name)
            if not dry_run:
                _add(name, declaration, backend.database)
        elif owner := _owner(row, backend, elsewhere, ours):
            changes.taken.append(name)
            changes.owners[name] = owner
        else:
            changed = _change(row, declaration, backend.database, dry_run=dry_run)
            (changes.changed if changed else changes.unchanged).append(name)
    for name, row in there.items():
        if name in wanted or row.source not in _DECLARED or row.backend != backend.alias:
            continue
        moved = elsewhere.get(name)
        if moved is not None:
            # What was disabled stays so, and what it has run is remembered.
            _change(row, moved, backend.database, dry_run=dry_run)
            changes.changed.append(name)
        elif not _is_out_of_sight(row, backend):
            changes.removed.append(name)
    changes.removed.sort()
    if changes.removed and not dry_run:
        rows.filter(pk__in=[there[name].pk for name in changes.removed]).delete()
    return changes


def _add(name: str, declaration: Declaration, alias: str) -> None:
    made = Schedule(
        name=name, enabled=declaration.specification.enabled, **_columns_of(declaration)
    )
    made.plan(operations_for(alias).now())
    # Another worker may be adding it.
    Schedule.objects.using(alias).bulk_create([made], ignore_conflicts=True)


def _change(row: Schedule, declaration: Declaration, alias: str, *, dry_run: bool) -> bool:
    """Make a row what is declared; say whether that changed it."""
    columns = _columns_of(declaration)
    # Its errors disabled it, and no person: what is declared now may be right.
    columns["enabled"] = row.enabled or row.gave_up
    changes = {key: value for key, value in columns.items() if getattr(row, key) != value}
    for key, value in changes.items():
        setattr(row, key, value)
    if dry_run:
        pass
    elif changes:
        row.save(using=alias)
    else:
        _replan(row)
    return bool(changes)


def _columns_of(declaration: Declaration) -> dict[str, Any]:
    return {
        **columns_of(declaration.specification),
        "source": declaration.source,
        "source_detail": declaration.where[:255],
    }


def _declared_elsewhere(backend: Any) -> tuple[dict[str, Declaration], set[str]]:
    """Return what other backends of this database declare, by name, and the aliases of all."""
    found: dict[str, Declaration] = {}
    aliases = {backend.alias}
    for other in queues.backends():
        if other.alias == backend.alias or other.database != backend.database:
            continue
        aliases.add(other.alias)
        try:
            for declaration in declared(other):
                found[declaration.specification.name] = declaration
        except InvalidSchedule:
            continue  # Its own sync says so.
    return found, aliases


def _owner(row: Schedule, backend: Any, elsewhere: dict[str, Declaration], ours: set[str]) -> str:
    """Return whose a row is, "" if what this backend declares may have it."""
    if row.source not in _DECLARED:
        return "one that was added by hand"
    if row.backend == backend.alias or row.backend not in ours or row.name not in elsewhere:
        return ""
    return f"the one of {row.source_detail} for TASKS[{row.backend!r}]"


def _is_out_of_sight(row: Schedule, backend: Any) -> bool:
    """Say whether this process has not read the module that declares a row, but another may."""
    module = row.source_detail
    if row.source != Source.CODE or module in sys.modules:
        return False
    named = {name for other in queues.backends() for name in other.conf.task_modules}
    named -= set(backend.conf.task_modules)
    return any(module == name or module.startswith(f"{name}.") for name in named)


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
        logger.warning("%s", name_is_taken(name, changes))


def name_is_taken(name: str, changes: Changes) -> str:
    """Return a sentence about a declaration whose name another schedule has."""
    return f"Schedule {name!r} is declared, but {changes.owners[name]} has its name: rename either."
