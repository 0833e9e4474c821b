"""Pure: percentiles of histograms."""

from __future__ import annotations

from collections.abc import Sequence

from ..models.bucket import BORDERS


def percentile(bins: Sequence[int], share: float) -> float | None:
    """
    Return about the seconds below which a share (0.95) of a histogram lies, None if it is empty.

    Within a bin the values are taken for evenly spread; what lies in the last
    bin, which has no end, counts as its begin.
    """
    total = sum(bins)
    if total <= 0:
        return None
    wanted = share * total
    seen = 0
    for number, count in enumerate(bins):
        if count and seen + count >= wanted:
            low = BORDERS[number - 1] if number else 0.0
            if number == len(BORDERS):
                return low
            return low + (BORDERS[number] - low) * (wanted - seen) / count
        seen += count
    return BORDERS[-1]
