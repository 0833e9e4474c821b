"""What signals ask of a supervisor: noted by the handlers, obeyed between two steps."""

from __future__ import annotations

import signal
import socket
from types import FrameType


class SignalRequests:
    """
    Handlers of the supervisor's signals.

    They take notes and write a byte to a socket that the supervisor waits on;
    a handler that acted itself would act in the middle of anything.
    """

    def __init__(self) -> None:
        #: SIGTERM and SIGINT so far.
        self.stops = 0
        #: SIGQUIT: don't wait for anything.
        self.at_once = False
        self.quiet = False
        self.stacks = False
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)

    def fileno(self) -> int:
        return self._ours.fileno()

    def install(self) -> None:
        """Become the handler of the signals that are known here."""
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_stop)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, self._on_quiet)
            signal.signal(signal.SIGUSR2, self._on_stacks)

    def heard(self) -> None:
        """Empty the socket."""
        self._ours.recv(4096)

    def close(self) -> None:
        """Hear no more of it."""
        for end in (self._ours, self._theirs):
            end.close()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1
        self.at_once |= number == getattr(signal, "SIGQUIT", None)

    def _on_quiet(self, number: int, frame: FrameType | None) -> None:
        self.quiet = True

    def _on_stacks(self, number: int, frame: FrameType | None) -> None:
        self.stacks = True
