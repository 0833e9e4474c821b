"""Schedules, and what became of their due times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import models, router, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..compat import DEFAULT_TASK_BACKEND_ALIAS
from ..timetables import Timetable, TimetableError, read, zone_of
from ..untrusted import visible
from .text import ExactCharField


class Source(models.TextChoices):
    """Where a schedule is defined."""

    CODE = "code", _("code")
    SETTINGS = "settings", _("settings")
    ADMIN = "admin", _("admin")


class Missed(models.TextChoices):
    """What is done about due times at which no worker was there."""

    SKIP = "skip", _("skip them")
    ONCE = "once", _("run once for all of them")
    ALL = "all", _("run each of them, at most 100")


class Overlap(models.TextChoices):
    """What is done when the task of an earlier due time has not ended."""

    ALLOW = "allow", _("run beside it")
    SKIP = "skip", _("skip this time")
    QUEUE = "queue", _("run after it")
    CANCEL = "cancel", _("cancel it")


class RunStatus(models.TextChoices):
    """What became of a due time."""

    FIRED = "FIRED", _("fired")
    HELD = "HELD", _("waits for the one before")
    SKIPPED = "SKIPPED", _("skipped")
    MISSED = "MISSED", _("missed")


class RunKind(models.TextChoices):
    """Why there is a run."""

    PLAN = "plan", _("plan")
    MANUAL = "manual", _("by hand")
    BACKFILL = "backfill", _("backfill")


class Schedule(models.Model):
    """
    When a task is enqueued again and again.

    save() plans the next due time anew if when, time zone, start, end, the most
    runs or enabled have changed: from now on by the database's clock, never back.
    When it is disabled, what waits of its plan is left out.
    """

    name = ExactCharField(_("name"), max_length=150, unique=True)
    task_path = models.CharField(_("task"), max_length=255)
    backend = models.CharField(
        _("backend"), max_length=64, default=DEFAULT_TASK_BACKEND_ALIAS, editable=False
    )
    args = models.JSONField(_("arguments"), default=list, blank=True)
    kwargs = models.JSONField(_("keyword arguments"), default=dict, blank=True)
    queue_name = models.CharField(_("queue"), max_length=100, default="", blank=True)
    priority = models.SmallIntegerField(_("priority"), null=True, blank=True)
    # "0 2 * * 1-5", "@daily", "every 15 minutes" or "at 2027-01-01 08:00".
    expression = models.CharField(_("when"), max_length=255)
    time_zone = models.CharField(_("time zone"), max_length=64)
    missed = models.CharField(
        _("if a run is missed"), max_length=10, choices=Missed.choices, default=Missed.ONCE
    )
    overlap = models.CharField(
        _("if the last run is still going"),
        max_length=10,
        choices=Overlap.choices,
        default=Overlap.SKIP,
    )
    start_at = models.DateTimeField(_("start"), null=True, blank=True)
    end_at = models.DateTimeField(_("end"), null=True, blank=True)
    max_runs = models.PositiveIntegerField(_("most runs"), null=True, blank=True)
    # Durations in seconds.
    jitter = models.FloatField(_("jitter"), default=0.0, blank=True)
    expires = models.FloatField(_("expires"), null=True, blank=True)
    success_within = models.FloatField(_("must succeed within"), null=True, blank=True)

    enabled = models.BooleanField(_("enabled"), default=True)
    source = models.CharField(
        _("source"),
        max_length=10,
        choices=Source.choices,
        default=Source.ADMIN,
        editable=False,
    )
    # The module of the code, or the alias in TASKS.
    source_detail = models.CharField(max_length=255, default="", editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    # The plan, written by the workers.
    next_due_at = models.DateTimeField(_("next run"), null=True, editable=False)
    # When a worker looks at it: next_due_at, or sooner while a run is held or was in error.
    look_at = models.DateTimeField(null=True, editable=False)
    last_due_at = models.DateTimeField(_("last due"), null=True, editable=False)
    # Since when the plan holds: what was due before says nothing about it.
    planned_from = models.DateTimeField(null=True, editable=False)
    holds = models.BooleanField(default=False, editable=False)
    runs = models.PositiveBigIntegerField(_("runs"), default=0, editable=False)
    errors = models.PositiveIntegerField(default=0, editable=False)
    error = models.TextField(_("error"), default="", editable=False)

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        ordering = ("name",)
        permissions = (("run_schedule", "Can run schedules now"),)
        indexes = (models.Index(fields=("look_at",), name="bgtasks_schedule_look"),)

    #: What a change of which makes the plan anew.
    PLANNED_BY = ("expression", "time_zone", "start_at", "end_at", "max_runs", "enabled")
    WRITTEN_BY_WORKERS = (
        "next_due_at",
        "look_at",
        "last_due_at",
        "planned_from",
        "holds",
        "runs",
        "errors",
        "error",
    )

    WRITTEN_WITH_THE_PLAN = (
        "next_due_at",
        "look_at",
        "planned_from",
        "holds",
        "errors",
        "error",
    )

    def __str__(self) -> str:
        return visible(self.name)

    def save(self, **kwargs: Any) -> None:
        from ..db import operations_for

        using = kwargs.get("using") or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            only = kwargs.get("update_fields")
            if self._keep_what_others_wrote(using, only):
                if not self.enabled and self.holds:
                    self.drop_held(using, "The schedule was disabled.")
                self.plan(operations_for(using).now())
                if only is not None:
                    kwargs["update_fields"] = {*only, *self.WRITTEN_WITH_THE_PLAN}
            super().save(**kwargs)

    def drop_held(self, using: str, why: str) -> None:
        """Leave out what waits of the plan; holds is not saved. What people asked for goes on."""
        held = ScheduleRun.objects.using(using).filter(schedule=self, status=RunStatus.HELD)
        held.filter(kind=RunKind.PLAN).update(status=RunStatus.SKIPPED, reason=why)
        self.holds = held.exists()

    def _keep_what_others_wrote(self, using: str, only: Iterable[str] | None) -> bool:
        """
        Take over what was written since this was read, and keep workers from writing more.

        Say whether what is about to be saved needs a new plan: compared with the
        row as it is now, and not as it was read.
        """
        if self.pk is None:
            return True
        rows = type(self)._default_manager.using(using).select_for_update()
        fresh = rows.filter(pk=self.pk).values(*self.WRITTEN_BY_WORKERS, *self.PLANNED_BY).first()
        if fresh is None:
            return True
        unread = self.get_deferred_fields()
        changed = False
        for name, value in fresh.items():
            is_saved = name not in unread and (only is None or name in only)
            if name in self.PLANNED_BY and is_saved:
                changed = changed or getattr(self, name) != value
            elif not is_saved or only is None:
                setattr(self, name, value)
        return changed

    # Time

    @property
    def timetable(self) -> Timetable:
        """When it is due, without regard to start and end. Raise TimetableError."""
        return read(self.expression, anchor=self.start_at)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first due time after an aware moment, in UTC, between start and end."""
        if self.start_at is not None and moment < self.start_at:
            moment = self.start_at - timedelta(microseconds=1)
        due = self.timetable.after(moment, zone_of(self.time_zone))
        return None if due is None or (self.end_at is not None and due > self.end_at) else due

    def plan(self, now: datetime) -> None:
        """
        Set the next due time to the first after now, or none; not saved.

        Not before a time that has been dealt with, should the clock have gone back.
        """
        self.errors, self.error = 0, ""
        self.planned_from = now
        after = now if self.last_due_at is None else max(now, self.last_due_at)
        self.next_due_at = None
        if self.enabled and not self.is_exhausted:
            try:
                self.next_due_at = self.next_after(after)
            except TimetableError as error:
                self.error = str(error)
        self.look_at = now if self.holds else self.next_due_at

    @property
    def gave_up(self) -> bool:
        """Whether it was disabled by its errors, and not by a person."""
        return not self.enabled and bool(self.error)

    @property
    def is_exhausted(self) -> bool:
        """Whether it has run as often as it may."""
        return self.max_runs is not None and self.runs >= self.max_runs

    def upcoming(self, count: int = 5, *, after: datetime | None = None) -> list[datetime]:
        """Return the next due times in UTC, as far as there are any."""
        found: list[datetime] = []
        left = count if self.max_runs is None else min(count, self.max_runs - self.runs)
        due = self.next_due_at if after is None else self.next_after(after)
        while due is not None and len(found) < left:
            found.append(due)
            due = self.next_after(due)
        return found


