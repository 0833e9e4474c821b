"""What a running task knows of its own run, and can ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

from .compat import TaskContext
from .exceptions import RetryRequested
from .policies import in_seconds

T = TypeVar("T")

_current: ContextVar[Any] = ContextVar("django_bgtasks_current", default=None)
_carried: ContextVar[Mapping[str, Any] | None] = ContextVar("django_bgtasks_carried", default=None)


@dataclass(frozen=True, slots=True)
class Firing:
    """
    The schedule that enqueued a task, and for which due time, in UTC.

    missed counts the due times before it for which this run stands.
    """

    schedule: str
    due_at: datetime
    missed: int = 0


class Place:
    """
    The place of a running task in its workflow.

    This is what a task is given that no worker runs: nothing is added.
    """

    @property
    def id(self) -> str | None:
        """The workflow's id."""
        return None

    def add(self, element: Any) -> None:
        """
        Add a task, a chain, a group or a graph, to run when this task has succeeded.

        What waits for this task waits for it, too. Written with this attempt's
        success, and not at all if it fails.
        """

    def continue_with(self, element: Any) -> None:
        """As add(); its result takes the place of this task's for those that wait."""


class Run:
    """
    What a context asks of its run.

    This is what a task is given that no worker runs, as in a test: nothing is
    kept, and it is a plain function. The worker's own is worker.execution.Execution.
    """

    __slots__ = ()

    @property
    def deadline(self) -> datetime | None:
        """Until when the attempt may take, None without a timeout. UTC."""
        return None

    @property
    def cancelled(self) -> bool:
        """Whether the task shall end."""
        return False

    @property
    def labels(self) -> MutableMapping[str, Any]:
        """What to find the task by."""
        return {}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the enqueuer gave along."""
        return _carried.get() or {}

    @property
    def firing(self) -> Firing | None:
        """Which due time of a schedule this is, None if no schedule enqueued it."""
        return None

    @property
    def workflow(self) -> Place:
        """The task's place in its workflow."""
        return Place()

    def check(self) -> None:
        """Raise what shall end the task, if anything shall."""

    def report(self, current: float | None, total: float | None, message: str) -> None:
        """Take note of the progress."""

    def step(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call function once for all attempts; return its value."""
        return function(*args, **kwargs)

    async def astep(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See step()."""
        from inspect import isawaitable

        value = function(*args, **kwargs)
        return await value if isawaitable(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseTaskContext(TaskContext):  # type: ignore[misc]
    """
    Django's context, and what a task can ask of its run.

    failures counts the attempts before this one that raised.
    """

    failures: int = 0
    run: Run = field(default_factory=Run, repr=False, compare=False)

    @property
    def max_attempts(self) -> int:
        """How many attempts may raise before the task has failed."""
        return getattr(self.task_result.task, "max_attempts", 1)

    @property
    def is_last_attempt(self) -> bool:
        """Whether no other attempt follows if this one raises."""
        return self.failures + 1 >= self.max_attempts

    @property
    def idempotency_key(self) -> str:
        """
        A text that is the same in all attempts of this task, and no other task's.

        For payment providers and whoever else takes such a key.
        """
        return str(self.task_result.id)

    @property
    def deadline(self) -> datetime | None:
        """When this attempt's timeout ends, in UTC; None without one."""
        return self.run.deadline

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked for the end of this task. Costs nothing."""
        return self.run.cancelled

    def check(self) -> None:
        """
        Raise CancelRequested if the task is to be cancelled, TaskTimeout if its time is over.

        Costs nothing to speak of: call it in each round of a loop.
        """
        self.run.check()

    def progress(
        self, current: float | None = None, total: float | None = None, message: str = ""
    ) -> None:
        """Say how far the task is; written at most twice a second."""
        self.run.report(current, total, message)

    def track(
        self, items: Iterable[T], message: str = "", *, total: int | None = None
    ) -> Iterator[T]:
        """Yield items: progress() and check() for each. total is len(items) if it has one."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        run = self.run
        run.report(0, total, message)
        for done, item in enumerate(items, 1):
            run.check()
            yield item
            run.report(done, total, message)

    @property
    def labels(self) -> MutableMapping[str, Any]:
        """Texts to find the task by; what is put in here is kept when the attempt ends."""
        return self.run.labels

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the enqueuer gave along: see carry() and .using(metadata=...)."""
        return self.run.metadata

    @property
    def firing(self) -> Firing | None:
        """The schedule and its due time, None if no schedule enqueued the task."""
        return self.run.firing

    @property
    def workflow(self) -> Place:
        """
        The task's place in its workflow, to add tasks to it.

        Raise NotInWorkflow if a worker runs the task by itself.
        """
        return self.run.workflow

    def step(self, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """
        Return function(*args, **kwargs), called once for all attempts of this task.

        Its work on the database of the tasks commits with the note that it is
        done: after that no attempt calls it again, each is given the value, as
        JSON keeps it. Raise StepFailed for a name that was used before in this
        attempt, or a value that JSON can't hold.
        """
        return self.run.step(name, function, args, kwargs)

    async def astep(
        self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """
        As step(), awaited. function may be async; its work is then noted after it ended,
        so that it may run again if its process dies in between.
        """
        return await self.run.astep(name, function, args, kwargs)

    def retry(self, *, in_: float | timedelta | None = None, reason: str = "") -> NoReturn:
        """
        End this attempt and ask for another one; it counts against max_attempts.

        in_ is the pause in seconds; None: as the task's backoff says.
        """
        delay = None if in_ is None else in_seconds("in_", in_, zero=True)
        raise RetryRequested(delay, reason or "The task asked for a retry.", spends_attempt=True)

    def snooze(self, in_: float | timedelta, *, reason: str = "") -> NoReturn:
        """End this attempt and run again in in_ seconds. No attempt is spent."""
        delay = in_seconds("in_", in_, zero=True)
        raise RetryRequested(delay, reason or "The task snoozes.", spends_attempt=False)


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


def running() -> Any:
    """Return the run that enter() made the current one, None outside of a task."""
    return _current.get()


@contextmanager
def carry(**metadata: Any) -> Iterator[None]:
    """
    Give each task that is enqueued in this block metadata: a request's id, a user's.

    A task finds it as context.metadata, and what it enqueues carries it on.
    """
    token = _carried.set({**(_carried.get() or {}), **metadata})
    try:
        yield
    finally:
        _carried.reset(token)


def carried_metadata(own: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the metadata of an enqueue: the running task's, carry()'s, its own."""
    execution, block = _current.get(), _carried.get()
    if execution is None and block is None and own is None:
        return None
    inherited = getattr(execution, "metadata", None) or {}
    return {**inherited, **(block or {}), **(own or {})} or None
