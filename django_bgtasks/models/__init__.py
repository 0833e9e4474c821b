from .cancellation import Cancellation
from .finished import FinishedTask
from .indexes import PartialIndex
from .limit import LimitHold, LimitKey, LimitWait
from .queue import Queue
from .queued import QueuedTask
from .record import TaskRecord
from .schedule import Schedule, ScheduleRun
from .step import Step
from .unique import UniqueKey
from .worker import Duty, Worker, WorkerState
from .workflow import Barrier, Edge, Node, Workflow, WorkflowStatus

__all__ = [
    "Barrier",
    "Cancellation",
    "Duty",
    "Edge",
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
    "WorkerState",
    "Workflow",
    "WorkflowStatus",
]
