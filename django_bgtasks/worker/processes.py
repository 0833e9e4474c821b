"""The child processes of a supervisor: started, heard, ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from . import child
from .board import Board, Entry, board_size
from .plan import WorkerPlan


class ChildProcess:
    """One child, as its supervisor sees it."""

    def __init__(self, pid: int, pipe: Connection, memory: Any) -> None:
        self.pid = pid
        self.pipe = pipe
        self.board = Board(memory)
        self.started_at = time.monotonic()
        self.ready = False
        self.retiring = False
        #: Whether another child has taken its place already.
        self.replaced = False
        #: None while the process runs; a signal is negative.
        self.exit_code: int | None = None
        self.counts = {"successful": 0, "failed": 0, "cancelled": 0, "retried": 0}
        self.running = 0

    def send(self, *message: Any) -> None:
        """Tell the child something; one that has ended is noticed elsewhere."""
        try:
            self.pipe.send(message)
        except OSError:
            pass

    def received(self) -> list[tuple[Any, ...]]:
        """Return what the child has said."""
        messages = []
        try:
            while self.pipe.poll():
                messages.append(self.pipe.recv())
        except (EOFError, OSError):
            pass
        return messages

    def entries(self) -> list[Entry]:
        """Return the tasks that the child holds."""
        return self.board.entries()

    def kill(self) -> None:
        """End the process without asking it."""
        if self.exit_code is None:
            try:
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except ProcessLookupError:
                pass

    def how_it_ended(self) -> str:
        """Return the exit code in words."""
        code = self.exit_code
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"was killed by {name}{hint}"
        return f"ended with exit code {code}"


class Forked:
    """Children of a nursery, on Linux."""

    def __init__(self, plan: WorkerPlan) -> None:
        from .nursery import Nursery

        self._size = board_size(plan.threads, plan.async_concurrency)
        self._nursery = Nursery(plan)
        self._children: dict[int, ChildProcess] = {}

    def start(self) -> ChildProcess:
        """Start a child."""
        made = ChildProcess(*self._nursery.spawn(self._size))
        self._children[made.pid] = made
        return made

    def watched(self, made: ChildProcess) -> Any:
        """Return what becomes readable when a child has ended."""
        return self._nursery

    def ended(self) -> list[ChildProcess]:
        """Return the children that have ended since the last call."""
        found = []
        for pid, code in self._nursery.ended():
            made = self._children.pop(pid, None)
            if made is not None:
                made.exit_code = code
                found.append(made)
        if not self._nursery.alive:
            # Their parent is gone, and they with it.
            for made in self._children.values():
                made.exit_code = -9
                found.append(made)
            self._children.clear()
        return found

    @property
    def works(self) -> bool:
        """Whether more children can be started."""
        return self._nursery.alive

    def close(self) -> None:
        """End what children are made by."""
        self._nursery.close()


class Spawned:
    """Children that load the project themselves, where a process can't safely be forked."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan = plan
        self._context = multiprocessing.get_context("spawn")
        self._children: dict[int, tuple[ChildProcess, Any]] = {}
        self.works = True

    def start(self) -> ChildProcess:
        """Start a child."""
        plan = self._plan
        memory = self._context.RawArray("c", board_size(plan.threads, plan.async_concurrency))
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=child.main, args=(plan, memory, theirs, os.getpid()), daemon=True
        )
        process.start()
        theirs.close()
        made = ChildProcess(process.pid or 0, ours, memory)
        self._children[made.pid] = made, process
        return made

    def watched(self, made: ChildProcess) -> Any:
        """Return what becomes readable when a child has ended."""
        return self._children[made.pid][1].sentinel

    def ended(self) -> list[ChildProcess]:
        """Return the children that have ended since the last call."""
        found = []
        for pid, (made, process) in list(self._children.items()):
            if process.exitcode is not None:
                made.exit_code = process.exitcode
                process.join()
                del self._children[pid]
                found.append(made)
        return found

    def close(self) -> None:
        """Nothing is left to end."""


def launcher(plan: WorkerPlan) -> Forked | Spawned:
    """
    Return what starts children here.

    Before anything opens a connection or starts a thread: children are forked
    from what there is now.
    """
    return Forked(plan) if sys.platform == "linux" else Spawned(plan)
