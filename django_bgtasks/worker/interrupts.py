"""
Soft limits: an exception raised in a task that takes too long, or shall be cancelled.

In a child with one slot by a signal to its main thread, which a sleep, a lock
and a query of psycopg notice at once; in one with more by an asynchronous
exception of CPython, which Python code notices and a wait does not; in a
coroutine by cancel(). What notices none of it is killed with its process by
the supervisor (watchdog.py).
"""

from __future__ import annotations

import ctypes
import heapq
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..exceptions import TaskTimeout

if TYPE_CHECKING:
    from .execution import Execution

SIGNAL = getattr(signal, "SIGUSR1", None)


class Interrupts:
    """The deadlines of what runs in one child."""

    def __init__(self, *, by_signal: bool, done: Callable[[], None]) -> None:
        #: Called when something was interrupted.
        self._done = done
        self._main = threading.main_thread().ident or 0
        self.by_signal = by_signal and SIGNAL is not None
        self._condition = threading.Condition()
        self._deadlines: list[tuple[float, int, Execution, str]] = []
        self._number = 0
        # Deadlines of what has run, at most.
        self._stale = 0
        self._thread: threading.Thread | None = None
        # Whom the signal that is on its way is for.
        self._signalled: Execution | None = None

    def install(self) -> None:
        """Become the handler of the signal, in the main thread."""
        if self.by_signal:
            assert SIGNAL is not None
            signal.signal(SIGNAL, self._on_signal)

    def watch(self, execution: Execution, seconds: float) -> None:
        """Raise TaskTimeout in an execution that runs for longer than seconds."""
        with self._condition:
            self._number += 1
            what = f"It has run for longer than its timeout of {seconds:g} s."
            deadline = time.monotonic() + seconds
            entry = (deadline, self._number, execution, what)
            heapq.heappush(self._deadlines, entry)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="bgtasks-interrupts", daemon=True
                )
                self._thread.start()
            if self._deadlines[0] is entry:
                self._condition.notify()

    def forget(self) -> None:
        """Note that something which was watched has run."""
        with self._condition:
            self._stale += 1
            if self._stale > 32 and self._stale * 2 > len(self._deadlines):
                # Else an hour's short tasks with a timeout of an hour would be kept.
                self._deadlines = [entry for entry in self._deadlines if not entry[2].has_run]
                heapq.heapify(self._deadlines)
                self._stale = 0

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._deadlines and self._deadlines[0][2].has_run:
                    heapq.heappop(self._deadlines)
                if not self._deadlines:
                    self._condition.wait()
                    continue
                pause = self._deadlines[0][0] - time.monotonic()
                if pause > 0:
                    self._condition.wait(pause)
                    continue
                _, _, execution, what = heapq.heappop(self._deadlines)
            self.interrupt(execution, TaskTimeout(what))

    def interrupt(self, execution: Execution, error: BaseException) -> None:
        """Raise error in an execution, if it still runs the task's own code."""
        state = execution.state()
        self._done()
        with state.lock:
            if state.interrupt is None:
                state.interrupt = error
            if not execution.interruptible:
                return
            if execution.coroutine is not None:
                execution.cancel_coroutine()
            elif self.by_signal and execution.thread == self._main:
                self._signalled = execution
                assert SIGNAL is not None
                signal.pthread_kill(self._main, SIGNAL)
            elif execution.thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(execution.thread), ctypes.py_object(type(error))
                )

    def _on_signal(self, number: int, frame: Any) -> None:
        execution, self._signalled = self._signalled, None
        if execution is None:
            return  # Not ours: somebody has sent the signal to the whole group.
        state = execution.state()
        # In the main thread itself, so nothing can change in between.
        if execution.interruptible and state.interrupt is not None:
            raise state.interrupt
