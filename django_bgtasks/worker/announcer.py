"""The thread of a child that sends Django's signals about outcomes that are written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from ..compat import TaskResultDoesNotExist, task_enqueued, task_finished
from ..signals import task_committed, task_retried
from .connections import clean_connections
from .execution import Execution
from .observers import is_observed

logger = logging.getLogger("django_bgtasks.worker")


def send_enqueued(ids: Sequence[str], alias: str, backend: Any) -> None:
    """Send task_enqueued and task_committed for tasks that were written without their signals."""
    from ..results import fetch_result

    for task_id in ids:
        try:
            result = fetch_result(task_id, alias)
        except TaskResultDoesNotExist:
            continue  # Pruned already.
        task_enqueued.send_robust(type(backend), task_result=result)
        task_committed.send_robust(type(backend), task_result=result)


class Announcer:
    """
    Sends task_finished and task_retried, in the order of the outcomes.

    In a thread of its own, so that a slow receiver holds up neither tasks nor
    claims; it is started by the first outcome that somebody listens for.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def announce(self, execution: Execution) -> None:
        """Send the signal of execution soon."""
        failed = execution.exception is not None
        if failed or is_observed(task_finished) or task_retried.receivers:
            self._put(execution.announce)

    def announce_row(self, task_id: str, alias: str, backend: Any) -> None:
        """Send task_finished for a task that failed because its process died."""
        from ..results import fetch_result

        def send() -> None:
            task_finished.send_robust(type(backend), task_result=fetch_result(task_id, alias))

        self._put(send)

    def announce_enqueued(self, ids: Sequence[str], alias: str, backend: Any) -> None:
        """Send task_enqueued and task_committed for tasks that schedules enqueued."""
        if is_observed(task_enqueued) or task_committed.receivers:
            self._put(lambda: send_enqueued(ids, alias, backend))

    def _put(self, action: Any) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="bgtasks-announcer", daemon=True)
            self._thread.start()
        self._queue.put(action)

    def _run(self) -> None:
        while (action := self._queue.get()) is not None:
            try:
                action()
            except Exception:
                logger.exception("A finished task could not be announced.")
            if self._queue.empty():
                clean_connections()

    def close(self, timeout: float = 10.0) -> None:
        """Send what is left."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
