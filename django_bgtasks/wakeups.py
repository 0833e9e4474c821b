"""What follows the commit of an enqueue: task_committed, and a hint to the workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, connections, transaction

from .db import operations_for

logger = logging.getLogger("django_bgtasks")

#: NOTIFY takes a lock of the whole server when it commits. A worker that was
#: just woken looks again by itself for longer than this.
MIN_INTERVAL = 0.1

_last: dict[tuple[str, str], float] = {}


def on_commit(alias: str, callback: Callable[[], Any]) -> None:
    """Call callback after the commit of what was just written, at once if that was autocommit."""
    if connections[alias].in_atomic_block:
        transaction.on_commit(callback, using=alias, robust=True)
    else:
        callback()


def is_due(alias: str, queue: str) -> bool:
    """Say whether workers are to be told of a queue; the caller tells them then."""
    now = time.monotonic()
    if now - _last.get((alias, queue), -1.0) < MIN_INTERVAL:
        return False
    _last[alias, queue] = now
    return True


def wake(alias: str, *queues: str) -> None:
    """
    Tell workers that tasks wait; at most once a queue in MIN_INTERVAL.

    After the commit: outside a transaction, or from on_commit().
    """
    # Without a lock: a hint too many is harmless, a lock held at a fork is not.
    due = [queue for queue in queues if is_due(alias, queue)]
    if due:
        try:
            operations_for(alias).notify(due)
        except DatabaseError:
            # The task is committed; workers find it without the hint.
            logger.debug("Could not notify the workers of %r.", alias, exc_info=True)
