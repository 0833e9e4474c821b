"""
The process that children are forked from, on Linux.

It is forked from the supervisor when that has loaded the project and has
neither threads nor connections, and stays like that. So a child starts within
milliseconds, shares the project's memory with all others, and never sees a
connection that belongs to somebody else. (multiprocessing's fork server does
the same, but loads the project once more and needs a third process: 40 MB.)
"""

from __future__ import annotations

import gc
import mmap
import os
import selectors
import signal
import sys
from collections import deque
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NoReturn

from . import child
from .plan import WorkerPlan
from .preload import die_with_parent, load_project


class Nursery:
    """The supervisor's end."""

    def __init__(self, plan: WorkerPlan) -> None:
        load_project()
        # The collector leaves alone what there is by now, so that pages stay shared.
        gc.collect()
        gc.freeze()
        ours, theirs = Pipe()
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _serve(plan, theirs, supervisor)
        theirs.close()
        self.pipe: Connection = ours
        self._ended: deque[tuple[int, int]] = deque()
        self.alive = True

    def fileno(self) -> int:
        return self.pipe.fileno()

    def spawn(self, size: int) -> tuple[int, Connection, mmap.mmap]:
        """Fork a child; return its pid, a pipe to it, and size bytes that it shares."""
        ours, theirs = Pipe()
        memory = os.memfd_create("bgtasks-board")
        os.ftruncate(memory, size)
        try:
            self.pipe.send(("spawn", size))
            send_handle(self.pipe, theirs.fileno(), self.pid)
            send_handle(self.pipe, memory, self.pid)
            while True:
                kind, *details = self.pipe.recv()
                if kind == "spawned":
                    return details[0], ours, mmap.mmap(memory, size)
                self._ended.append((details[0], details[1]))
        finally:
            theirs.close()
            os.close(memory)

    def ended(self) -> list[tuple[int, int]]:
        """Return pid and exit code of children that have ended; a signal is negative."""
        try:
            while self.pipe.poll():
                _, pid, code = self.pipe.recv()
                self._ended.append((pid, code))
        except (EOFError, OSError):
            self.alive = False
        found = list(self._ended)
        self._ended.clear()
        return found

    def close(self) -> None:
        """End the process; its children have ended, or end with it."""
        self.pipe.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass


def _serve(plan: WorkerPlan, pipe: Connection, supervisor: int) -> NoReturn:
    """Fork children on request until the supervisor's end is closed."""
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    die_with_parent(supervisor)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    os.set_blocking(heard, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    selector = selectors.DefaultSelector()
    selector.register(pipe, selectors.EVENT_READ)
    selector.register(heard, selectors.EVENT_READ)
    try:
        while True:
            for key, _ in selector.select():
                if key.fileobj is pipe:
                    _fork(plan, pipe, (selector, heard, told))
                else:
                    os.read(heard, 4096)
                    _reap(pipe)
    except (EOFError, OSError):
        os._exit(0)


def _fork(plan: WorkerPlan, pipe: Connection, inherited: tuple[Any, ...]) -> None:
    _, size = pipe.recv()
    theirs = recv_handle(pipe)
    memory = recv_handle(pipe)
    nursery = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            selector, *ends = inherited
            selector.close()
            for end in ends:
                os.close(end)
            pipe.close()
            child.main(plan, mmap.mmap(memory, size), Connection(theirs), nursery)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(theirs)
    os.close(memory)
    pipe.send(("spawned", pid))


def _reap(pipe: Connection) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        pipe.send(("ended", pid, os.waitstatus_to_exitcode(status)))