class ScheduleRun(models.Model):
    """
    What became of one due time of a schedule: that there is one row is what
    makes it fire once.
    """

    schedule = models.ForeignKey(
        Schedule, on_delete=models.CASCADE, related_name="firings", verbose_name=_("schedule")
    )
    due_at = models.DateTimeField(_("due"))
    status = models.CharField(_("status"), max_length=10, choices=RunStatus.choices)
    kind = models.CharField(_("kind"), max_length=10, choices=RunKind.choices, default=RunKind.PLAN)
    # When it was dealt with; the difference to due_at is the drift.
    fired_at = models.DateTimeField(_("fired"))
    task_id = models.UUIDField(_("task"), null=True)
    # Due times before this one for which this run stands, or that came to nothing.
    missed = models.PositiveIntegerField(_("missed before"), default=0)
    # Whether it was missed, and is made up for.
    late = models.BooleanField(default=False, db_default=False)
    reason = models.CharField(_("reason"), max_length=255, default="")

    class Meta:
        verbose_name = _("run of a schedule")
        verbose_name_plural = _("runs of schedules")
        default_permissions = ("view",)
        constraints = (
            models.UniqueConstraint(
                fields=("schedule", "due_at"), name="bgtasks_one_firing_per_due_time"
            ),
        )
        indexes = (
            models.Index(fields=("due_at",), name="bgtasks_schedulerun_due"),
            # What waits, and what was fired last, however much was skipped.
            models.Index(
                fields=("schedule", "status", "fired_at"), name="bgtasks_schedulerun_fired"
            ),
        )

    def __str__(self) -> str:
        return f"{self.schedule_id} at {self.due_at:%Y-%m-%d %H:%M:%S}"
