"""What people do to schedules: run one now, make up for a range, enable and disable."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction

from ..db import operations_for
from ..exceptions import DuplicateTask
from ..models.schedule import Overlap, RunKind, RunStatus, Schedule, ScheduleRun
from ..timetables import zone_of
from .sync import specification_of
from .turn import backend_of, has_the_key, live_tasks, origin_of

#: Due times of one backfill.
MOST_BACKFILLED = 1000
#: Runs that are looked through for tasks that have not ended, to tell people of them.
MOST_SHOWN = 1000


class NotPossible(ValueError):
    """What was asked of a schedule can't be done; the text says why."""


def run_now(row: Schedule, *, by: str = "", alias: str) -> Any:
    """
    Enqueue the task of a schedule now; return its result. The plan stays as it is.

    Whatever overlap says: somebody asked for it. Where a unique key gives the
    task away, the run is written down as skipped; the result is that of the
    task that has the key, with created False, or DuplicateTask is raised.
    Raise what else an enqueue raises, and NotPossible for a row that is gone.
    """
    operations = operations_for(alias)
    with operations.step():
        locked = _locked(row, alias)
        now = operations.now()
        reason = f"Run by {by}."[:255] if by else "Run by hand."
        found = _enqueue(locked, now, alias)
        ScheduleRun.objects.using(alias).create(
            schedule=locked,
            due_at=now,
            fired_at=now,
            kind=RunKind.MANUAL,
            status=RunStatus.SKIPPED if found.refusal else RunStatus.FIRED,
            task_id=found.task_id,
            reason=found.refusal or reason,
        )
    if found.error is not None:
        raise found.error
    return found.result


@dataclass(slots=True)
class _Enqueued:
    """What came of one enqueue: a task, or why there is none."""

    result: Any = None
    refusal: str = ""
    error: DuplicateTask | None = None

    @property
    def task_id(self) -> str | None:
        return None if self.result is None else self.result.id


def _enqueue(row: Schedule, due: datetime, alias: str) -> _Enqueued:
    """Enqueue the task of a schedule, unless another one has its unique key."""
    # What was asked for doesn't expire.
    origin = {"schedule": origin_of(row, due, 0)["schedule"]}
    task = specification_of(row).task_object()
    try:
        with transaction.atomic(using=alias):
            result = backend_of(row).enqueue_as(task, row.args, row.kwargs, origin)
    except DuplicateTask as error:
        return _Enqueued(refusal=str(error)[:255], error=error)
    return _Enqueued(result, "" if result.created else has_the_key(result.id))


def _locked(row: Schedule, alias: str) -> Schedule:
    """Return a row as it is now, locked. Raise NotPossible if it is gone."""
    found = Schedule.objects.using(alias).select_for_update().filter(pk=row.pk).first()
    if found is None:
        raise NotPossible(f"Schedule {row.name!r} is gone: somebody deleted it.")
    return found


@dataclass(slots=True)
class Backfill:
    """
    Due times of a range: to run, or run already; whether they run one after another.

    refused are those that enqueued nothing, with the reason: a unique key gave
    their tasks away. They are not in due.
    """

    due: list[datetime]
    done: list[datetime]
    in_turn: bool
    refused: dict[datetime, str] = field(default_factory=dict)


def backfill(
    row: Schedule,
    start: datetime,
    end: datetime,
    *,
    by: str = "",
    dry_run: bool = False,
    alias: str,
) -> Backfill:
    """
    Run the due times from start to end, both included, that have not been run.

    All at once if they may overlap, else one after another. Raise NotPossible
    for a range without a due time between the schedule's start and end, with too
    many, or in the future, and for a row that is gone.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise NotPossible("A range is given by aware datetimes.")
    if end < start:
        raise NotPossible(f"The range ends, {_shown(end)}, before it starts, {_shown(start)}.")
    operations = operations_for(alias)
    with operations.step():
        locked = _locked(row, alias)
        now = operations.now()
        if end > now:
            raise NotPossible(f"{_shown(end)} has not come yet.")
        found = _due_times(locked, start, end, alias)
        if not dry_run:
            _write(locked, found, now, by, alias)
    return found


def _due_times(row: Schedule, start: datetime, end: datetime, alias: str) -> Backfill:
    times = []
    first = start if row.start_at is None else max(start, row.start_at)
    last = end if row.end_at is None else min(end, row.end_at)
    for due in row.timetable.between(first, last, zone_of(row.time_zone)):
        times.append(due)
        if len(times) > MOST_BACKFILLED:
            raise NotPossible(
                f"Schedule {row.name!r} is due more than {MOST_BACKFILLED:,} times in that range. "
                "Take a shorter one."
            )
    if not times:
        text = f"Schedule {row.name!r} is not due in that range."
        if row.start_at is not None and row.start_at > start:
            text += f" It starts at {_shown(row.start_at)}."
        if row.end_at is not None and row.end_at < end:
            text += f" It ends at {_shown(row.end_at)}."
        raise NotPossible(text)
    done = set(
        ScheduleRun.objects.using(alias)
        .filter(
            schedule=row,
            due_at__range=(start, end),
            status__in=(RunStatus.FIRED, RunStatus.HELD),
        )
        .values_list("due_at", flat=True)
    )
    return Backfill(
        due=[due for due in times if due not in done],
        done=[due for due in times if due in done],
        in_turn=row.overlap != Overlap.ALLOW,
    )


def _write(row: Schedule, found: Backfill, now: datetime, by: str, alias: str) -> None:
    runs = ScheduleRun.objects.using(alias)
    reason = f"Backfilled by {by}."[:255] if by else "Backfilled."
    for due in found.due:
        values: dict[str, Any] = {
            "kind": RunKind.BACKFILL,
            "status": RunStatus.HELD,
            "fired_at": now,
            "reason": reason,
            "missed": 0,
            "late": False,
            "task_id": None,
        }
        if not found.in_turn:
            made = _enqueue(row, due, alias)
            values |= {"status": RunStatus.FIRED, "task_id": made.task_id}
            if made.refusal:
                values |= {"status": RunStatus.SKIPPED, "reason": made.refusal}
                found.refused[due] = made.refusal
        runs.update_or_create(schedule=row, due_at=due, defaults=values)
    found.due = [due for due in found.due if due not in found.refused]
    if found.due and found.in_turn:
        # The workers begin one after another.
        row.holds = True
        row.look_at = now
        row.save(using=alias, update_fields=["holds", "look_at"])


def set_enabled(row: Schedule, enabled: bool, *, alias: str) -> bool:
    """
    Enable or disable a schedule; say whether that changed it. Nothing is made up for.

    Raise NotPossible for a row that is gone.
    """
    with operations_for(alias).step():
        locked = _locked(row, alias)
        # Once a person says so, too, it isn't tried again by a sync.
        is_settled = enabled or not locked.gave_up
        if locked.enabled == enabled and is_settled:
            return False
        locked.enabled = enabled
        locked.errors, locked.error = 0, ""
        locked.save(using=alias, update_fields=["enabled", "errors", "error"])
    row.enabled = enabled
    return True


def still_running(row: Schedule, *, alias: str) -> list[str]:
    """Return the ids of a schedule's tasks that have not ended, of its last MOST_SHOWN."""
    return list(live_tasks(alias, row, most_runs=MOST_SHOWN))


def _shown(moment: datetime) -> str:
    return moment.isoformat(" ", "minutes")
