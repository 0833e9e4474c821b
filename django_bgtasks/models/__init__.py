from .finished import FinishedTask
from .indexes import PartialIndex
from .queue import Queue
from .queued import QueuedTask
from .record import TaskRecord
from .worker import Duty, Worker, WorkerState

__all__ = [
    "Duty",
    "FinishedTask",
    "PartialIndex",
    "Queue",
    "QueuedTask",
    "TaskRecord",
    "Worker",
    "WorkerState",
]
