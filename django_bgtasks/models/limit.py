"""Limits: what is held, what waits. Rows exist only for tasks with concurrency= or rate=."""

from __future__ import annotations

from django.db import models


class LimitKey(models.Model):
    """
    One key of a concurrency or rate limit. Locked by whoever admits tasks of it.

    next_at is the time from which on, burst aside, the next start of a rate is
    free: the theoretical arrival time of the generic cell rate algorithm
    (ITU-T I.371).
    """

    digest = models.CharField(max_length=32, primary_key=True)
    text = models.CharField(max_length=200)
    next_at = models.DateTimeField(null=True)
    used_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.text


class LimitHold(models.Model):
    """
    A place at a concurrency key, and the last of the tasks that run in it one by one.

    It counts only while that task is RUNNING under claim_id: whatever happens
    to the worker, nothing is left held.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    digest = models.CharField(max_length=32)
    task_id = models.UUIDField()
    claim_id = models.UUIDField()

    class Meta:
        default_permissions = ()
        indexes = (models.Index(fields=("digest",), name="bgtasks_limit_hold"),)

    def __str__(self) -> str:
        return f"{self.task_id} holds {self.digest}"


class LimitWait(models.Model):
    """A WAITING task that its key had no room for, in the order of the claim."""

    task_id = models.UUIDField(primary_key=True)
    digest = models.CharField(max_length=32)
    queue_name = models.CharField(max_length=100)
    rank = models.SmallIntegerField()

    class Meta:
        default_permissions = ()
        indexes = (models.Index(fields=("digest", "rank", "task_id"), name="bgtasks_limit_wait"),)

    def __str__(self) -> str:
        return f"{self.task_id} waits at {self.digest}"
