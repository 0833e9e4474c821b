"""Hard limits: the process of a task that should have ended long ago is killed."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from .processes import ChildProcess

logger = logging.getLogger("django_bgtasks.worker")

#: Seconds between two looks at the boards, each of some bytes a child.
TICK = 0.1
#: Seconds in which a process that is to be killed writes down where its threads are.
LAST_WORDS = 0.1


class Watchdog(threading.Thread):
    """
    A thread, since the supervisor's own may hang in a statement.

    A process that holds the interpreter's lock can't end itself; it is killed,
    and where it was stands in the log: faulthandler needs no lock.
    """

    def __init__(self, children: Callable[[], Iterable[ChildProcess]]) -> None:
        super().__init__(name="bgtasks-watchdog", daemon=True)
        self._children = children
        self._stopped = threading.Event()
        #: Ids of the tasks for which a process was killed, by its id.
        self.killed: dict[int, frozenset[str]] = {}

    def run(self) -> None:
        while not self._stopped.wait(TICK):
            for child in list(self._children()):
                overdue = child.board.overdue(time.monotonic())
                if overdue and child.pid not in self.killed:
                    self._kill(child, frozenset(entry.id for entry in overdue))

    def _kill(self, child: ChildProcess, ids: frozenset[str]) -> None:
        logger.error(
            "Task %s did not end in time; its process %d is killed. Where it is:",
            ", ".join(sorted(ids)),
            child.pid,
        )
        with suppress(ProcessLookupError):
            if hasattr(signal, "SIGUSR2"):
                os.kill(child.pid, signal.SIGUSR2)
                time.sleep(LAST_WORDS)
            # Before the kill: whoever finds the process dead looks here.
            self.killed[child.pid] = ids
            child.kill()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
