"""What people do to schedules: run one now, make up for a range, enable and disable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from ..db import operations_for
from ..models.schedule import Overlap, RunKind, RunStatus, Schedule, ScheduleRun
from ..timetables import zone_of
from .firing import backend_of, live_among, origin_of
from .sync import specification_of

#: Due times of one backfill.
MOST_BACKFILLED = 1000


class NotPossible(ValueError):
    """What was asked of a schedule can't be done; the text says why."""


def run_now(row: Schedule, *, by: str = "", alias: str) -> Any:
    """
    Enqueue the task of a schedule now; return its result. The plan stays as it is.

    Whatever overlap says: somebody asked for it. Raise what an enqueue raises.
    """
    operations = operations_for(alias)
    with operations.step():
        locked = Schedule.objects.using(alias).select_for_update().get(pk=row.pk)
        now = timezone.now()
        task = specification_of(locked).task_object()
        result = backend_of(locked).enqueue_as(
            task, locked.args, locked.kwargs, {"schedule": origin_of(locked, now, 0)["schedule"]}
        )
        ScheduleRun.objects.using(alias).create(
            schedule=locked,
            due_at=now,
            fired_at=now,
            kind=RunKind.MANUAL,
            status=RunStatus.FIRED,
            task_id=result.id,
            reason=f"Run by {by}."[:255] if by else "Run by hand.",
        )
    return result


@dataclass(slots=True)
class Backfill:
    """Due times of a range: to run, or run already; whether they run one after another."""

    due: list[datetime]
    done: list[datetime]
    in_turn: bool


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
    for a range without a due time, with too many, or in the future.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise NotPossible("A range is given by aware datetimes.")
    if end < start:
        raise NotPossible(f"The range ends, {_shown(end)}, before it starts, {_shown(start)}.")
    operations = operations_for(alias)
    with operations.step():
        locked = Schedule.objects.using(alias).select_for_update().get(pk=row.pk)
        now = operations.now()
        if end > now:
            raise NotPossible(f"{_shown(end)} has not come yet.")
        found = _due_times(locked, start, end, alias)
        if not dry_run:
            _write(locked, found, now, by, alias)
    return found


def _due_times(row: Schedule, start: datetime, end: datetime, alias: str) -> Backfill:
    times = []
    for due in row.timetable.between(start, end, zone_of(row.time_zone)):
        times.append(due)
        if len(times) > MOST_BACKFILLED:
            raise NotPossible(
                f"Schedule {row.name!r} is due more than {MOST_BACKFILLED:,} times in that range. "
                "Take a shorter one."
            )
    if not times:
        raise NotPossible(f"Schedule {row.name!r} is not due in that range.")
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
    task = specification_of(row).task_object()
    backend = backend_of(row)
    for due in found.due:
        values: dict[str, Any] = {
            "kind": RunKind.BACKFILL,
            "status": RunStatus.HELD,
            "fired_at": now,
            "reason": reason,
            "missed": 0,
            "task_id": None,
        }
        if not found.in_turn:
            # What is made up for on purpose doesn't expire.
            origin = {"schedule": origin_of(row, due, 0)["schedule"]}
            result = backend.enqueue_as(task, row.args, row.kwargs, origin)
            values |= {"status": RunStatus.FIRED, "task_id": result.id}
        runs.update_or_create(schedule=row, due_at=due, defaults=values)
    if found.due and found.in_turn:
        # The workers begin one after another.
        row.holds = True
        row.look_at = now
        row.save(using=alias, update_fields=["holds", "look_at"])


def set_enabled(row: Schedule, enabled: bool, *, alias: str) -> bool:
    """Enable or disable a schedule; say whether that changed it. Nothing is made up for."""
    with operations_for(alias).step():
        locked = Schedule.objects.using(alias).select_for_update().get(pk=row.pk)
        if locked.enabled == enabled:
            return False
        locked.enabled = enabled
        locked.save(using=alias, update_fields=["enabled"])
    row.enabled = enabled
    return True


def still_running(row: Schedule, *, alias: str) -> list[str]:
    """Return the ids of the latest tasks of a schedule that have not ended."""
    runs = ScheduleRun.objects.using(alias).filter(schedule=row, task_id__isnull=False)
    return live_among(alias, list(runs.order_by("-due_at").values_list("task_id", flat=True)[:20]))


def _shown(moment: datetime) -> str:
    return moment.isoformat(" ", "minutes")
