"""Workers, for people: no task's life depends on this table."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..untrusted import visible


class WorkerState(models.TextChoices):
    """What a worker says of itself."""

    RUNNING = "RUNNING", _("Running")
    QUIET = "QUIET", _("Quiet")
    STOPPING = "STOPPING", _("Stopping")
    STOPPED = "STOPPED", _("Stopped")


class WorkerRequest(models.TextChoices):
    """What a worker is asked to do; it obeys at its next beat."""

    QUIET = "QUIET", _("Quiet")
    STOP = "STOP", _("Stop")


class Worker(models.Model):
    """One runworker: written by itself at every beat."""

    id = models.UUIDField(primary_key=True, editable=False)
    name = models.CharField(_("name"), max_length=100)
    backend = models.CharField(_("backend"), max_length=64)
    hostname = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process"))
    version = models.CharField(_("version"), max_length=32)
    # The names served, in order; empty: whatever there is.
    queues = models.JSONField(_("queues"), default=list)
    processes = models.PositiveIntegerField(_("processes"))
    threads = models.PositiveIntegerField(_("threads"))
    state = models.CharField(_("state"), max_length=10, choices=WorkerState.choices)
    # When its first child came up; until then moved with every beat.
    started_at = models.DateTimeField(_("started at"))
    heartbeat_at = models.DateTimeField(_("last heard of"))
    # Seconds after heartbeat_at from which on it counts as lost.
    lease = models.FloatField(_("lease"))
    running = models.PositiveIntegerField(_("running tasks"), default=0)
    finished = models.PositiveBigIntegerField(_("finished tasks"), default=0)
    # Bytes of all its processes together; null where the system doesn't tell.
    memory = models.PositiveBigIntegerField(_("memory"), null=True)
    # Seconds by which its machine's clock was ahead of the database's at the last beat.
    clock_offset = models.FloatField(_("clock"), default=0.0)
    # Whether it fires schedules, and does what any worker does for all.
    scheduler = models.BooleanField(_("scheduler"), default=True)
    maintenance = models.BooleanField(_("maintenance"), default=True)
    # What somebody asks of it; written by others, read by it.
    request = models.CharField(
        _("asked to"), max_length=10, choices=WorkerRequest.choices, default="", blank=True
    )
    requested_at = models.DateTimeField(_("asked at"), null=True)
    requested_by = models.CharField(_("asked by"), max_length=150, default="", blank=True)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("-started_at",)
        default_permissions = ("view",)
        permissions = (("stop_worker", "Can ask workers to finish or to stop"),)

    def __str__(self) -> str:
        return visible(self.name)

    @property
    def slots(self) -> int:
        """Plain functions that it runs at once."""
        return self.processes * self.threads


class Duty(models.Model):
    """
    When a piece of maintenance was last done, by whichever worker came first.

    A guarded UPDATE of last_run_at elects who does it, so there is no leader
    (after pg-boss' maintain_on).
    """

    name = models.CharField(max_length=50, primary_key=True)
    last_run_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
