"""Keys of unique tasks."""

from __future__ import annotations

from django.db import models


class UniqueKey(models.Model):
    """
    The latest task of a unique key: the primary key is what makes it one.

    A row says who has the key if that task is still waiting, running, or until
    has not passed; else the next enqueue takes it over. So no run pays for it,
    and a worker that dies leaves nothing locked.
    """

    digest = models.CharField(max_length=32, primary_key=True)
    task_id = models.UUIDField()
    # The end of unique_for; null: as long as the task lives.
    until = models.DateTimeField(null=True)
    made_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        indexes = (models.Index(fields=("made_at",), name="bgtasks_unique_age"),)

    def __str__(self) -> str:
        return f"{self.digest} of {self.task_id}"
