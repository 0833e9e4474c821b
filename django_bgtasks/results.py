"""From rows to TaskResult: the only translator."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from . import dependencies, registry
from .compat import (
    TASK_REFRESH_ATTRS,
    InvalidTaskBackend,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
)
from .encryption import UNREADABLE, opened, readable
from .exceptions import (
    TaskCancelled,
    TaskFailed,
    WaitInTransaction,
    WaitTimeout,
    WrongState,
)
from .models.finished import FinishedTask
from .models.queued import QueuedTask
from .models.record import TaskRecord
from .models.worker import Worker, WorkerState
from .states import DJANGO_STATUS, FinalStatus, LiveStatus

#: Seconds between two looks of get(): it begins quick and gets patient.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.004, 0.25


class Commitment:
    """Whether the transaction that enqueued a task has committed."""

    __slots__ = ("done",)

    def __init__(self, *, done: bool) -> None:
        self.done = done

    def __deepcopy__(self, memo: Any) -> Commitment:
        return self

    def __reduce__(self) -> Any:
        # Whoever unpickles a result has no part in the transaction: None.
        return type(None), ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DatabaseTaskResult(TaskResult):  # type: ignore[misc]
    """
    A TaskResult of DatabaseBackend.

    state is our finer status: SCHEDULED, WAITING, READY, RUNNING, SUCCESSFUL,
    FAILED or CANCELLED; reason says more where there is more to say.
    """

    state: str
    reason: str = ""
    database: str = "default"
    # Who asks and how is no part of what a result says.
    commitment: Any = field(default=None, compare=False, repr=False)
    #: False where an enqueue was given the result of the task that has its unique key.
    created: bool = field(default=True, compare=False, repr=False)
    # The column of this name: what progress and labels are read from.
    notes: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        # The arguments are normalised already: by enqueue, or by the database.
        pass

    def __repr__(self) -> str:
        # No arguments, values, reasons or errors: a repr ends up in logs.
        return f"<{type(self).__name__} {self.id} {self.task.module_path} {self.state}>"

    @property
    def progress(self) -> dict[str, Any] | None:
        """What the run said of its progress: {"current", "total", "message", "at"}, or None."""
        return self.notes.get("progress") if self.notes else None

    @property
    def labels(self) -> dict[str, Any]:
        """Labels of the task, and those that runs have added."""
        kept = self.notes.get("labels") if self.notes else None
        return dict(getattr(self.task, "labels", {})) if kept is None else kept

    @property
    def admin_url(self) -> str:
        """The address of the task in the admin."""
        from django.urls import reverse

        final = self.state in FinalStatus.values
        return reverse(
            f"admin:bgtasks_{'finished' if final else 'queued'}task_change", args=[self.id]
        )

    def refresh(self) -> None:
        """Read the row again. Raise TaskResultDoesNotExist if it was pruned."""
        fresh = fetch_result(self.id, self.database)
        for name in (*TASK_REFRESH_ATTRS, "state", "reason", "notes"):
            object.__setattr__(self, name, getattr(fresh, name))

    async def arefresh(self) -> None:
        """See refresh()."""
        await sync_to_async(self.refresh, thread_sensitive=True)()

    def get(self, timeout: float | None = None) -> Any:
        """
        Wait until the task has finished; return its value.

        timeout is in seconds, None waits for ever. Raise TaskFailed or
        TaskCancelled with the traceback as a note, WaitTimeout, or
        WaitInTransaction where waiting can't end.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while not self._has_finished():
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise WaitTimeout(self._why_not(timeout))
            time.sleep(pause if remaining is None else min(pause, remaining))
            pause = min(pause * 1.3 * random.uniform(0.9, 1.1), _LONGEST_PAUSE)
        return self._value()

    async def aget(self, timeout: float | None = None) -> Any:
        """See get()."""
        import asyncio

        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while not await sync_to_async(self._has_finished, thread_sensitive=True)():
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise WaitTimeout(
                    await sync_to_async(self._why_not, thread_sensitive=True)(timeout)
                )
            await asyncio.sleep(pause if remaining is None else min(pause, remaining))
            pause = min(pause * 1.3, _LONGEST_PAUSE)
        return self._value()

    def _has_finished(self) -> bool:
        if self.is_finished:
            return True
        waits_for_itself = (
            self.commitment is not None
            and not self.commitment.done
            and any(c.in_atomic_block for c in connections.all(initialized_only=True))
        )
        try:
            self.refresh()
        except TaskResultDoesNotExist:
            # A task of another database is written when the transaction has committed.
            if not waits_for_itself:
                raise
        # In a TestCase a task may have finished within the transaction.
        if waits_for_itself and not self.is_finished:
            raise WaitInTransaction(
                "This task was enqueued in the transaction that is still open, so no worker "
                "can see it. Wait after the block ends."
            )
        return self.is_finished

    def _value(self) -> Any:
        if self.status == TaskResultStatus.SUCCESSFUL:
            return self.return_value
        name = self.task.name
        if self.state == FinalStatus.CANCELLED:
            raise TaskCancelled(f"{name} ({self.id}) was cancelled. {self.reason}".rstrip())
        last = self.errors[-1] if self.errors else None
        error = TaskFailed(
            f"{name} ({self.id}) failed"
            + (f" with {last.exception_class_path}." if last else f". {self.reason}".rstrip())
        )
        if last:
            error.add_note(last.traceback)
        raise error

    def _why_not(self, timeout: float | None) -> str:
        text = f"Gave up after {timeout:g} s: task {self.id} is still {self.state.lower()}"
        queue = self.task.queue_name
        if self.state == LiveStatus.READY and not is_served(queue, self.backend, self.database):
            return f"{text} and no worker listens to {queue!r}."
        if self.state == LiveStatus.SCHEDULED and self.task.run_after:
            return f"{text}; it starts after {self.task.run_after.isoformat()}."
        return f"{text}."

    def cancel(self, *, by: str = "", why: str = "", force: bool = False) -> bool:
        """
        Cancel the task; say whether it is cancelled now.

        by names who asks and why says for what reason, for the record. A task
        that runs is only asked to end, and this returns False: it does at its
        next context.check(), a coroutine at its next await. With force
        CancelRequested is raised in it, and its process is killed if it has not
        ended after its grace.
        """
        from . import transitions

        moved = transitions.cancel(self.database, [self.id], by=by, why=why)
        if not moved:
            transitions.ask_to_end(self.database, [self.id], by=by, why=why, force=force)
        self.refresh()
        return bool(moved)

    async def acancel(self, *, by: str = "", why: str = "", force: bool = False) -> bool:
        """See cancel()."""
        return await sync_to_async(self.cancel, thread_sensitive=True)(by=by, why=why, force=force)

    def retry(self, *, by: str = "") -> None:
        """
        Run a failed or cancelled task again, under the same id, as soon as a worker is free.

        Raise WrongState unless it has failed or was cancelled.
        """
        from . import transitions

        if not transitions.retry(self.database, [self.id], by=by):
            self.refresh()
            if self.state in (FinalStatus.FAILED, FinalStatus.CANCELLED):
                cause = dependencies.refusal(self.database, self.id)
                if cause is not None:
                    raise WrongState(
                        f"{self.task.name} ({self.id}) was skipped in its workflow, because "
                        f"{cause}. Retry that one, or the workflow."
                    )
                raise WrongState(
                    f"{self.task.name} ({self.id}) can't be retried now: another task has its "
                    "unique key."
                )
            raise WrongState(
                f"Only a failed or cancelled task can be retried; {self.task.name} "
                f"({self.id}) is {self.state.lower()}."
            )
        self.refresh()

    async def aretry(self, *, by: str = "") -> None:
        """See retry()."""
        await sync_to_async(self.retry, thread_sensitive=True)(by=by)


