"""
A child process: its threads, and what it hears and says. Start reading here.

The main thread runs tasks (one thread a slot with --threads), the dispatcher's
thread talks to the database (dispatcher.py), and a reader's thread hears the
supervisor.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plan import WorkerPlan


def main(plan: WorkerPlan, memory: Any, pipe: Any, parent: int) -> None:
    """Be a child of the process called parent."""
    from .preload import die_with_parent, set_up

    # The supervisor decides; Ctrl+C reaches the whole process group.
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGUSR2"):
        import faulthandler

        faulthandler.register(signal.SIGUSR2, all_threads=True)
    die_with_parent(parent)
    random.seed()
    set_up(plan)
    Child(plan, memory, pipe).run()


class Child:
    """The parts of a child process, and what they share."""

    def __init__(self, plan: WorkerPlan, memory: Any, pipe: Any) -> None:
        from ..compat import task_backends
        from .announcer import Announcer
        from .board import Board
        from .dispatcher import Dispatcher
        from .interrupts import Interrupts
        from .slots import Slots

        self.plan = plan
        self.pipe = pipe
        self.backend: Any = task_backends[plan.backend]
        self.board = Board(memory)
        self.woken = threading.Event()
        self.interrupts = Interrupts(by_signal=plan.threads == 1, done=self._interrupted)
        self.slots = Slots(
            self.board,
            self.interrupts,
            threads=plan.threads,
            async_concurrency=plan.async_concurrency,
            changed=self.woken.set,
        )
        self.announcer = Announcer()
        # Nothing is claimed before the supervisor has said which queues aren't paused.
        self.queues: list[str] | None = None
        self.look = True
        #: When to look, if that is sooner than it would be done anyway.
        self.look_at: float | None = None
        #: Queues in which fair keys take turns.
        self.fair: frozenset[str] = frozenset()
        #: Whether what is prepared on a connection stays there.
        self.own_session = False
        self.quiet = False
        self.stopping = False
        #: A task of this child was interrupted: who knows in what state it left the process.
        self.interrupted = False
        self._send_lock = threading.Lock()
        self.dispatcher = Dispatcher(self)

    def run(self) -> None:
        """Work until the supervisor says stop, or until this child should be replaced."""
        self.interrupts.install()
        self.slots.start()
        threading.Thread(target=self._listen, name="bgtasks-reader", daemon=True).start()
        thread = threading.Thread(target=self.dispatcher.run, name="bgtasks-dispatcher")
        self.send(("ready", os.getpid()))
        thread.start()
        if self.plan.threads == 1:
            self.slots.run()
        thread.join()
        self.announcer.close()
        logging.shutdown()
        sys.stdout.flush()

    def send(self, message: tuple[Any, ...]) -> None:
        """Tell the supervisor something."""
        try:
            with self._send_lock:
                self.pipe.send(message)
        except OSError:
            os._exit(1)

    def _listen(self) -> None:
        """Hear the supervisor; end when it has ended."""
        while True:
            try:
                kind, *details = self.pipe.recv()
            except (EOFError, OSError):
                os._exit(1)
            if kind == "wake" and details[0]:
                self.look_at = time.monotonic() + details[0]
            elif kind == "wake":
                self.look = True
            elif kind == "queues":
                self.queues = details[0]
                self.look = True
            elif kind == "fair":
                self.fair = details[0]
            elif kind == "cancel":
                self._cancel(*details)
            elif kind == "quiet":
                self.quiet = True
            elif kind == "stop":
                self.stopping = True
            elif kind == "announce":
                self.announcer.announce_row(details[0], self.plan.database, self.backend)
            elif kind == "session":
                self.own_session = details[0]
            elif kind == "enqueued":
                self.announcer.announce_enqueued(details[0], self.plan.database, self.backend)
            self.woken.set()

    def _cancel(self, task_id: str, reason: str, force: bool) -> None:
        """Have a task end: at its next check(), with force at once."""
        from ..exceptions import CancelRequested

        execution = self.dispatcher.by_id.get(task_id)
        if execution is None:
            return
        execution.request_cancel(reason)
        if force:
            task_grace = getattr(execution.task, "grace", None)
            grace = self.backend.conf.grace if task_grace is None else task_grace
            self.board.kill_at(execution.place, time.monotonic() + grace)
            self.interrupts.interrupt(execution, CancelRequested(reason))

    def _interrupted(self) -> None:
        """Take no more tasks, and be replaced: the interrupted one may go on, or never end."""
        self.interrupted = True
        self.woken.set()
