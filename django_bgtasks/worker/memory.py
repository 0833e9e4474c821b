"""How much memory processes take."""

from __future__ import annotations

import os


def resident_memory(pid: int | None = None) -> int:
    """Return the resident memory of a process, by default this one, in bytes; 0 if unknown."""
    try:
        with open(f"/proc/{pid or 'self'}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        if pid is not None:
            return 0
        import resource

        # macOS gives bytes, and the peak is the best that it has.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