def serving(
    queue: str, backend: str, alias: str, *, state: str | None = WorkerState.RUNNING.value
) -> list[Worker]:
    """Return the live workers that listen to queue and are in this state; None: in any."""
    now = timezone.now()
    workers = Worker.objects.using(alias).filter(backend=backend).order_by("started_at")
    return [
        worker
        for worker in (workers if state is None else workers.filter(state=state))
        if (not worker.queues or queue in worker.queues)
        and (now - worker.heartbeat_at).total_seconds() < worker.lease
    ]


def is_served(queue: str, backend: str, alias: str) -> bool:
    """Say whether a live worker listens to queue."""
    return bool(serving(queue, backend, alias))


def build_result(
    *,
    task: Any,
    id: str,
    state: str,
    enqueued_at: datetime | None,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    backend: str,
    database: str,
    started_at: datetime | None = None,
    last_attempted_at: datetime | None = None,
    finished_at: datetime | None = None,
    errors: Sequence[dict[str, Any]] = (),
    worker_ids: Sequence[str] = (),
    reason: str = "",
    return_value: Any = None,
    commitment: Commitment | None = None,
    notes: Mapping[str, Any] | None = None,
) -> DatabaseTaskResult:
    """Return a DatabaseTaskResult; errors as they stand in the row."""
    result = DatabaseTaskResult(
        task=task,
        id=id,
        status=DJANGO_STATUS[state],
        enqueued_at=enqueued_at,
        started_at=started_at,
        last_attempted_at=last_attempted_at,
        finished_at=finished_at,
        args=args,  # type: ignore[arg-type]
        kwargs=kwargs,
        backend=backend,
        errors=[
            TaskError(
                exception_class_path=error["exception_class_path"], traceback=error["traceback"]
            )
            for error in errors
        ],
        worker_ids=list(worker_ids),
        state=str(state),
        reason=reason,
        database=database,
        commitment=commitment,
        notes=notes,
    )
    object.__setattr__(result, "_return_value", return_value)
    return result


