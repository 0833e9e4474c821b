"""Requests to end running tasks."""

from __future__ import annotations

from django.db import models


class Cancellation(models.Model):
    """
    A request to cancel a task that was RUNNING when it was made.

    The worker that holds the task reads it within a second. force: raise in the
    task, and kill its process after the grace time.
    """

    task_id = models.UUIDField(primary_key=True)
    reason = models.CharField(max_length=255)
    force = models.BooleanField(default=False)
    asked_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.task_id}: {self.reason}"
