"""Acts on everything that matches a filter: what is done of them, and the record of them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..untrusted import visible


class BulkVerb(models.TextChoices):
    """What is done to each task."""

    RETRY = "retry", _("Retry")
    CANCEL = "cancel", _("Cancel")
    RUN_NOW = "run_now", _("Run now")
    DELETE = "delete", _("Delete")


class BulkState(models.TextChoices):
    """How far a bulk operation is."""

    WAITING = "WAITING", _("Waiting")
    RUNNING = "RUNNING", _("Running")
    DONE = "DONE", _("Done")
    ABORTED = "ABORTED", _("Aborted")
    FAILED = "FAILED", _("Failed")


class BulkOperation(models.Model):
    """
    One act on all tasks that match a filter and that there were when it was asked for.

    Workers do it in batches (bulk/running.py), newest task first: cursor is the
    last id that was looked at. Whoever locks the row does the next batch, not
    before locked_until; progress is written in the batch's own transaction.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    name = models.CharField(_("name"), max_length=100, default="", blank=True)
    verb = models.CharField(_("action"), max_length=10, choices=BulkVerb.choices)
    # Whether it is about finished tasks, or about live ones.
    finished = models.BooleanField(_("results"))
    # {"status": ..., "queue": ..., "task": ..., ...}: what filtering.py understands.
    filter = models.JSONField(_("filter"), default=dict)
    # The filter as it was shown to who asked.
    words = models.CharField(_("tasks"), max_length=500)
    # Tasks with a greater id came later and are left alone.
    up_to = models.UUIDField(editable=False)
    estimate = models.PositiveBigIntegerField(_("estimate"), null=True)
    # Tasks a second; null: as fast as it goes.
    rate = models.FloatField(_("rate"), null=True, blank=True)
    state = models.CharField(
        _("state"), max_length=10, choices=BulkState.choices, default=BulkState.WAITING
    )
    asked_by = models.CharField(_("asked by"), max_length=150)
    asked_at = models.DateTimeField(_("asked at"))
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    abort_by = models.CharField(_("aborted by"), max_length=150, default="", blank=True)
    cursor = models.UUIDField(null=True, editable=False)
    done = models.PositiveBigIntegerField(_("done"), default=0)
    # How many were left alone for which reason: {"RUNNING": 210}. Reasons: bulk/verbs.py.
    skipped = models.JSONField(_("skipped"), default=dict)
    error = models.TextField(_("error"), default="", blank=True)
    locked_until = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("bulk operation")
        verbose_name_plural = _("bulk operations")
        ordering = ("-id",)
        default_permissions = ("view", "change")
        permissions = (("bulk_task", "Can act on all tasks that match a filter"),)
        indexes = (models.Index(fields=("state", "locked_until"), name="bgtasks_bulk_state"),)

    def __str__(self) -> str:
        return visible(self.name or f"{self.get_verb_display()}: {self.words}")
