"""
Ids of tasks: UUIDs of version 7 (RFC 9562), made by the client.

Their order is the order of their making, within a process strictly, so newest
first is the primary key. The random 62 bits come from the operating system:
whoever knows one id can't guess another.
"""

import os
import threading
import time

_lock = threading.Lock()
_last = 0
_pool = b""
_used = 0
_POOL_BYTES = 4096


def _forget_randomness() -> None:
    """Start a forked child with random bytes, and a lock, of its own."""
    global _lock, _pool, _used
    # Another thread of the parent may hold the lock, and isn't here to give it back.
    _lock = threading.Lock()
    _pool, _used = b"", 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_randomness)


def new_id() -> str:
    """Return a new id in its canonical form of 36 characters."""
    global _last, _pool, _used
    with _lock:
        # Milliseconds in 48 bits, and a fraction of 1/4096 ms in 12 (RFC 9562, 6.2, method 3).
        moment = (time.time_ns() << 12) // 1_000_000
        if moment <= _last:
            moment = _last + 1
        _last = moment
        if _used + 8 > len(_pool):
            _pool, _used = os.urandom(_POOL_BYTES), 0
        tail = int.from_bytes(_pool[_used : _used + 8], "big")
        _used += 8
    number = (
        (moment >> 12) << 80
        | 0x7 << 76
        | (moment & 0xFFF) << 64
        | 0x2 << 62
        | tail & 0x3FFF_FFFF_FFFF_FFFF
    )
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id_of(moment: float) -> str:
    """Return the smallest id that can be made at a time.time()."""
    number = (int(moment * 1000) & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | 0x2 << 62
    return dashed(f"{number:032x}")


def dashed(hexadecimal: str) -> str:
    """Return the canonical form of 32 hexadecimal digits."""
    h = hexadecimal
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
