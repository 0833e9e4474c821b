"""Live tasks."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..states import LiveStatus
from .indexes import PartialIndex
from .record import TaskRecord


class QueuedTask(TaskRecord):
    """
    One task that is not final. The table is small and hot: each index is paid
    for by every enqueue and every claim.

    Rows are written by django_bgtasks.transitions alone.
    """

    status = models.CharField(_("status"), max_length=10, choices=LiveStatus.choices)
    # The negative of priority. InnoDB locks every row that it sorts, and MariaDB
    # 10.6 ignores DESC in an index: all columns of the claim's index ascend.
    rank = models.SmallIntegerField(editable=False)
    # Digest of the key whose values take turns; empty without fair=.
    fair_key = models.CharField(max_length=16, db_default="", default="", editable=False)
    # Digest of the key at which it may have to wait: finds what waits there anyway.
    limit_key = models.CharField(max_length=32, db_default="", default="", editable=False)
    # When a SCHEDULED task becomes READY; null for all others.
    due_at = models.DateTimeField(_("due at"), null=True, blank=True, editable=False)
    # The fence: new with every claim, asked for by every later write.
    claim_id = models.UUIDField(null=True, blank=True, editable=False)
    # Not indexed, so that renewing a lease is cheap.
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        ordering = ("-id",)
        default_permissions = ("view",)
        permissions = (
            ("cancel_queuedtask", "Can cancel tasks"),
            ("run_queuedtask", "Can have scheduled tasks run now"),
            ("copy_queuedtask", "Can run copies of tasks, with other arguments"),
            ("view_payload", "Can see the arguments, results and tracebacks of tasks"),
        )
        indexes = (
            models.Index(
                fields=("status", "queue_name", "rank", "fair_key", "id"), name="bgtasks_claim"
            ),
            PartialIndex(
                fields=("due_at", "id"),
                where=models.Q(due_at__isnull=False),
                name="bgtasks_due",
            ),
        )
        constraints = (
            models.CheckConstraint(
                condition=models.Q(status=LiveStatus.RUNNING, claim_id__isnull=False)
                | ~models.Q(status=LiveStatus.RUNNING) & models.Q(claim_id__isnull=True),
                name="bgtasks_running_has_claim",
            ),
        )
