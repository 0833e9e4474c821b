"""
What is done about one schedule whose turn it is: what overlap and missed ask for.

Runs in the transaction that has locked the schedule's row.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import transaction

from .. import transitions
from ..batch import Batch
from ..compat import InvalidTaskBackend, task_backends
from ..exceptions import DuplicateTask
from ..models.queued import QueuedTask
from ..models.schedule import Missed, Overlap, RunKind, RunStatus, Schedule, ScheduleRun
from ..states import LiveStatus
from ..timetables import zone_of
from .sync import specification_of

logger = logging.getLogger("django_bgtasks.worker")

#: A due time that nobody has dealt with for so long in seconds was missed.
MISFIRE_GRACE = 60.0
#: Missed due times that missed="all" makes up for, the last ones.
MOST_MADE_UP = 100
#: Missed due times are counted up to here.
MOST_COUNTED = 1000
#: Runs that are asked at a time whether their tasks have ended.
LOOK_BACK = 100
#: Seconds between two looks at whether a held run may begin.
HOLD_POLL = 1.0

_TICK = timedelta(microseconds=1)


class LiveTask(NamedTuple):
    """Why there is a task that has not ended, and whether its due time was missed."""

    kind: str
    late: bool


@dataclass(slots=True)
class _Dues:
    """Due times up to now: those in time, and the last and number of those missed."""

    fresh: list[datetime]
    missed: int = 0
    last_missed: datetime | None = None


class Turn:
    """What is done about one locked schedule, in the caller's transaction."""

    def __init__(self, row: Schedule, now: datetime, alias: str) -> None:
        self.row = row
        self.now = now
        self.alias = alias
        self.ids: list[str] = []
        self.queues: set[str] = set()
        self._live: dict[str, LiveTask] | None = None

    def take(self) -> None:
        """Begin a held run if its time has come; fire what is due; plan the next due time."""
        row = self.row
        if row.holds:
            self._begin_held()
        if row.enabled and row.next_due_at is not None and row.next_due_at <= self.now:
            self._fire_due()
        if row.is_exhausted:
            row.next_due_at = None
        row.look_at = row.next_due_at
        if row.holds:
            soon = self.now + timedelta(seconds=HOLD_POLL)
            row.look_at = soon if row.look_at is None else min(soon, row.look_at)
        self._save("next_due_at", "look_at", "last_due_at", "holds", "runs", "errors", "error")

    def _save(self, *names: str) -> None:
        changes = {name: getattr(self.row, name) for name in names}
        Schedule.objects.using(self.alias).filter(pk=self.row.pk).update(**changes)

    # Due times

    def _fire_due(self) -> None:
        row = self.row
        dues = self._dues()
        self._deal_with_missed(dues)
        last = dues.last_missed
        for due in dues.fresh:
            if row.is_exhausted:
                break
            stands_for = dues.missed if row.missed == Missed.ONCE else 0
            self._deal_with(due, missed=stands_for)
            dues.missed = 0
            last = due
        if last is not None:
            row.last_due_at = last if row.last_due_at is None else max(last, row.last_due_at)
        row.next_due_at = (
            None if row.is_exhausted else row.next_after(max(last or self.now, self.now))
        )
        row.errors, row.error = 0, ""

    def _dues(self) -> _Dues:
        row, zone = self.row, zone_of(self.row.time_zone)
        first = row.next_due_at
        assert first is not None
        end = self.now if row.end_at is None else min(self.now, row.end_at)
        since = self.now - timedelta(seconds=MISFIRE_GRACE)
        fresh = list(row.timetable.between(max(first, since), end, zone))
        if first >= since:
            return _Dues(fresh)
        until = min(since - _TICK, end)
        last = row.timetable.before(until, zone)
        if last is None or last < first:
            return _Dues(fresh)
        count = 0
        for _ in row.timetable.between(first, until, zone):
            count += 1
            if count == MOST_COUNTED:
                break
        return _Dues(fresh, count, last)

    def _deal_with_missed(self, dues: _Dues) -> None:
        row, last = self.row, dues.last_missed
        if last is None:
            return
        if row.missed == Missed.SKIP:
            reason = f"{_times(dues.missed)} missed: no worker was there."
            self._record(last, RunStatus.MISSED, missed=dues.missed - 1, reason=reason)
        elif row.missed == Missed.ONCE:
            if not dues.fresh:
                self._deal_with(last, missed=dues.missed - 1)
        else:
            self._make_up(dues)
        logger.warning(
            "Schedule %r: %s missed until %s; missed=%r.",
            row.name,
            _times(dues.missed),
            f"{last:%Y-%m-%d %H:%M:%S} UTC",
            row.missed,
        )

    def _make_up(self, dues: _Dues) -> None:
        """Run each of the last missed due times, the oldest first."""
        row, zone = self.row, zone_of(self.row.time_zone)
        times: list[datetime] = []
        due = dues.last_missed
        while due is not None and len(times) < MOST_MADE_UP and due >= (row.next_due_at or due):
            times.append(due)
            due = row.timetable.before(due - _TICK, zone)
        if (rest := dues.missed - len(times)) > 0 and due is not None:
            counted = MOST_COUNTED if dues.missed >= MOST_COUNTED else rest
            reason = f"{_times(counted)} missed beyond the {MOST_MADE_UP} that are made up for."
            self._record(due, RunStatus.MISSED, missed=rest - 1, reason=reason)
        for due in reversed(times):
            if row.is_exhausted:
                break
            self._deal_with(due, late=True)

    def _deal_with(self, due: datetime, *, missed: int = 0, late: bool = False) -> None:
        """
        Fire a due time, or do what overlap says if an earlier task has not ended.

        late ones are those that are made up for, each in its turn.
        """
        row = self.row
        dealt_with = ScheduleRun.objects.using(self.alias).filter(schedule_id=row.pk, due_at=due)
        if dealt_with.exclude(status=RunStatus.MISSED).exists():
            return  # The clock was set back: nothing is fired, or cancelled, once more.
        if row.expires is not None and due + timedelta(seconds=row.expires) <= self.now:
            reason = f"It expired: nobody fired it within {row.expires:g} s."
            self._record(due, RunStatus.MISSED, missed=missed, reason=reason)
            return
        if row.overlap != Overlap.ALLOW and (row.holds or self._still_running()):
            if row.overlap == Overlap.CANCEL:
                self._cancel_earlier()
            elif late or not (why := self._why_not_held()):
                self._record(due, RunStatus.HELD, missed=missed, late=late)
                row.holds = True
                return
            else:
                self._record(due, RunStatus.SKIPPED, missed=missed, reason=why)
                return
        self._enqueue(due, missed=missed, late=late)

    def _why_not_held(self) -> str:
        """Return why a due time, while an earlier task goes on, comes to nothing; "": it waits."""
        row = self.row
        held = self._held().filter(kind=RunKind.PLAN)
        if self._is_catching_up(held):
            # The times meanwhile were no less promised than those before.
            if held[MOST_MADE_UP - 1 : MOST_MADE_UP].exists():
                return f"{MOST_MADE_UP} runs wait already."
            return ""
        if row.overlap == Overlap.QUEUE:
            return "Another run waits already." if row.holds and held.exists() else ""
        return "The task of an earlier run had not ended."

    def _is_catching_up(self, held: Any) -> bool:
        """Say whether missed runs are still made up for, one after another."""
        if self.row.missed != Missed.ALL:
            return False
        return any(task.late for task in self._still_running().values()) or (
            self.row.holds and held.filter(late=True).exists()
        )

    def _record(self, due: datetime, status: RunStatus, **more: Any) -> bool:
        """Write down what became of a due time; say whether that had not been done."""
        values = {"status": status, "fired_at": self.now, **more}
        runs = ScheduleRun.objects.using(self.alias)
        run, made = runs.get_or_create(schedule_id=self.row.pk, due_at=due, defaults=values)
        if made or run.status != RunStatus.MISSED or status == RunStatus.MISSED:
            return made
        # A clock that was set back brings it again.
        return bool(runs.filter(pk=run.pk, status=RunStatus.MISSED).update(**values))

    # Tasks

    def _enqueue(self, due: datetime, *, missed: int, late: bool) -> None:
        task = specification_of(self.row).task_object()
        batch = self._batch(task, due, missed)
        result = batch.results[0]
        if not self._record(due, RunStatus.FIRED, missed=missed, late=late, task_id=result.id):
            return
        self._write(batch, due, LiveTask(RunKind.PLAN, late))

    def _batch(self, task: Any, due: datetime, missed: int, *, expires: bool = True) -> Batch:
        row = self.row
        origin = origin_of(row, due, missed)
        if not expires:
            origin.pop("expires_at", None)
        starts = start_of(row, due)
        if starts > self.now:
            task = task.using(run_after=starts)
        return Batch(
            task,
            [(row.args, row.kwargs)],
            alias=row.backend,
            database=self.alias,
            conf=backend_of(row).conf,
            origin=origin,
        )

    def _write(self, batch: Batch, due: datetime, task: LiveTask) -> None:
        """Insert the task of a run; a unique key may give it away, and it doesn't count then."""
        runs = ScheduleRun.objects.using(self.alias).filter(schedule_id=self.row.pk, due_at=due)
        try:
            with transaction.atomic(using=self.alias):
                batch.write()
        except DuplicateTask as error:
            runs.update(status=RunStatus.SKIPPED, task_id=None, reason=str(error)[:255])
            return
        result = batch.results[0]
        if not batch.created:
            reason = has_the_key(result.id)
            runs.update(status=RunStatus.SKIPPED, task_id=result.id, reason=reason)
            return
        if task.kind == RunKind.PLAN:
            self.row.runs += 1
        self.ids.append(result.id)
        if not batch.later:
            self.queues.add(batch.task.queue_name)
        if self._live is not None:
            self._live[result.id] = task

    # Overlap

    def _still_running(self) -> dict[str, LiveTask]:
        """Return this schedule's tasks that have not ended, by their ids."""
        if self._live is None:
            self._live = live_tasks(self.alias, self.row)
        return self._live

    def _held(self) -> Any:
        return ScheduleRun.objects.using(self.alias).filter(
            schedule_id=self.row.pk, status=RunStatus.HELD
        )

    def _cancel_earlier(self) -> None:
        """
        Cancel what waits at once, and end what runs, by force if it must be.

        But for what people asked for: a run by hand, a backfill.
        """
        running = self._still_running()
        ids = [pk for pk, task in running.items() if task.kind == RunKind.PLAN]
        by, why = f"schedule {self.row.name}", "its next run is due"
        cancelled = set(transitions.cancel(self.alias, ids, by=by, why=why))
        rest = [pk for pk in ids if pk not in cancelled]
        if rest:
            transitions.ask_to_end(self.alias, rest, by=by, why=why, force=True)
        self._live = {pk: task for pk, task in running.items() if pk not in ids}

    def _begin_held(self) -> None:
        """Fire the oldest held run, if nothing runs any more."""
        row = self.row
        if self._still_running():
            return
        runs = self._held()
        held = list(runs.order_by("due_at")[:2])
        row.holds = len(held) > 1
        if not held:
            return
        run = held[0]
        mine = runs.filter(pk=run.pk)
        # What is made up for on purpose doesn't expire, nor count.
        is_plan = run.kind == RunKind.PLAN
        if is_plan and row.is_exhausted:
            mine.update(status=RunStatus.SKIPPED, reason="It has run as often as it may.")
            return
        if (
            is_plan
            and row.expires is not None
            and run.due_at + timedelta(seconds=row.expires) <= self.now
        ):
            mine.update(status=RunStatus.SKIPPED, reason="It expired while it waited.")
            return
        batch = self._batch(
            specification_of(row).task_object(), run.due_at, run.missed, expires=is_plan
        )
        task_id = batch.results[0].id
        mine.update(status=RunStatus.FIRED, fired_at=self.now, task_id=task_id)
        self._write(batch, run.due_at, LiveTask(run.kind, run.late))
        if row.errors:
            row.errors, row.error = 0, ""


