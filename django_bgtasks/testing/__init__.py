"""
For the tests of projects: what was enqueued, tasks run in the test's own thread
and transaction, time travel, and whether a task may run twice.

The names below are loaded when they are first used: pytest loads the plugin
before there are settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assertions import TaskTestMixin
    from .idempotence import assert_idempotent
    from .performing import Outcome, perform
    from .recording import capture_tasks
    from .running import TasksRun, run_tasks

_HOMES = {
    "Outcome": "performing",
    "TaskTestMixin": "assertions",
    "TasksRun": "running",
    "assert_idempotent": "idempotence",
    "capture_tasks": "recording",
    "perform": "performing",
    "run_tasks": "running",
}

__all__ = [
    "Outcome",
    "TaskTestMixin",
    "TasksRun",
    "assert_idempotent",
    "capture_tasks",
    "perform",
    "run_tasks",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
