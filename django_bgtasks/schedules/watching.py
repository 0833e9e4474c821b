"""How schedules fare: their last runs with what came of them, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..db import operations_for
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.schedule import RunStatus, Schedule, ScheduleRun
from ..timetables import zone_of

#: A schedule that is not looked at for so many seconds after it was due is overdue.
OVERDUE = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    One run and the state of its task: a status of a task, or of the run if it has none.

    GONE: the result was pruned. drift: seconds from the due time to its firing.
    """

    run: ScheduleRun
    state: str
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def drift(self) -> float:
        return (self.run.fired_at - self.run.due_at).total_seconds()

    @property
    def has_succeeded(self) -> bool:
        return self.state == "SUCCESSFUL"


def outcomes(runs: Iterable[ScheduleRun], *, alias: str) -> list[Outcome]:
    """Return what came of runs, in their order, by two queries."""
    listed = list(runs)
    ids = [run.task_id for run in listed if run.task_id is not None]
    tasks: dict[Any, Any] = {}
    if ids:
        for model in (FinishedTask, QueuedTask):
            columns = ["pk", "status", "started_at"]
            if model is FinishedTask:
                columns.append("finished_at")
            rows = model._default_manager.using(alias).filter(pk__in=ids)
            tasks.update({row[0]: row[1:] for row in rows.values_list(*columns)})
    found = []
    for run in listed:
        if run.status != RunStatus.FIRED:
            found.append(Outcome(run, run.status))
        elif run.task_id in tasks:
            state, started, *finished = tasks[run.task_id]
            found.append(Outcome(run, state, started, finished[0] if finished else None))
        else:
            found.append(Outcome(run, "GONE"))
    return found


def latest(row: Schedule, count: int = 20, *, alias: str) -> list[Outcome]:
    """Return the last runs of a schedule, the newest first."""
    runs = ScheduleRun.objects.using(alias).filter(schedule=row).order_by("-due_at")
    return outcomes(runs[:count], alias=alias)


def last_of(rows: Sequence[Schedule], *, alias: str) -> dict[int, Outcome]:
    """Return the last planned run of each schedule, by its key, by three queries."""
    wanted = {row.pk: row.last_due_at for row in rows if row.last_due_at is not None}
    if not wanted:
        return {}
    runs = ScheduleRun.objects.using(alias).filter(
        schedule_id__in=list(wanted), due_at__in=set(wanted.values())
    )
    mine = [run for run in runs if run.due_at == wanted[run.schedule_id]]
    return {outcome.run.schedule_id: outcome for outcome in outcomes(mine, alias=alias)}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a schedule, as a sentence."""

    schedule: str
    rule: str
    text: str


def problems(
    alias: str, *, now: datetime | None = None, only: Schedule | None = None
) -> list[Problem]:
    """Return what is wrong with the schedules of a database, or with one: a part of its health."""
    moment = now or operations_for(alias).now()
    rows = Schedule.objects.using(alias)
    if only is not None:
        rows = rows.filter(pk=only.pk)
    found = [
        Problem(
            row.name,
            "overdue",
            f"Schedule {row.name!r} was due {_age(moment - row.look_at)} ago and has not been "
            "fired. Does a worker run?",
        )
        for row in rows.filter(
            enabled=True, errors=0, look_at__lt=moment - timedelta(seconds=OVERDUE)
        )
        if row.look_at is not None
    ]
    for row in rows.exclude(error=""):
        state = "can't be fired" if row.enabled else "is disabled, since it could not be fired"
        found.append(Problem(row.name, "error", f"Schedule {row.name!r} {state}: {row.error}"))
    for row in rows.filter(enabled=True, error="", success_within__isnull=False):
        if (late := _without_success(row, moment, alias)) is not None:
            found.append(
                Problem(
                    row.name,
                    "success",
                    f"Schedule {row.name!r} was due at {late:%Y-%m-%d %H:%M} UTC and has not "
                    f"succeeded within {_age(timedelta(seconds=row.success_within or 0))}.",
                )
            )
    return found


def _without_success(row: Schedule, now: datetime, alias: str) -> datetime | None:
    """Return the due time that should have led to a success by now, and has not."""
    limit = now - timedelta(seconds=row.success_within or 0)
    due = row.timetable.before(limit, zone_of(row.time_zone))
    if row.is_exhausted:
        # After its last run nothing is due any more.
        due = row.last_due_at if row.last_due_at is None or row.last_due_at <= limit else None
    elif due is not None and row.end_at is not None and due > row.end_at:
        due = row.timetable.before(row.end_at, zone_of(row.time_zone))
    # What was due before it was planned as it is, or enabled, was another plan's.
    first = row.planned_from or row.created_at
    if row.start_at is not None:
        first = max(first, row.start_at)
    if due is None or due < first:
        return None
    since = ScheduleRun.objects.using(alias).filter(
        schedule=row, due_at__gte=due, task_id__isnull=False
    )
    # A success of a later run, or of one by hand, makes good.
    if any(o.has_succeeded or o.state == "GONE" for o in outcomes(since[:1000], alias=alias)):
        return None
    return due


def _age(delta: timedelta) -> str:
    seconds = delta.total_seconds()
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}s"
    return f"{seconds:.0f} s"
