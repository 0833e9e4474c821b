"""Finished tasks: the result store."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..states import FinalStatus
from .indexes import PartialIndex
from .record import TaskRecord


class FinishedTask(TaskRecord):
    """One outcome. Rows are added, pruned by age, and taken back by a retry by hand."""

    status = models.CharField(_("status"), max_length=10, choices=FinalStatus.choices)
    finished_at = models.DateTimeField(_("finished at"))
    return_value = models.JSONField(_("return value"), null=True, blank=True)
    # The claim that ended it: tells a worker whether a commit that was not
    # acknowledged arrived.
    claim_id = models.UUIDField(null=True, blank=True, editable=False)
    # The cause of a failure (fingerprints.py): that of its FailureGroup. Empty for all others.
    fingerprint = models.CharField(max_length=32, db_default="", default="", editable=False)

    class Meta:
        verbose_name = _("result")
        verbose_name_plural = _("results")
        ordering = ("-id",)
        default_permissions = ("view", "delete")
        permissions = (("retry_finishedtask", "Can retry tasks"),)
        indexes = (
            models.Index(fields=("status", "finished_at"), name="bgtasks_outcome"),
            PartialIndex(
                fields=("fingerprint", "id"),
                where=models.Q(fingerprint__gt=""),
                name="bgtasks_cause",
            ),
        )