def result_of(row: TaskRecord) -> DatabaseTaskResult:
    """Return the result that a row of QueuedTask or FinishedTask describes."""
    task = registry.restore(
        row.task_path,
        row.options,
        priority=row.priority,
        queue_name=row.queue_name,
        backend=row.backend,
        run_after=row.run_after,
    )
    conf = getattr(_backend(row.backend), "conf", None)
    return build_result(
        task=task,
        id=str(row.pk),
        state=row.status,  # type: ignore[attr-defined]
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        last_attempted_at=row.last_attempted_at,
        finished_at=getattr(row, "finished_at", None),
        args=readable(row.args, conf, [UNREADABLE]),
        kwargs=readable(row.kwargs, conf, {}),
        backend=row.backend,
        errors=row.errors or (),
        worker_ids=row.worker_ids,
        reason=row.reason,
        return_value=opened(getattr(row, "return_value", None), conf),
        notes=row.notes,
        database=row._state.db or "default",
    )


def _backend(alias: str) -> Any:
    try:
        return task_backends[alias]
    except InvalidTaskBackend:  # It was there when the task was enqueued.
        return None


def fetch_row(task_id: str, alias: str) -> TaskRecord:
    """
    Return the row of an id, wherever it is. Raise TaskResultDoesNotExist.

    Live, finished, live again: a row that moves while this looks is found.
    """
    from django.core.exceptions import ValidationError

    for model in (QueuedTask, FinishedTask, QueuedTask):
        try:
            row = model._default_manager.using(alias).filter(pk=task_id).first()
        except (ValidationError, ValueError, TypeError):
            break
        if row is not None:
            return row
    raise TaskResultDoesNotExist(task_id)


def fetch_result(task_id: str, alias: str) -> DatabaseTaskResult:
    """Return the result of an id. Raise TaskResultDoesNotExist."""
    return result_of(fetch_row(task_id, alias))
