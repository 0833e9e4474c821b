"""
Every arrow of docs/lifecycle.md, each one guarded statement or transaction.

Nothing else writes a status. A guard says from which state the arrow starts
and, once a task is RUNNING, under which claim; where it finds nothing to
change, the caller learns that others were faster.
"""

from .by_hand import (
    ask_to_end,
    cancel,
    cancelled_by,
    requests_are_done,
    requests_to_end,
    retry,
    run_now,
)
from .ending import end, exchange, is_member, open_up
from .entering import enqueue, enqueue_waiting, promote, replace
from .held import Held, note, put_off, release, release_claim, retry_later
from .limited import hand_over, park, park_ready, unpark
from .losses import (
    LOST_PAUSE,
    RUNS_ALONE,
    Rescue,
    begin_alone,
    end_overdue,
    lost_error,
    rescue,
    take_over,
)

__all__ = [
    "LOST_PAUSE",
    "RUNS_ALONE",
    "Held",
    "Rescue",
    "ask_to_end",
    "begin_alone",
    "cancel",
    "cancelled_by",
    "end",
    "end_overdue",
    "enqueue",
    "enqueue_waiting",
    "exchange",
    "hand_over",
    "is_member",
    "lost_error",
    "note",
    "open_up",
    "park",
    "park_ready",
    "promote",
    "put_off",
    "release",
    "release_claim",
    "replace",
    "requests_are_done",
    "requests_to_end",
    "rescue",
    "retry",
    "retry_later",
    "run_now",
    "take_over",
    "unpark",
]