def backend_of(row: Schedule) -> Any:
    """Return the backend of a schedule. Raise InvalidTaskBackend if it is none of ours."""
    backend: Any = task_backends[row.backend]
    if not hasattr(backend, "conf"):
        raise InvalidTaskBackend(f"TASKS[{row.backend!r}] is no backend of django_bgtasks.")
    return backend


def origin_of(row: Schedule, due: datetime, missed: int) -> dict[str, Any]:
    """Return what the options of a task say of the schedule that enqueued it."""
    origin: dict[str, Any] = {
        "schedule": {"name": row.name, "due_at": due.isoformat(), "missed": missed}
    }
    if row.expires is not None:
        origin["expires_at"] = (due + timedelta(seconds=row.expires)).isoformat()
    return origin


def start_of(row: Schedule, due: datetime) -> datetime:
    """
    Return when the task of a due time may start: then, or within jitter after it.

    By a hash of both, so that no two workers disagree.
    """
    if not row.jitter:
        return due
    digest = hashlib.sha256(f"{row.name} {due.isoformat()}".encode()).digest()
    return due + timedelta(seconds=row.jitter * int.from_bytes(digest[:6]) / 2**48)


def live_tasks(alias: str, row: Schedule, *, most_runs: int | None = None) -> dict[str, LiveTask]:
    """
    Return the tasks of a schedule that have not ended, by their ids.

    The runs are looked through as they were fired, the last first, until none
    of LOOK_BACK has such a task, or most_runs were seen.
    """
    runs = ScheduleRun.objects.using(alias).filter(schedule=row, status=RunStatus.FIRED)
    runs = runs.order_by("-fired_at", "-pk")
    found: dict[str, LiveTask] = {}
    start = 0
    while most_runs is None or start < most_runs:
        listed = runs.values_list("task_id", "kind", "late")[start : start + LOOK_BACK]
        tasks = {str(pk): LiveTask(kind, late) for pk, kind, late in listed}
        live = QueuedTask.objects.using(alias).filter(
            pk__in=list(tasks), status__in=LiveStatus.values
        )
        ids = [str(pk) for pk in live.values_list("pk", flat=True)] if tasks else []
        if not ids:
            return found
        found |= {pk: tasks[pk] for pk in ids}
        start += LOOK_BACK
    return found


def has_the_key(task_id: str) -> str:
    """Return why a run of a schedule enqueued nothing."""
    return f"Task {task_id} has its unique key."


def _times(count: int) -> str:
    if count >= MOST_COUNTED:
        return f"{MOST_COUNTED:,} runs or more were"
    return f"{count:,} runs were" if count != 1 else "1 run was"
