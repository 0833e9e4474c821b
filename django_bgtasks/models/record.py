"""The columns that live and finished tasks share."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..untrusted import visible


class TaskRecord(models.Model):
    """
    One call of a task. A row moves from QueuedTask to FinishedTask when it
    ends, under the same id, and is never in both.

    Times are UTC. started_at is the first attempt's, last_attempted_at the
    latest's.
    """

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    task_path = models.CharField(_("task"), max_length=255)
    queue_name = models.CharField(_("queue"), max_length=100)
    priority = models.SmallIntegerField(_("priority"), help_text=_("Larger is sooner."))
    backend = models.CharField(_("backend"), max_length=64)
    args = models.JSONField(_("arguments"), default=list)
    kwargs = models.JSONField(_("keyword arguments"), default=dict)
    # What enqueue wrote down beside the arguments; None where there is nothing:
    # the policy options that .using() changed by their names; "marks", the keys of
    # its policies (policies.Marks.of); "expires_at" as ISO text; "metadata"; and who
    # enqueued it: "schedule", or "origin" (origins.py, and {"copy_of", "user"}).
    options = models.JSONField(_("options"), null=True, blank=True)
    enqueued_at = models.DateTimeField(_("enqueued at"))
    run_after = models.DateTimeField(_("run after"), null=True, blank=True)
    started_at = models.DateTimeField(_("first started at"), null=True, blank=True)
    last_attempted_at = models.DateTimeField(_("last started at"), null=True, blank=True)
    # Claims that were not given back unharmed; each but the current and the
    # successful one has an entry in errors.
    attempt = models.PositiveIntegerField(_("attempts"), db_default=0, default=0)
    # Attempts that raised, counted against max_attempts.
    failures = models.PositiveIntegerField(_("failures"), db_default=0, default=0)
    # Attempts whose process died, counted against max_lost.
    lost_count = models.PositiveIntegerField(_("workers lost"), db_default=0, default=0)
    worker_id = models.CharField(_("worker"), max_length=100, db_default="", default="", blank=True)
    # [{"attempt", "worker_id", "started_at", "ended_at", "exception_class_path",
    #   "traceback"}, ...], oldest first.
    errors = models.JSONField(_("errors"), null=True, blank=True)
    # What a run left behind beside its outcome; None where that is nothing:
    # {"progress": {"current", "total", "message", "at"}, "labels": {...},
    #  "log": "..."}; at is time.time(), the log that of the attempt that ended it.
    notes = models.JSONField(_("notes"), null=True, blank=True)
    # The state in words, where the status alone doesn't say: by whom cancelled, why put off.
    reason = models.CharField(_("reason"), max_length=255, db_default="", default="", blank=True)

    #: Columns that a row keeps when it moves, in the order of every statement that moves it.
    MOVING = (
        "id",
        "task_path",
        "queue_name",
        "priority",
        "backend",
        "args",
        "kwargs",
        "options",
        "enqueued_at",
        "run_after",
        "started_at",
        "last_attempted_at",
        "attempt",
        "failures",
        "lost_count",
        "worker_id",
        "errors",
        "notes",
        "reason",
    )

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return visible(f"{self.task_name} {self.short_id}")

    @property
    def task_name(self) -> str:
        """The last part of the path."""
        return self.task_path.rpartition(".")[2]

    @property
    def short_id(self) -> str:
        """The last 8 digits; the first ones are the clock, alike for all tasks of a minute."""
        return str(self.id)[-8:]

    @property
    def worker_ids(self) -> list[str]:
        """The worker of each attempt, oldest first."""
        ids = [error.get("worker_id", "") for error in self.errors or ()]
        if len(ids) < self.attempt:
            ids.append(self.worker_id)
        return ids

    def get_result(self) -> Any:
        """Return the DatabaseTaskResult of this row."""
        from ..results import result_of

        return result_of(self)
