"""
From Celery's crontab to an expression of cron.

They differ in three ways. In Celery the day of the month and the weekday must
both match, where cron takes either. Its ranges may wrap around the end in any
field, and names are longer. What can't be said in cron is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS = (
    range(60),
    range(24),
    range(1, 32),
    range(1, 13),
    range(7),
)
_FIELDS = (MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS)

#: What means the same in both.
_COMMON = re.compile(r"\*(/\d+)?|\d+(-\d+(/\d+)?)?(,\d+(-\d+(/\d+)?)?)*")


class NoExpression(ValueError):
    """No expression of cron says this."""


def expression_of(texts: Sequence[Any], values: Sequence[Collection[int]]) -> str:
    """
    Return the expression for a crontab of Celery's.

    texts are its five fields as they were written, in the order of cron; values
    what Celery made of them. Raise NoExpression.
    """
    given = [
        _field(text, found, span) for text, found, span in zip(texts, values, _FIELDS, strict=True)
    ]
    days, weekdays = set(values[2]), set(values[4])
    if days == set(DAYS):
        given[2] = "*"
    if weekdays == set(WEEKDAYS):
        given[4] = "*"
    if given[2] != "*" and given[4] != "*":
        given[2], given[4] = _both(days, weekdays)
    return " ".join(given)


def _field(text: Any, found: Collection[int], span: range) -> str:
    """Return a field as it was written if cron reads it so, else what it stands for."""
    if isinstance(text, str) and _COMMON.fullmatch(text):
        ends = [part.partition("/")[0].split("-") for part in text.split(",")]
        if all(int(low) <= int(high) for low, high in (e for e in ends if len(e) == 2)):
            return "*" if text == "*/1" else text
    return _listed(found)


def _both(days: set[int], weekdays: set[int]) -> tuple[str, str]:
    """Return a day of the month and a weekday of which both must match."""
    weeks = [number for number in range(1, 6) if _week(number) <= days]
    if days == set().union(*map(_week, weeks)):
        # The 1st to the 7th and Monday: the first Monday.
        return "*", ",".join(f"{day}#{week}" for week in weeks for day in sorted(weekdays))
    # In cron a day that begins with a star must match, too.
    for step in range(2, len(DAYS)):
        if days == set(DAYS[::step]):
            return f"*/{step}", _listed(weekdays)
    for step in range(2, len(WEEKDAYS)):
        if weekdays == set(WEEKDAYS[::step]):
            return _listed(days), f"*/{step}"
    raise NoExpression(
        "Celery wants the day of the month and the weekday to match, and cron only one of them. "
        "Let the task look at the date, or make it several schedules."
    )


def _week(number: int) -> set[int]:
    """Return the days of the month that are the first, second, ... of their weekday."""
    return set(DAYS[7 * (number - 1) : 7 * number])


def _listed(found: Collection[int]) -> str:
    return ",".join(_ranges(sorted(found)))


def _ranges(values: list[int]) -> Iterator[str]:
    """Yield numbers, and ranges of three or more: 1, 3-5."""
    start = 0
    for index, value in enumerate(values):
        if index + 1 < len(values) and values[index + 1] == value + 1:
            continue
        run = values[start : index + 1]
        if len(run) > 2:
            yield f"{run[0]}-{run[-1]}"
        else:
            yield from map(str, run)
        start = index + 1
