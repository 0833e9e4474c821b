"""Where tasks run in a child: threads for functions, one event loop for coroutines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

from .board import MAX_PREFETCH, Board
from .execution import Execution
from .interrupts import Interrupts

#: How far ahead a child claims, in seconds of work at the recent pace.
PREFETCH_SECONDS = 0.1


class Slots:
    """
    Runs executions and collects them when they have run.

    With one thread that is the process' main thread, which alone receives
    signals. changed is called when there is room for more work, or when what
    has run should be written soon.
    """

    def __init__(
        self,
        board: Board,
        interrupts: Interrupts,
        *,
        threads: int,
        async_concurrency: int,
        changed: Callable[[], None],
    ) -> None:
        self.threads = threads
        self.async_concurrency = async_concurrency
        #: Executions that have run, for the dispatcher to take.
        self.done: deque[Execution] = deque()
        self._board = board
        self._interrupts = interrupts
        self._changed = changed
        self._queue: SimpleQueue[Execution | None] = SimpleQueue()
        self._busy = 0
        self._count_lock = threading.Lock()
        self._started: dict[int, float] = {}
        self._workers: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._async_busy = 0
        # Seconds a task takes; slow until something is known.
        self._pace = 1.0
        self._low_water = 0

    # The dispatcher's side

    def start(self) -> None:
        """Start the threads, unless the main thread is to run() itself."""
        if self.threads > 1:
            for number in range(self.threads):
                thread = threading.Thread(
                    target=self.run, name=f"bgtasks-slot-{number + 1}", daemon=True
                )
                thread.start()
                self._workers.append(thread)

    def submit(self, execution: Execution) -> None:
        """Run an execution as soon as a slot is free."""
        if execution.is_async:
            with self._count_lock:
                self._async_busy += 1
            loop = self._running_loop()
            loop.call_soon_threadsafe(lambda: loop.create_task(self._arun(execution)))
        else:
            self._queue.put(execution)

    def take_back(self) -> list[Execution]:
        """Return the executions that no thread has begun."""
        taken = []
        try:
            while True:
                execution = self._queue.get_nowait()
                if execution is not None:
                    taken.append(execution)
        except Empty:
            return taken

    @property
    def waiting(self) -> int:
        """Executions that no thread has begun."""
        return self._queue.qsize()

    @property
    def running(self) -> int:
        """Executions that run now."""
        return self._busy + self._async_busy

    @property
    def async_room(self) -> int:
        """Free slots of the event loop."""
        return max(0, self.async_concurrency - self._async_busy)

    def free_for(self, execution: Execution) -> bool:
        """Say whether a slot would begin an execution at once."""
        if execution.is_async:
            return self.async_room > 0
        return self.free > 0

    @property
    def free(self) -> int:
        """Threads that would begin an execution at once."""
        return self.threads - self._busy - self._queue.qsize()

    @property
    def ahead(self) -> int:
        """How many tasks a thread uses up in PREFETCH_SECONDS at the recent pace."""
        return int(PREFETCH_SECONDS / self._pace)

    def wanted(self) -> int:
        """
        Return how many more tasks to claim for the threads.

        The free threads, and what all of them use up in PREFETCH_SECONDS at
        their recent pace; nothing ahead while one is at a slow task.
        """
        ahead = self.threads * self.ahead
        if ahead:
            began = min(self._started.copy().values(), default=None)
            if began is not None and time.monotonic() - began > PREFETCH_SECONDS:
                ahead = 0
        ahead = min(ahead, MAX_PREFETCH)
        self._low_water = ahead // 2
        waiting = self._queue.qsize()
        if ahead and waiting > self._low_water:
            return 0
        return max(0, self.threads - self._busy + ahead - waiting)

    def learn(self, seconds: float, count: int) -> None:
        """Take into account that count tasks took seconds in all."""
        if count:
            # What a task costs beside its function.
            recent = seconds / count + 20e-6
            self._pace += (recent - self._pace) * (0.3 if recent < self._pace else 0.7)

    def stop(self) -> None:
        """Have the threads end when they have run what waits."""
        for _ in range(max(1, self.threads)):
            self._queue.put(None)

    # The threads' side

    def run(self) -> None:
        """Run executions until stop()."""
        me = threading.get_ident()
        get, done, board = self._queue.get, self.done, self._board
        single = self.threads == 1
        while True:
            execution = get()
            if execution is None:
                return
            if single:
                self._busy = 1
            else:
                with self._count_lock:
                    self._busy += 1
            self._started[me] = time.monotonic()
            watched = self._start(execution)
            execution.run()
            if watched:
                self._interrupts.forget()
            board.ran(execution.place)
            del self._started[me]
            done.append(execution)
            if single:
                self._busy = 0
            else:
                with self._count_lock:
                    self._busy -= 1
            waiting = self._queue.qsize()
            if waiting in (0, self._low_water) or len(done) >= 100:
                self._changed()

    def _start(self, execution: Execution) -> bool:
        """Note that an execution begins; say whether its time is watched."""
        limits = execution.limits
        if limits is None:
            self._board.start(execution.place)
            return False
        timeout, grace = limits
        self._board.start(execution.place, timeout + grace)
        self._interrupts.watch(execution, timeout)
        return True

    async def _arun(self, execution: Execution) -> None:
        watched = self._start(execution)
        await execution.arun()
        if watched:
            self._interrupts.forget()
        self._board.ran(execution.place)
        self.done.append(execution)
        # The dispatcher's thread counts, too.
        with self._count_lock:
            self._async_busy -= 1
        self._changed()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._loop.run_forever, name="bgtasks-loop", daemon=True
            ).start()
        return self._loop
