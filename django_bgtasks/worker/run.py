"""What a task asks of its run by its context, answered by a worker."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from ..context import Firing, Place, Run
from ..db import ClaimedTask
from ..exceptions import CancelRequested, NotInWorkflow
from ..policies import BadOption, checked_labels
from ..steps import Steps
from ..workflows.growth import Growth
from .capture import LogBuffer
from .tracebacks import storable

logger = logging.getLogger("django_bgtasks.worker")

_made = threading.Lock()


class State:
    """What only some runs have: a limit, a request to end, progress, labels, steps, a log."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: What was raised in it, or shall be.
        self.interrupt: BaseException | None = None
        #: The reason for which it shall be cancelled.
        self.cancelled: str | None = None
        self.progress: dict[str, Any] | None = None
        self.progress_is_new = False
        self.labels: dict[str, Any] | None = None
        self.steps: Steps | None = None
        self.log: LogBuffer | None = None
        self.growth: Growth | None = None

    @property
    def grow(self) -> Callable[[], None] | None:
        """What writes down what the run has added to its workflow, None for nothing."""
        return None if self.growth is None or not self.growth.plans else self.growth.write


class WorkersRun(Run):
    """The part of an Execution that its task talks to."""

    __slots__ = (
        "_state",
        "backend",
        "began",
        "coroutine",
        "interruptible",
        "options",
        "row",
        "task",
    )

    row: ClaimedTask
    backend: Any
    task: Any
    options: Mapping[str, Any] | None
    began: datetime | None
    coroutine: tuple[Any, Any] | None
    interruptible: bool
    _state: State | None

    @property
    def limits(self) -> tuple[float, float] | None:
        """Seconds until TaskTimeout, and from then on until its process is killed."""
        timeout = getattr(self.task, "timeout", None)
        if timeout is None:
            return None
        grace = self.task.grace
        return timeout, self.backend.conf.grace if grace is None else grace

    def state(self) -> State:
        """Return what only some runs have, made when it is first asked for."""
        if self._state is None:
            with _made:
                if self._state is None:
                    self._state = State()
        return self._state

    @property
    def deadline(self) -> datetime | None:
        limits = self.limits
        if limits is None or self.began is None:
            return None
        return self.began.astimezone(UTC) + timedelta(seconds=limits[0])

    @property
    def cancelled(self) -> bool:
        return self._state is not None and self._state.cancelled is not None

    @property
    def _shall_end(self) -> BaseException | None:
        state = self._state
        if state is None:
            return None
        if state.interrupt is not None:
            return state.interrupt
        return None if state.cancelled is None else CancelRequested(state.cancelled)

    def check(self) -> None:
        if self._state is not None and (error := self._shall_end) is not None:
            raise error

    def report(self, current: float | None, total: float | None, message: str) -> None:
        state = self.state()
        state.progress = {
            "current": current,
            "total": total,
            "message": self.masked(storable(str(message)))[:200],
            "at": time.time(),
        }
        state.progress_is_new = True

    @property
    def retires_its_child(self) -> bool:
        """Whether the process is not to be used any more: the run was interrupted."""
        return self._state is not None and self._state.interrupt is not None

    @property
    def progress_is_new(self) -> bool:
        """Whether there is progress that isn't written yet."""
        return self._state is not None and self._state.progress_is_new

    @progress_is_new.setter
    def progress_is_new(self, value: bool) -> None:
        self.state().progress_is_new = value

    @property
    def labels(self) -> MutableMapping[str, Any]:
        state = self.state()
        if state.labels is None:
            notes = json.loads(self.row.notes) if self.row.notes else {}
            state.labels = {**getattr(self.task, "labels", {}), **notes.get("labels", {})}
        return state.labels

    @property
    def firing(self) -> Firing | None:
        given = (self.options or {}).get("schedule")
        if given is None:
            return None
        return Firing(given["name"], datetime.fromisoformat(given["due_at"]), given["missed"])

    @property
    def metadata(self) -> Mapping[str, Any]:
        return (self.options or {}).get("metadata") or {}

    def _steps(self) -> Steps:
        state = self.state()
        if state.steps is None:
            row = self.row
            state.steps = Steps(
                self.backend.database, row.id, row.claim_id, row.attempt, self.backend.conf
            )
        return state.steps

    def step(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self.check()
        return self._steps().step(name, partial(function, *args, **kwargs))

    async def astep(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        from asgiref.sync import sync_to_async

        if not is_coroutine_function(function):
            return await sync_to_async(self.step, thread_sensitive=True)(
                name, function, args, kwargs
            )
        self.check()
        steps = self._steps()
        found, value = await sync_to_async(steps.kept, thread_sensitive=True)(name)
        if found:
            return value
        value = await function(*args, **kwargs)
        return await sync_to_async(steps.keep, thread_sensitive=True)(name, value)

    @property
    def workflow(self) -> Place:
        given = (self.options or {}).get("workflow")
        if given is None:
            raise NotInWorkflow(NotInWorkflow.ADVICE)
        state = self.state()
        if state.growth is None:
            state.growth = Growth(self.backend, self.row.id, given["id"])
        return state.growth

    def log(self, line: str) -> None:
        """Keep a line that the task has logged."""
        state = self.state()
        if state.log is None:
            state.log = LogBuffer(self.backend.conf.capture_log)
        state.log.add(self.masked(storable(line)))

    def request_cancel(self, reason: str) -> None:
        """Note that the task shall be cancelled: check() raises from now on."""
        self.state().cancelled = reason
        self.cancel_coroutine()

    def cancel_coroutine(self) -> None:
        """Cancel the coroutine, if it is one and runs."""
        if self.coroutine is not None:
            loop, running = self.coroutine

            def cancel() -> None:  # In the loop's thread, where nothing changes in between.
                if self.interruptible:
                    running.cancel()

            loop.call_soon_threadsafe(cancel)

    def notes(self, *, final: bool = False) -> str | None:
        """Return what the run leaves behind beside its outcome as JSON, None for nothing."""
        state = self._state
        if state is None:
            return None
        notes = json.loads(self.row.notes) if self.row.notes else {}
        if state.progress is not None:
            notes["progress"] = state.progress
        if state.labels is not None:
            notes["labels"] = self._storable_labels(state.labels)
        notes.pop("log", None)
        if final and state.log is not None:
            notes["log"] = state.log.text()
        return json.dumps(notes) if notes else None

    def _storable_labels(self, labels: Mapping[Any, Any]) -> dict[str, Any]:
        """Return labels without those that can't be kept, which are logged."""
        kept = {}
        for name, value in labels.items():
            try:
                kept.update(checked_labels({name: value}))
            except BadOption as error:
                logger.warning("A label of task %s is dropped: %s", self.row.id, error)
        return kept

    def masked(self, text: str) -> str:
        """Return text without the values of hide_args."""
        raise NotImplementedError


def is_coroutine_function(func: Callable[..., Any]) -> bool:
    """Say whether a function is an async def."""
    return bool(func.__code__.co_flags & 0x80) if hasattr(func, "__code__") else False
