"""
From due times to tasks: each due time once, however many workers look.

Each schedule that is due is locked, and its run, its task and its next due
time are written in one transaction: a crash in between undoes all three, and
the unique key of the runs would refuse a second one. There is no leader; rows
that another worker has locked are left to it. (Solid Queue and Procrastinate
have the same key.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import Q

from ..db import FailureKind, classify, operations_for
from ..exceptions import UnknownTask
from ..models.schedule import RunKind, Schedule, ScheduleRun
from ..timetables import TimetableError
from .turn import Turn

logger = logging.getLogger("django_bgtasks.worker")

#: Schedules of one transaction.
BATCH = 25
#: A schedule that can't be fired is disabled after so many tries.
TRIES = 10
#: Seconds for which a process leaves a schedule alone whose task it doesn't know: another
#: one may, during a deploy.
UNKNOWN_PAUSE = 60.0

#: Seconds between two looks at the clock of a database where nothing is planned.
IDLE_PAUSE = 60.0
#: A clock that is further back than this was set.
CLOCK_STEP = timedelta(seconds=2)


@dataclass(slots=True)
class Fired:
    """Ids of the tasks that were enqueued, their queues, and seconds until the next look."""

    ids: list[str] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)
    next_in: float | None = None


class Scheduler:
    """Fires what is due, for one process and the backends of one database."""

    def __init__(
        self, alias: str, backends: Iterable[str], *, names: Iterable[str] | None = None
    ) -> None:
        """names are those of the schedules to fire, None for all."""
        self._alias = alias
        self._backends = list(backends)
        self._names = None if names is None else list(names)
        # Schedules whose tasks this process doesn't know, and until when it leaves them.
        self._unknown: dict[int, float] = {}
        # The latest time of the database that was seen.
        self._seen: datetime | None = None
        # While nothing is planned: until when the clock isn't asked, either.
        self._idle_until = 0.0

    def fire_due(self, *, now: datetime | None = None) -> Fired:
        """Fire what is due, BATCH schedules at most. Runs no code of the project."""
        first, looked_at = self._look(now)
        if first is None and time.monotonic() < self._idle_until:
            return Fired()
        self._idle_until = time.monotonic() + IDLE_PAUSE
        moment = looked_at or operations_for(self._alias).now()
        if self._is_behind(moment):
            self._clock_went_back(moment)
            first, _ = self._look(now)
        self._seen = moment
        if first is None or first > moment:
            return Fired(next_in=None if first is None else (first - moment).total_seconds())

        def unit() -> Fired:
            done = Fired()
            with operations_for(self._alias).write():
                for row in self._locked(moment):
                    self._fire(row, moment, done)
            return done

        fired = operations_for(self._alias).retrying(unit)
        first, looked_at = self._look(now)
        if first is not None and looked_at is not None:
            fired.next_in = max(0.0, (first - looked_at).total_seconds())
        return fired

    def next_look(self) -> datetime | None:
        """Return when the first schedule is to be looked at, None if there is none."""
        return self._rows().order_by("look_at").values_list("look_at", flat=True).first()

    def _look(self, now: datetime | None) -> tuple[datetime | None, datetime | None]:
        """
        Return when the first schedule is to be looked at, and the database's time.

        Neither is known where nothing is planned and now isn't given.
        """
        if now is not None:
            return self.next_look(), now
        rows = self._rows().order_by("look_at")
        clock = operations_for(self._alias).now_expression(None)
        found = rows.annotate(now=clock).values_list("look_at", "now").first()
        return found or (None, None)

    def _is_behind(self, now: datetime) -> bool:
        """Say whether the clock was further on: seen by this process, or written by another."""
        if self._seen is not None:
            return now < self._seen - CLOCK_STEP
        ahead = now + CLOCK_STEP
        written = Q(last_due_at__gt=ahead) | Q(planned_from__gt=ahead)
        return self._schedules().filter(written, enabled=True).exists()

    def _clock_went_back(self, now: datetime) -> None:
        """
        Plan anew from a clock that was set back.

        What has been fired isn't fired again, for its runs are there; what was
        left out when the clock went forward, by mistake, is still to come.
        """
        logger.warning("The clock went back to %s; schedules are planned anew.", now)

        def unit() -> None:
            with operations_for(self._alias).write():
                ahead = Q(next_due_at__gt=now) | Q(look_at__gt=now)
                ahead |= Q(last_due_at__gt=now) | Q(planned_from__gt=now)
                rows = self._schedules().select_for_update().filter(ahead, enabled=True)
                for row in rows:
                    self._plan_back(row, now)

        operations_for(self._alias).retrying(unit)

    def _plan_back(self, row: Schedule, now: datetime) -> None:
        """Plan a row as if the clock had never been further on."""
        try:
            row.next_due_at = None if row.is_exhausted else row.next_after(now)
        except TimetableError:
            return  # When it is due, that is written down.
        row.look_at = now if row.holds else row.next_due_at
        if row.last_due_at is not None and row.last_due_at > now:
            runs = ScheduleRun.objects.using(self._alias).filter(schedule=row, kind=RunKind.PLAN)
            before = runs.filter(due_at__lte=now).order_by("-due_at")
            row.last_due_at = before.values_list("due_at", flat=True).first()
        if row.planned_from is not None:
            row.planned_from = min(row.planned_from, now)
        names = ("next_due_at", "look_at", "last_due_at", "planned_from")
        changes = {name: getattr(row, name) for name in names}
        Schedule.objects.using(self._alias).filter(pk=row.pk).update(**changes)

    def _schedules(self) -> Any:
        rows = Schedule.objects.using(self._alias).filter(backend__in=self._backends)
        return rows if self._names is None else rows.filter(name__in=self._names)

    def _rows(self) -> Any:
        now = time.monotonic()
        self._unknown = {pk: until for pk, until in self._unknown.items() if until > now}
        rows = self._schedules().filter(look_at__isnull=False)
        return rows.exclude(pk__in=self._unknown) if self._unknown else rows

    def _locked(self, now: datetime) -> list[Schedule]:
        features = operations_for(self._alias).connection.features
        rows = self._rows().filter(look_at__lte=now).order_by("look_at")
        return list(
            rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)[:BATCH]
        )

    def _fire(self, row: Schedule, now: datetime, done: Fired) -> None:
        turn = Turn(row, now, self._alias)
        try:
            with transaction.atomic(using=self._alias):
                turn.take()
        except UnknownTask as error:
            self._unknown[row.pk] = time.monotonic() + UNKNOWN_PAUSE
            # Ten workers of the old version may look within a second of its first due time.
            due = row.next_due_at
            is_late = due is None or (now - due).total_seconds() > TRIES * UNKNOWN_PAUSE
            note_error(self._alias, row, error, now, again=row.look_at, may_disable=is_late)
        except Exception as error:
            if isinstance(error, DatabaseError) and classify(error) is FailureKind.TRANSIENT:
                raise  # Not the schedule's fault; the others of this batch are tried again, too.
            pause = timedelta(seconds=min(60.0, 2.0 ** (row.errors + 1)))
            note_error(self._alias, row, error, now, again=now + pause)
        else:
            done.ids += turn.ids
            done.queues |= turn.queues


def note_error(
    alias: str,
    row: Schedule,
    error: Exception,
    now: datetime,
    *,
    again: datetime | None,
    may_disable: bool = True,
) -> None:
    """Keep why a schedule could not be fired; disable it after TRIES of that."""
    tries = row.errors + 1
    disabled = tries >= TRIES and may_disable
    text = f"{error}" or repr(error)
    logger.error("Schedule %r could not be fired (%d of %d): %s", row.name, tries, TRIES, text)
    changes: dict[str, Any] = {"errors": tries, "error": text[:2000], "look_at": again}
    if disabled:
        logger.error("Schedule %r is disabled: it could not be fired %d times.", row.name, tries)
        row.drop_held(alias, "The schedule was disabled by its errors.")
        changes |= {"enabled": False, "look_at": None, "next_due_at": None, "holds": row.holds}
    Schedule.objects.using(alias).filter(pk=row.pk).update(**changes)
