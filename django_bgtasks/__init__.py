"""
Background tasks in the database that a Django project already has.

The names below are loaded when they are first used: models can't be imported
before the apps are ready, and settings name DatabaseBackend before that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .backend import DatabaseBackend
    from .compat import task_enqueued, task_finished, task_started
    from .context import DatabaseTaskContext, carry, current
    from .definition import DatabaseTask, task
    from .results import DatabaseTaskResult
    from .schedules.declarations import every, schedule
    from .signals import enqueue_on, task_committed
    from .standins import DummyBackend, ImmediateBackend
    from .workflows.elements import chain, graph, group, map_chunks, previous
    from .workflows.handle import WorkflowResult, get_workflow

_HOMES = {
    "DatabaseBackend": "backend",
    "DatabaseTask": "definition",
    "DatabaseTaskContext": "context",
    "DatabaseTaskResult": "results",
    "DummyBackend": "standins",
    "ImmediateBackend": "standins",
    "WorkflowResult": "workflows.handle",
    "carry": "context",
    "chain": "workflows.elements",
    "current": "context",
    "enqueue_on": "signals",
    "every": "schedules.declarations",
    "get_workflow": "workflows.handle",
    "graph": "workflows.elements",
    "group": "workflows.elements",
    "map_chunks": "workflows.elements",
    "previous": "workflows.elements",
    "schedule": "schedules.declarations",
    "task": "definition",
    "task_committed": "signals",
    "task_enqueued": "compat",
    "task_finished": "compat",
    "task_started": "compat",
}

__all__ = [
    "DatabaseBackend",
    "DatabaseTask",
    "DatabaseTaskContext",
    "DatabaseTaskResult",
    "DummyBackend",
    "ImmediateBackend",
    "WorkflowResult",
    "__version__",
    "carry",
    "chain",
    "current",
    "enqueue_on",
    "every",
    "get_workflow",
    "graph",
    "group",
    "map_chunks",
    "previous",
    "schedule",
    "task",
    "task_committed",
    "task_enqueued",
    "task_finished",
    "task_started",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
