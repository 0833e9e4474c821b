"""The child processes of a supervisor: started, heard, ended."""

from __future__ import annotations

import json
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
from .preload import PATH_VARIABLE


def context() -> Any:
    """
    Return how children are made.

    From a fork server on Linux, which has loaded the project once and has
    neither threads nor connections; anew elsewhere.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    os.environ[PATH_VARIABLE] = json.dumps(sys.path)
    made.set_forkserver_preload(["django_bgtasks.worker.preload"])
    return made


class ChildProcess:
    """One child, as its supervisor sees it."""

    def __init__(self, ctx: Any, plan: WorkerPlan, number: int) -> None:
        memory = ctx.RawArray("c", board_size(plan.threads, plan.async_concurrency))
        self.board = Board(memory)
        self.number = number
        self.pipe: Connection
        self.pipe, theirs = ctx.Pipe()
        self.process = ctx.Process(
            target=child.main,
            args=(plan, memory, theirs, os.getpid()),
            name=f"bgtasks-{number}",
            daemon=True,
        )
        self.process.start()
        theirs.close()
        self.started_at = time.monotonic()
        self.ready = False
        self.retiring = False
        self.counts = {"successful": 0, "failed": 0, "retried": 0}
        self.running = 0

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    @property
    def sentinel(self) -> int:
        """A file descriptor that becomes readable when the process has ended."""
        return self.process.sentinel

    def send(self, *message: Any) -> None:
        """Tell the child something; one that has ended is found by its sentinel."""
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError, OSError):
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
        self.process.kill()

    def close(self) -> str:
        """Forget a process that has ended; return how it ended, in words."""
        self.process.join()
        code = self.process.exitcode
        self.pipe.close()
        return ended_how(code)


def ended_how(code: int | None) -> str:
    """Return an exit code in words."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"ended with exit code {code}"
