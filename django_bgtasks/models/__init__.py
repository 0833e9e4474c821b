from .bucket import Bucket
from .bulk import BulkOperation, BulkState, BulkVerb
from .cancellation import Cancellation
from .dashboard import Dashboard
from .failure import FailureCount, FailureGroup, FailureState
from .finished import FinishedTask
from .indexes import PartialIndex
from .limit import LimitHold, LimitKey, LimitWait
from .queue import Queue
from .queued import QueuedTask
from .record import TaskRecord
from .schedule import Schedule, ScheduleRun
from .step import Step
from .unique import UniqueKey
from .worker import Duty, Worker, WorkerRequest, WorkerState
from .workflow import Barrier, Edge, Node, Workflow, WorkflowStatus

__all__ = [
    "Barrier",
    "Bucket",
    "BulkOperation",
    "BulkState",
    "BulkVerb",
    "Cancellation",
    "Dashboard",
    "Duty",
    "Edge",
    "FailureCount",
    "FailureGroup",
    "FailureState",
    "FinishedTask",
    "LimitHold",
    "LimitKey",
    "LimitWait",
    "Node",
    "PartialIndex",
    "Queue",
    "QueuedTask",
    "Schedule",
    "ScheduleRun",
    "Step",
    "TaskRecord",
    "UniqueKey",
    "Worker",
    "WorkerRequest",
    "WorkerState",
    "Workflow",
    "WorkflowStatus",
]
