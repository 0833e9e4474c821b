"""Finished tasks: the result store."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..states import FinalStatus
from .record import TaskRecord


class FinishedTask(TaskRecord):
    """One outcome. Rows are added, pruned by age, and taken back by a retry by hand."""

    status = models.CharField(_("status"), max_length=10, choices=FinalStatus.choices)
    finished_at = models.DateTimeField(_("finished at"))
    return_value = models.JSONField(_("return value"), null=True, blank=True)
    # The claim that ended it: tells a worker whether a commit that was not
    # acknowledged arrived.
    claim_id = models.UUIDField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("result")
        verbose_name_plural = _("results")
        ordering = ("-id",)
        default_permissions = ("view", "delete")
        permissions = (("retry_finishedtask", "Can retry tasks"),)
        indexes = (models.Index(fields=("status", "finished_at"), name="bgtasks_outcome"),)
