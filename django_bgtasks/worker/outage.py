"""When the database fails: a child waits and goes on."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any

from django.db import connections

from ..db import FailureKind, classify
from .connections import reset_connection

if TYPE_CHECKING:
    from .child import Child

logger = logging.getLogger("django_bgtasks.worker")

#: Seconds of the first pause, and of the longest one.
FIRST, LONGEST = 0.05, 5.0


class Outage:
    """Whether the database answers one child, and since when not."""

    def __init__(self, child: Child, alias: str) -> None:
        self._child = child
        self._alias = alias
        self.since: float | None = None
        self.pause = FIRST

    def began(self, error: Exception, outcomes: Any) -> None:
        """Take note of a statement that failed; outcomes are what was to be written with it."""
        kind = classify(error)
        reset_connection(connections[self._alias])
        if kind is FailureKind.DATA and outcomes.unwritten:
            outcomes.isolate()
            return
        if self.since is None:
            self.since = time.monotonic()
            self.pause = FIRST
            if kind is FailureKind.TRANSIENT:
                logger.warning("The database can't be reached; waiting for it: %s", error)
            else:
                logger.error("The database refused a statement of the worker.", exc_info=error)
        else:
            self.pause = min(self.pause * 1.7, LONGEST)

    def over(self) -> None:
        """Take note of a statement that was answered."""
        if self.since is not None:
            logger.warning("The database is back after %.1f s.", time.monotonic() - self.since)
            self.since = None
            self._child.look = True

    def wait(self) -> float:
        """Return how long to wait before the next attempt."""
        return random.uniform(0.5, 1.0) * self.pause
