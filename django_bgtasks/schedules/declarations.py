"""Schedules in code and settings: @schedule, every(), OPTIONS["SCHEDULES"]."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from ..compat import Task
from ..exceptions import InvalidSchedule
from .specification import Specification

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One schedule and where it is written: a module, or TASKS['default']."""

    specification: Specification
    where: str
    source: Literal["code", "settings"]


#: What the imported modules declare, by name.
_declared: dict[str, Declaration] = {}


def schedule(
    when: str | timedelta | datetime,
    *,
    name: str | None = None,
    tz: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    queue_name: str | None = None,
    priority: int | None = None,
    missed: Literal["skip", "once", "all"] = "once",
    overlap: Literal["allow", "skip", "queue", "cancel"] = "skip",
    start: datetime | None = None,
    end: datetime | None = None,
    max_runs: int | None = None,
    jitter: float | timedelta = 0.0,
    expires: float | timedelta | None = None,
    success_within: float | timedelta | None = None,
    enabled: bool = True,
) -> Callable[[T], T]:
    """
    Enqueue the task below whenever it is due. Stands above @task.

    when is a cron expression of five fields, an alias such as "@daily",
    "every 15 minutes" or a timedelta, "at 2027-01-01 08:00" or a datetime; tz
    the zone whose clock counts, settings.TIME_ZONE if not given. name is the
    task's path if not given. start and end are aware; durations are seconds
    or timedeltas. docs/schedules.md says what each option does. The queue and
    priority that .using() gave the task are those of the schedule, unless it
    has its own.

    Raise InvalidSchedule, while the module is imported, for what can't be right.
    """

    def declare(task: T) -> T:
        if not isinstance(task, Task):
            raise InvalidSchedule(
                name or str(getattr(task, "__name__", repr(task))),
                {"task": "@schedule stands above @task, and is given what that makes."},
            )
        queue, rank = _chosen(task)
        specification = Specification.of(
            name=task.module_path if name is None else name,
            task=task.module_path,
            when=when,
            tz=tz,
            args=list(args),
            kwargs=dict(kwargs or {}),
            backend=task.backend,
            queue_name=queue if queue_name is None else queue_name,
            priority=rank if priority is None else priority,
            missed=missed,
            overlap=overlap,
            start=start,
            end=end,
            max_runs=max_runs,
            jitter=jitter,
            expires=expires,
            success_within=success_within,
            enabled=enabled,
        ).checked(task)
        _declare(Declaration(specification, task.func.__module__, "code"), named=name is not None)
        return task

    return declare


def every(
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    **options: Any,
) -> Callable[[T], T]:
    """
    Enqueue a task at an interval: every(minutes=15)(sync_stock), or @every(minutes=15).

    Counted from start=, or from a fixed moment long ago, so that it doesn't
    drift and a deploy doesn't shift it. options are those of @schedule.
    """
    interval = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    return schedule(interval, **options)


def _chosen(task: Any) -> tuple[str | None, int | None]:
    """
    Return the queue and the priority that task.using() gave, None for the task's own.

    Raise InvalidSchedule for what else it gave: a worker finds the task by its
    path, and a row holds no more than these two.
    """
    # While the module is imported there is none yet: then this is it.
    named = getattr(sys.modules.get(task.func.__module__), task.func.__name__, None)
    own = named if isinstance(named, Task) and named.func is task.func else task
    lost = [name for name, value in getattr(task, "overrides", ()) if value is not None]
    lost += [name for name in ("run_after", "metadata") if getattr(task, name, None) is not None]
    if lost:
        options = " and ".join(f"using({name}=...)" for name in lost)
        raise InvalidSchedule(
            task.module_path, {"task": f"A schedule can't keep {options}: give it to @task."}
        )
    return (
        None if task.queue_name == own.queue_name else task.queue_name,
        None if task.priority == own.priority else task.priority,
    )


def _declare(declaration: Declaration, *, named: bool) -> None:
    specification = declaration.specification
    there = _declared.get(specification.name)
    # A module that is imported twice declares the same twice.
    if there is not None and there.specification != specification:
        hint = (
            "Give it another name."
            if named
            else "Several schedules of one task need names: name='...'."
        )
        raise InvalidSchedule(
            specification.name,
            {"name": f"The name is taken by a schedule in {there.where}. {hint}"},
        )
    _declared[specification.name] = declaration


def declared(backend: Any) -> Iterator[Declaration]:
    """
    Yield what code and settings declare for one backend of ours.

    Raise InvalidSchedule for what is wrong in the settings.
    """
    names = {}
    for declaration in _declared.values():
        if declaration.specification.backend == backend.alias:
            names[declaration.specification.name] = declaration
            yield declaration
    for number, given in enumerate(backend.conf.schedules):
        declaration = from_settings(backend.alias, number, given)
        name = declaration.specification.name
        if name in names:
            raise InvalidSchedule(
                name, {"name": f"{declaration.where} and {names[name].where} have the same name."}
            )
        names[name] = declaration
        yield declaration


def from_settings(alias: str, number: int, given: Mapping[str, Any]) -> Declaration:
    """Return the schedule of one item of OPTIONS["SCHEDULES"]. Raise InvalidSchedule."""
    where = f"TASKS[{alias!r}]['OPTIONS']['SCHEDULES'][{number}]"
    item = dict(given)
    lacking = [key for key in ("task", "when") if key not in item]
    if lacking:
        raise InvalidSchedule(where, {key: f"{key!r} is missing." for key in lacking})
    name = item.pop("name", None) or item["task"]
    if item.setdefault("backend", alias) != alias:
        problem = f"It belongs to TASKS[{alias!r}]: write it into TASKS[{item['backend']!r}]."
        raise InvalidSchedule(where, {"backend": problem})
    try:
        specification = Specification.of(name=name, **item).checked()
    except InvalidSchedule as error:
        raise InvalidSchedule(f"{name} of {where}", error.problems) from None
    return Declaration(specification, where, "settings")


def forget() -> dict[str, Declaration]:
    """Forget what code declares, and return it: for tests that import such modules."""
    forgotten = dict(_declared)
    _declared.clear()
    return forgotten
