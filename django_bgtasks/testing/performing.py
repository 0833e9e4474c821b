"""perform(): one attempt of one task, by the worker's own parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backend import DatabaseBackend
from ..compat import task_backends
from ..results import fetch_result
from .running import no_backend
from .slot import Slot


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of one attempt.

    state is that of the task after it: SUCCESSFUL, FAILED or CANCELLED, and
    READY or SCHEDULED where another attempt follows, in delay seconds. value
    is what the task returned, as its result gives it; exception what it
    raised, RetryRequested for context.retry() and snooze().
    """

    state: str
    value: Any
    exception: BaseException | None
    delay: float | None
    reason: str
    result: Any


def perform(task: Any, /, *args: Any, **kwargs: Any) -> Outcome:
    """
    Enqueue a task, run one attempt of it here, and return what came of that.

    The arguments go through JSON, the context is a real one, what came of it
    is written; queues, limits and run_after are not asked. What the task
    raises is in the outcome. If another attempt follows, run_tasks() runs it.
    Raise what enqueue() raises, and RuntimeError within transaction.atomic().
    """
    backend = task_backends[task.backend]
    if not isinstance(backend, DatabaseBackend):
        raise no_backend()
    slot = Slot(backend.database)
    execution = slot.begin(task, args, kwargs)
    slot.run(execution)
    delay = execution.retry_delay if execution.put_off_delay is None else execution.put_off_delay
    after = fetch_result(execution.row.id, backend.database)
    return Outcome(
        state=after.state,
        value=after.return_value if after.state == "SUCCESSFUL" else None,
        exception=execution.exception,
        delay=delay,
        reason=after.reason,
        result=after,
    )
