"""Many rows at once: what bulk operations are for."""

from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from django_bgtasks.bulk.selection import Selection
from django_bgtasks.filtering import TaskFilter
from django_bgtasks.ids import new_id
from django_bgtasks.models import FailureCount, FailureGroup, FinishedTask, QueuedTask

FINGERPRINT = "f" * 32


def _common(number, given):
    now = timezone.now()
    return {
        "id": UUID(new_id()),
        "task_path": "tests.tasks.add",
        "queue_name": "default",
        "priority": 0,
        "backend": "default",
        "args": [number, 1],
        "enqueued_at": now,
        **given,
    }


def finished(count=1, *, status="FAILED", **given):
    """Return so many results, oldest first."""
    rows = [
        FinishedTask(**{"status": status, "finished_at": timezone.now(), **_common(number, given)})
        for number in range(count)
    ]
    return FinishedTask.objects.bulk_create(rows, batch_size=500)


def queued(count=1, *, status="READY", **given):
    """Return so many live tasks, oldest first; none of them is RUNNING."""
    extra = {"due_at": timezone.now() + timedelta(days=1)} if status == "SCHEDULED" else {}
    rows = [
        QueuedTask(**{"status": status, "rank": 0, **extra, **_common(number, given)})
        for number in range(count)
    ]
    return QueuedTask.objects.bulk_create(rows, batch_size=500)


def group(fingerprint=FINGERPRINT, *, counts=None, **given):
    """Return a cause; counts has how many tasks failed for it by hours ago."""
    now = timezone.now()
    found = FailureGroup.objects.create(
        fingerprint=fingerprint,
        **{
            "task_path": "tests.tasks.add",
            "exception_class": "builtins.ValueError",
            "message": "order <n> not found",
            "traceback": "Traceback (most recent call last):\nValueError: order 9 not found\n",
            "latest_task": new_id(),
            "first_seen": now,
            "last_seen": now,
            "total": sum((counts or {0: 1}).values()),
            **given,
        },
    )
    this = now.replace(minute=0, second=0, microsecond=0)
    for ago, count in (counts or {0: 1}).items():
        FailureCount.objects.create(
            fingerprint=fingerprint, hour=this - timedelta(hours=ago), count=count
        )
    return found


def results(**given):
    """Return the selection of results that a TaskFilter with these values lets through."""
    return Selection.of(TaskFilter(**given), finished=True)


def tasks(**given):
    """The same of live tasks."""
    return Selection.of(TaskFilter(**given), finished=False)
