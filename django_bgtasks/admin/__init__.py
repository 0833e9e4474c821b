"""
The pages of tasks, results, failures, queues, workers, schedules, workflows, bulk operations.

Lists and pages are Django's own; each class may be subclassed and registered
anew on a site of the project.
"""

from .bulk import BulkOperationAdmin
from .dashboard import DashboardAdmin
from .failures import FailureGroupAdmin
from .queues import QueueAdmin
from .results import FinishedTaskAdmin
from .schedules import ScheduleAdmin
from .tasks import QueuedTaskAdmin
from .workers import WorkerAdmin
from .workflows import WorkflowAdmin

__all__ = [
    "BulkOperationAdmin",
    "DashboardAdmin",
    "FailureGroupAdmin",
    "FinishedTaskAdmin",
    "QueueAdmin",
    "QueuedTaskAdmin",
    "ScheduleAdmin",
    "WorkerAdmin",
    "WorkflowAdmin",
]
