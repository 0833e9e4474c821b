"""
What a child holds, in memory that its supervisor shares.

A child that is killed can't say what it was doing, and a message for each task
would cost more than a short task: so the child writes a byte here, and the
supervisor reads, whenever it renews leases and when the child has died.
"""

from __future__ import annotations

import struct
import threading
import time
from enum import IntEnum
from typing import Any, NamedTuple

from ..ids import dashed

_HEADER = struct.Struct("<B7x16sd")
_ENTRY = struct.Struct("<B7x16s16sdd")
#: Tasks that a child claims ahead of its free slots, at most.
MAX_PREFETCH = 400


class Stage(IntEnum):
    """How far a task that a child holds has come."""

    FREE = 0
    CLAIMED = 1
    STARTED = 2
    # It ran; what came of it is not written yet.
    RAN = 3


class Entry(NamedTuple):
    """
    One task on the board; since is time.monotonic() of its start, kill_at of
    when its process is to be killed if it still runs, 0 if never.
    """

    stage: Stage
    id: str
    claim_id: str
    since: float
    kill_at: float = 0.0


def board_size(threads: int, async_concurrency: int) -> int:
    """Return the bytes of a board for a child with so many slots."""
    return _HEADER.size + _ENTRY.size * (MAX_PREFETCH + 2 * (threads + async_concurrency) + 8)


class Board:
    """A view of the shared bytes, for the child that writes or the supervisor that reads."""

    def __init__(self, memory: Any) -> None:
        whole = memoryview(memory).cast("B")
        self._header = whole[: _HEADER.size]
        self._memory = whole[_HEADER.size :]
        self.capacity = len(self._memory) // _ENTRY.size
        self._free = list(range(self.capacity - 1, -1, -1))
        self._limits: dict[int, float] = {}
        self._limits_lock = threading.Lock()

    @property
    def room(self) -> int:
        """How many more tasks can be put down."""
        return len(self._free)

    @property
    def held(self) -> int:
        """How many tasks are down here; the supervisor asks, too."""
        return self.capacity - self._memory[:: _ENTRY.size].tobytes().count(0)

    def announce_claim(self, claim_id: str) -> None:
        """Note that a claim is on its way: its rows may be ours before this process knows."""
        self._header[8:24] = bytes.fromhex(claim_id.replace("-", ""))
        self._header[0] = 1

    def claim_arrived(self) -> None:
        """Note that the rows of the announced claim are on the board, or that there are none."""
        self._header[0] = 0

    def announced_claim(self) -> str | None:
        """Return the claim that is on its way, if any."""
        on_its_way, claim, _ = _HEADER.unpack_from(self._header)
        return dashed(claim.hex()) if on_its_way else None

    def put(self, task_id: str, claim_id: str) -> int:
        """Note a claimed task; return its place."""
        place = self._free.pop()
        _ENTRY.pack_into(
            self._memory,
            place * _ENTRY.size,
            Stage.FREE,
            bytes.fromhex(task_id.replace("-", "")),
            bytes.fromhex(claim_id.replace("-", "")),
            0.0,
            0.0,
        )
        # Last, so that a half-written entry is not read.
        self._memory[place * _ENTRY.size] = Stage.CLAIMED
        return place

    def start(self, place: int, kill_after: float | None = None) -> None:
        """Note that the user's code begins now, and may run for kill_after seconds at most."""
        offset = place * _ENTRY.size
        now = time.monotonic()
        struct.pack_into("<d", self._memory, offset + 40, now)
        if kill_after is not None:
            self.kill_at(place, now + kill_after)
        self._memory[offset] = Stage.STARTED

    def kill_at(self, place: int, moment: float) -> None:
        """Note when the process is to be killed if a task still runs then."""
        with self._limits_lock:
            earlier = self._limits.get(place)
            self._limits[place] = moment if earlier is None else min(earlier, moment)
            struct.pack_into("<d", self._memory, place * _ENTRY.size + 48, self._limits[place])
            self._tell_next()

    def _tell_next(self) -> None:
        struct.pack_into("<d", self._header, 24, min(self._limits.values(), default=0.0))

    def overdue(self, now: float) -> list[Entry]:
        """Return what should have ended: for the supervisor, that kills."""
        (soonest,) = struct.unpack_from("<d", self._header, 24)
        if not 0 < soonest <= now:
            return []
        return [e for e in self.entries() if e.stage == Stage.STARTED and 0 < e.kill_at <= now]

    def ran(self, place: int) -> None:
        """Note that the user's code has ended."""
        self._memory[place * _ENTRY.size] = Stage.RAN

    def remove(self, place: int) -> None:
        """Note that the task is not held any more."""
        self._memory[place * _ENTRY.size] = Stage.FREE
        if place in self._limits:
            with self._limits_lock:
                del self._limits[place]
                self._tell_next()
        self._free.append(place)

    def entries(self) -> list[Entry]:
        """Return what is held."""
        found = []
        size = _ENTRY.size
        for place in range(self.capacity):
            if self._memory[place * size]:
                stage, task, claim, since, kill_at = _ENTRY.unpack_from(self._memory, place * size)
                if stage:
                    found.append(
                        Entry(Stage(stage), dashed(task.hex()), dashed(claim.hex()), since, kill_at)
                    )
        return found
