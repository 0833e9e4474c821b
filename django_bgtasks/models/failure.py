"""Failures by cause: a small table, so that nobody groups tasks."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..untrusted import visible


class FailureState(models.TextChoices):
    """What people have said of a cause."""

    OPEN = "open", _("Open")
    ACKNOWLEDGED = "acknowledged", _("Acknowledged")
    MUTED = "muted", _("Muted")


class FailureGroup(models.Model):
    """
    All final failures of one cause, by its fingerprint (fingerprints.py).

    Workers add to it; message and traceback are the latest ones. Rows of
    FinishedTask carry the fingerprint.
    """

    fingerprint = models.CharField(max_length=32, primary_key=True, editable=False)
    task_path = models.CharField(_("task"), max_length=255)
    exception_class = models.CharField(_("exception"), max_length=255)
    # Numbers, ids and quoted text replaced: what its failures have in common.
    message = models.CharField(_("message"), max_length=255, default="", blank=True)
    traceback = models.TextField(_("traceback"), default="", blank=True)
    latest_task = models.UUIDField(_("latest task"))
    first_seen = models.DateTimeField(_("first seen"))
    last_seen = models.DateTimeField(_("last seen"))
    total = models.PositiveBigIntegerField(_("total"), default=0)
    acknowledged_at = models.DateTimeField(_("acknowledged at"), null=True, blank=True)
    acknowledged_by = models.CharField(_("acknowledged by"), max_length=150, default="", blank=True)
    note = models.CharField(_("note"), max_length=255, default="", blank=True)
    muted_until = models.DateTimeField(_("muted until"), null=True, blank=True)

    class Meta:
        verbose_name = _("failure")
        verbose_name_plural = _("failures")
        ordering = ("-last_seen",)
        default_permissions = ("view", "change")
        indexes = (models.Index(fields=("last_seen",), name="bgtasks_failure_seen"),)

    def __str__(self) -> str:
        return visible(f"{self.exception_name} in {self.task_path.rpartition('.')[2]}")

    @property
    def exception_name(self) -> str:
        """The last part of the exception's path."""
        return self.exception_class.rpartition(".")[2]

    def state(self, now: datetime) -> FailureState:
        """Return what holds at an aware moment: a mute comes before an acknowledgement."""
        if self.muted_until is not None and self.muted_until > now:
            return FailureState.MUTED
        if self.acknowledged_at is not None:
            return FailureState.ACKNOWLEDGED
        return FailureState.OPEN


class FailureCount(models.Model):
    """How many tasks failed for one cause within one hour."""

    fingerprint = models.CharField(max_length=32)
    hour = models.DateTimeField()
    count = models.PositiveIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(fields=("fingerprint", "hour"), name="bgtasks_failure_hour"),
        )
        indexes = (models.Index(fields=("hour",), name="bgtasks_failure_count"),)

    def __str__(self) -> str:
        return f"{self.count} at {self.hour}"
