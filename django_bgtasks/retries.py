"""Pure: whether an attempt that raised is followed by another one, and when."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .exceptions import RetryRequested, TaskTimeout

#: Seconds before the second attempt of an exponential backoff, and its bound.
EXPONENTIAL_BASE = 15.0
EXPONENTIAL_CAP = 3600.0
#: No pause is longer, in seconds: ten years. Much later times are none.
LONGEST = 10 * 366 * 86_400.0

Backoff = str | float | tuple[float, ...] | Callable[[int, BaseException], float]


def names_of(classes: Iterable[type[BaseException] | str]) -> tuple[str, ...]:
    """Return the dotted paths of exception classes; a path is taken as it is."""
    return tuple(
        item if isinstance(item, str) else f"{item.__module__}.{item.__qualname__}"
        for item in classes
    )


def matches(exception: BaseException, names: Iterable[str]) -> bool:
    """
    Say whether exception is an instance of one of the classes named.

    Compare names and import nothing: a name may come from a row.
    """
    own = names_of(type(exception).__mro__)
    return any(name in own for name in names)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What @task says about another attempt."""

    max_attempts: int = 1
    backoff: Backoff = "exponential"
    retry_on: tuple[str, ...] = ("builtins.Exception",)
    give_up_on: tuple[str, ...] = ()

    def delay(
        self,
        failures: int,
        exception: BaseException,
        *,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> float | None:
        """
        Return the seconds until the next attempt, None to give up.

        failures counts the attempts that raised, this one included.

        An exponential backoff draws between half and the whole of 15 s, 30 s,
        60 s ... up to an hour, so that tasks that failed together don't come
        back together (AWS Architecture Blog, "Exponential Backoff And
        Jitter", there called equal jitter).
        """
        if failures >= self.max_attempts or matches(exception, self.give_up_on):
            return None
        if isinstance(exception, RetryRequested):
            if exception.delay is not None:
                return exception.delay
        elif isinstance(exception, TaskTimeout) and "builtins.Exception" in self.retry_on:
            pass  # Time is up as often by chance as anything else goes wrong.
        elif not matches(exception, self.retry_on):
            return None
        backoff = self.backoff
        if callable(backoff):
            return min(max(0.0, float(backoff(failures, exception))), LONGEST)
        if isinstance(backoff, str):
            bound = min(EXPONENTIAL_BASE * 2.0 ** min(failures - 1, 20), EXPONENTIAL_CAP)
            return jitter(bound / 2, bound)
        if isinstance(backoff, tuple):
            return backoff[min(failures, len(backoff)) - 1]
        return backoff


def checked_backoff(value: Any) -> Backoff:
    """
    Return value as a Backoff.

    Raise ValueError unless it is "exponential", seconds, a list of seconds,
    or a function of attempt and exception.
    """
    if value == "exponential" or callable(value):
        return value
    if _is_pause(value):
        return float(value)
    if isinstance(value, list | tuple) and value and all(map(_is_pause, value)):
        return tuple(float(item) for item in value)
    raise ValueError(
        'backoff must be "exponential", seconds, a list of seconds, or a function of '
        f"the number of failures and the exception, not {value!r}."
    )


def _is_pause(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST
