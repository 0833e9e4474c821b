"""Workers, for people: no task's life depends on this table."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class WorkerState(models.TextChoices):
    """What a worker says of itself."""

    RUNNING = "RUNNING", _("Running")
    QUIET = "QUIET", _("Quiet")
    STOPPING = "STOPPING", _("Stopping")
    STOPPED = "STOPPED", _("Stopped")


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
    started_at = models.DateTimeField(_("started at"))
    heartbeat_at = models.DateTimeField(_("last heard of"))
    # Seconds after heartbeat_at from which on it counts as lost.
    lease = models.FloatField(_("lease"))
    running = models.PositiveIntegerField(_("running tasks"), default=0)
    finished = models.PositiveBigIntegerField(_("finished tasks"), default=0)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("-started_at",)
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.name


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
