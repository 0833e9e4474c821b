"""What a running task knows of its own run."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .compat import TaskContext

_current: ContextVar[Any] = ContextVar("django_bgtasks_current", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseTaskContext(TaskContext):  # type: ignore[misc]
    """
    Django's context, and how many attempts there are.

    failures counts the attempts before this one that raised.
    """

    failures: int = 0

    @property
    def max_attempts(self) -> int:
        """How many attempts may raise before the task has failed."""
        return getattr(self.task_result.task, "max_attempts", 1)

    @property
    def is_last_attempt(self) -> bool:
        """Whether no other attempt follows if this one raises."""
        return self.failures + 1 >= self.max_attempts


def current() -> DatabaseTaskContext | None:
    """Return the context of the task that runs here, None outside of a task."""
    execution = _current.get()
    return None if execution is None else execution.context()


def enter(execution: Any) -> Any:
    """
    Make the run whose context() is asked for the current one; return a token for leave().

    A run and not its context, which is made only if somebody asks.
    """
    return _current.set(execution)


def leave(token: Any) -> None:
    """Undo enter()."""
    _current.reset(token)
