"""The leases of what a worker's children hold: renewed, and given up in time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

#: Seconds before the end of a lease at which a worker stops its own tasks.
MARGIN = 2.0


def boot_clock() -> float:
    """Return seconds that pass while the machine is suspended, too, where there are such."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Contact:
    """
    When the database was last heard of.

    since is the beginning of unbroken contact: after an outage nobody's lease
    was renewed, and a worker that reaped at once would take what still runs
    elsewhere.
    """

    def __init__(self) -> None:
        self.renewed_at = boot_clock()
        self.since = self.renewed_at
        self.lost_at: float | None = None

    def made(self, asked_at: float) -> None:
        """Note a successful renewal that was asked for at asked_at."""
        self.renewed_at = asked_at
        if self.lost_at is not None:
            self.lost_at = None
            self.since = boot_clock()

    def lost(self) -> None:
        """Note a statement that failed."""
        if self.lost_at is None:
            self.lost_at = boot_clock()

    def silence(self) -> float:
        """Return the seconds since the last successful renewal was asked for."""
        return boot_clock() - self.renewed_at

    def unbroken(self) -> float:
        """Return the seconds of contact without a failure."""
        return 0.0 if self.lost_at is not None else boot_clock() - self.since


class Fence(threading.Thread):
    """
    Kills the children when their leases could not be renewed in time.

    A thread, since the supervisor's own may hang in a statement that the
    network swallowed. Others may take the tasks over a moment later.
    """

    def __init__(
        self,
        contact: Contact,
        lease: float,
        holders: Callable[[], list[int]],
        fenced: Callable[[float], None],
    ) -> None:
        super().__init__(name="bgtasks-fence", daemon=True)
        self._contact = contact
        self._limit = max(lease - MARGIN, lease / 2)
        self._holders = holders
        self._fenced = fenced
        # Not _stop, which is a method of Thread before Python 3.13.
        self._stopped = threading.Event()
        #: Processes that were killed here: their tasks are innocent.
        self.killed: set[int] = set()
        self._tick = max(0.1, min(1.0, lease / 20))

    def run(self) -> None:
        while not self._stopped.wait(self._tick):
            silence = self._contact.silence()
            if silence < self._limit:
                continue
            pids = [pid for pid in self._holders() if pid not in self.killed]
            if pids:
                self._fenced(silence)
            for pid in pids:
                self.killed.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        self._stopped.set()
