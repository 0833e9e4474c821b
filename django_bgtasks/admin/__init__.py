"""
The pages of the tasks, results, queues, workers, schedules and workflows.

Lists and pages are Django's own; each class may be subclassed and registered
anew on a site of the project.
"""

from .dashboard import DashboardAdmin
from .queues import QueueAdmin
from .results import FinishedTaskAdmin
from .schedules import ScheduleAdmin
from .tasks import QueuedTaskAdmin
from .workers import WorkerAdmin
from .workflows import WorkflowAdmin

__all__ = [
    "DashboardAdmin",
    "FinishedTaskAdmin",
    "QueueAdmin",
    "QueuedTaskAdmin",
    "ScheduleAdmin",
    "WorkerAdmin",
    "WorkflowAdmin",
]
