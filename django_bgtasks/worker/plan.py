"""What one runworker was asked to do, as plain data that reaches its children."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """
    The settings of a worker. Durations are in seconds, memory in bytes.

    queues are in order of preference; empty with any_queue: whatever there is.
    With by_priority the queues are equal, and the priorities of the tasks decide.
    """

    backend: str
    database: str
    name: str
    queues: tuple[str, ...]
    by_priority: bool
    any_queue: bool
    excluded: tuple[str, ...]
    processes: int
    threads: int
    async_concurrency: int
    lease: float
    poll_interval: float
    shutdown_timeout: float
    burst: bool = False
    maintenance: bool = True
    scheduler: bool = True
    max_tasks: int | None = None
    max_runtime: float | None = None
    max_memory: int | None = None
    recycle_tasks: int | None = None
    recycle_after: float | None = None
    recycle_memory: int | None = None
    reload: bool = False
    health_file: str | None = None
    health_port: int | None = None
    log_format: str = "text"
    verbosity: int = 1
    color: bool = False
    ascii: bool = False
