"""
The states of a task, who enters and who leaves them. docs/lifecycle.md draws
them; django_bgtasks.transitions is the only code that writes them.
"""

from django.db.models import TextChoices
from django.utils.translation import pgettext_lazy

from .compat import TaskResultStatus


class LiveStatus(TextChoices):
    """Statuses of QueuedTask: everything that is not final."""

    # Not due yet: enqueue with run_after, a retry with a pause, an unknown task.
    SCHEDULED = "SCHEDULED", pgettext_lazy("Task", "Scheduled")
    # Held back until something else ends.
    WAITING = "WAITING", pgettext_lazy("Task", "Waiting")
    # A worker may claim it now.
    READY = "READY", pgettext_lazy("Task", "Ready")
    # Claimed: claim_id and lease_until are set.
    RUNNING = "RUNNING", pgettext_lazy("Task", "Running")


class FinalStatus(TextChoices):
    """Statuses of FinishedTask."""

    SUCCESSFUL = "SUCCESSFUL", pgettext_lazy("Task", "Successful")
    FAILED = "FAILED", pgettext_lazy("Task", "Failed")
    CANCELLED = "CANCELLED", pgettext_lazy("Task", "Cancelled")


#: What Django's API, which knows four statuses, is told.
DJANGO_STATUS: dict[str, TaskResultStatus] = {
    LiveStatus.SCHEDULED: TaskResultStatus.READY,
    LiveStatus.WAITING: TaskResultStatus.READY,
    LiveStatus.READY: TaskResultStatus.READY,
    LiveStatus.RUNNING: TaskResultStatus.RUNNING,
    FinalStatus.SUCCESSFUL: TaskResultStatus.SUCCESSFUL,
    FinalStatus.FAILED: TaskResultStatus.FAILED,
    FinalStatus.CANCELLED: TaskResultStatus.FAILED,
}
