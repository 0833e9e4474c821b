"""What was enqueued in a block: by signal, so that it is seen with each backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..arguments import MASK, Signature
from ..compat import task_enqueued
from ..models import FinishedTask, QueuedTask

#: The longest line that lists what was enqueued; else each task has a line of its own.
WIDTH = 100

_unseen: ContextVar[bool] = ContextVar("bgtasks_unseen", default=False)


class Recorder:
    """Hears of each task that is enqueued between start() and stop()."""

    def __init__(self) -> None:
        self._heard: list[Any] = []

    def start(self) -> None:
        """Listen from now on."""
        task_enqueued.connect(self._hear, weak=False, dispatch_uid=id(self))

    def stop(self) -> None:
        """Listen no more."""
        task_enqueued.disconnect(dispatch_uid=id(self))

    def _hear(self, *, task_result: Any, **kwargs: Any) -> None:
        if not _unseen.get():
            self._heard.append(task_result)

    @property
    def enqueued(self) -> list[Any]:
        """The results of what was enqueued, without what a rollback has undone."""
        ids: dict[str, list[Any]] = {}
        for result in self._heard:
            if hasattr(result, "database"):
                ids.setdefault(result.database, []).append(result.id)
        there = {
            str(pk)
            for alias, some in ids.items()
            for model in (QueuedTask, FinishedTask)
            for pk in model._default_manager.using(alias)
            .filter(pk__in=some)
            .values_list("pk", flat=True)
        }
        return [r for r in self._heard if not hasattr(r, "database") or r.id in there]


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record what is enqueued in this block."""
    recorder = Recorder()
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()


@contextmanager
def unseen() -> Iterator[None]:
    """Keep what is enqueued in this block from all recorders."""
    token = _unseen.set(True)
    try:
        yield
    finally:
        _unseen.reset(token)


@contextmanager
def capture_tasks() -> Iterator[list[Any]]:
    """
    Yield a list that has, after the block, the results of what was enqueued in it.

    In their order; what was rolled back is not among them.
    """
    tasks: list[Any] = []
    with recording() as recorder:
        yield tasks
        tasks += recorder.enqueued


def signature_of(task: Any) -> Signature:
    """Return the parameters of a task of any backend, without the context."""
    found = getattr(task, "signature", None)
    return found or Signature(task.func, takes_context=task.takes_context)


def call_in_words(task: Any, arguments: Iterable[tuple[str, Any]]) -> str:
    """Return a call of a task; hide_args are masked."""
    hidden = getattr(task, "hide_args", ())
    shown = (f"{name}={MASK if name in hidden else repr(value)}" for name, value in arguments)
    return f"{task.func.__name__}({', '.join(shown)})"


def in_words(result: Any) -> str:
    """Return the call of an enqueued task, and its queue."""
    task = result.task
    named = signature_of(task).named(result.args, result.kwargs)
    return f"{call_in_words(task, named)} on {task.queue_name}"


def table(results: list[Any]) -> str:
    """Return what was enqueued, for the message of an assertion."""
    if not results:
        return "Nothing was enqueued."
    lines = [in_words(result) for result in results]
    line = f"Enqueued: {' · '.join(lines)}"
    return line if len(line) <= WIDTH else "\n  ".join(["Enqueued:", *lines])
