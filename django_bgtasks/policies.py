"""
Pure: the options of a task that say what happens around a run.

checked() refuses nonsense when a module is imported, KeyTemplate makes keys of
arguments, Marks is what an enqueue writes down for the workers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from string import Formatter
from typing import Any

#: No duration is longer, in seconds: ten years.
LONGEST = 10 * 366 * 86_400.0
#: Characters of a key that are kept for people; keys are compared by their digests.
KEY_TEXT = 200
#: Tasks of one key that may run at once, at most; starts of a rate, too.
MOST = 1_000_000

_FIELD = re.compile(r"([A-Za-z_]\w*)((?:\[[^\[\]]+\])*)")
_STEP = re.compile(r"\[([^\[\]]+)\]")
_RATE = re.compile(r"\s*(\d+)\s*/\s*(\d*)\s*([a-z]+)\s*")
_UNITS = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86_400, "day": 86_400, "days": 86_400,
}  # fmt: skip


class BadOption(ValueError):
    """An option of @task or using() that can't be meant so: which, and why."""


class KeyNotMade(ValueError):
    """The arguments of a call hold nothing where a key template looks."""


def digest(*parts: str) -> str:
    """Return 32 hexadecimal digits for parts: databases compare texts in various ways."""
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def in_seconds(option: str, value: Any, *, zero: bool = False) -> float:
    """Return a duration in seconds. Raise BadOption unless it is one, and above 0 (or zero)."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not (0 <= value <= LONGEST) or (value == 0 and not zero):
        least = "at least" if zero else "more than"
        raise BadOption(
            f"{option} must be seconds or a timedelta, {least} 0 and at most ten years, "
            f"not {value!r}."
        )
    return float(value)


class KeyTemplate:
    """
    A text with arguments in braces: "feed:{feed_id}", "order:{order[id]}".

    parameters are the names that the function knows; others are refused, with
    the nearest as a suggestion.
    """

    __slots__ = ("_parts", "text")

    def __init__(self, option: str, text: Any, function: str, parameters: Sequence[str]) -> None:
        if not isinstance(text, str) or not text.strip():
            raise BadOption(f"{option} must be a text such as 'feed:{{feed_id}}', not {text!r}.")
        where = f"{option}={text!r}"
        try:
            pieces = list(Formatter().parse(text))
        except ValueError as error:
            raise BadOption(f"{where}: {error}.") from None
        self.text = text
        self._parts: list[tuple[str, str, tuple[str, ...]]] = []
        for literal, field, spec, conversion in pieces:
            if field is None:
                self._parts.append((literal, "", ()))
                continue
            found = _FIELD.fullmatch(field)
            if found is None or spec or conversion:
                raise BadOption(
                    f"{where}: {{{field}}} must be the name of an argument, such as {{feed_id}} "
                    "or {order[id]}, without attributes, conversions and formats."
                )
            name = found[1]
            if name not in parameters:
                close = get_close_matches(name, parameters, 1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise BadOption(f"{where}: {function}() has no argument {name!r}.{hint}")
            self._parts.append((literal, name, tuple(_STEP.findall(found[2]))))

    @property
    def names(self) -> list[str]:
        """The arguments that the template uses."""
        return [name for _, name, _ in self._parts if name]

    def values(self, arguments: Mapping[str, Any]) -> list[Any]:
        """Return what stands in the braces. Raise KeyNotMade."""
        return [_looked_up(name, steps, arguments) for _, name, steps in self._parts if name]

    def render(self, arguments: Mapping[str, Any], hidden: Collection[str] = ()) -> str:
        """Return the key of a call, for people without what is hidden. Raise KeyNotMade."""
        return "".join(
            literal
            + (
                ""
                if not name
                else "••••"
                if name in hidden
                else _as_text(_looked_up(name, steps, arguments))
            )
            for literal, name, steps in self._parts
        )


def _looked_up(name: str, steps: Iterable[str], arguments: Mapping[str, Any]) -> Any:
    value = arguments[name]
    for step in steps:
        try:
            value = value[int(step) if isinstance(value, list) else step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise KeyNotMade(f"argument {name!r} holds no {step!r}") from None
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many tasks of a key run at once, on all workers."""

    key: KeyTemplate
    most: int

    def mark(self, arguments: Mapping[str, Any], hidden: Collection[str] = ()) -> list[Any]:
        """Return what a row keeps: digest, text, most."""
        shown = self.key.render(arguments, hidden)[:KEY_TEXT]
        return [digest("limit", self.key.render(arguments)), shown, self.most]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most count starts in period seconds of a key, on all workers, burst at once."""

    key: KeyTemplate
    count: int
    period: float
    burst: int

    def mark(self, arguments: Mapping[str, Any], hidden: Collection[str] = ()) -> list[Any]:
        """Return what a row keeps: digest, text, seconds between starts, burst."""
        shown = self.key.render(arguments, hidden)[:KEY_TEXT]
        key = digest("rate", self.key.render(arguments))
        return [key, shown, self.period / self.count, self.burst]


def _whole(value: Any, *, at_most: int = MOST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= at_most


class Marks:
    """
    What an enqueue writes down of the policies of one task.

    of() returns a dictionary for the column options, under the key "marks":
    "unique": [digest, text], "concurrency" and "rate": as Concurrency.mark()
    and Rate.mark(), "fair": [digest, text]. Texts are for people: what is hidden
    is masked in them.
    """

    __slots__ = ("concurrency", "fair", "hidden", "rate", "scope", "unique")

    def __init__(
        self,
        scope: str,
        unique: KeyTemplate | None,
        concurrency: Concurrency | None,
        rate: Rate | None,
        fair: KeyTemplate | None,
        *,
        hidden: Collection[str] = (),
    ) -> None:
        self.hidden = hidden
        self.scope = scope
        self.unique = unique
        self.concurrency = concurrency
        self.rate = rate
        self.fair = fair

    def __bool__(self) -> bool:
        return any((self.unique, self.concurrency, self.rate, self.fair))

    def of(self, arguments: Mapping[str, Any], *, hide_all: bool = False) -> dict[str, Any]:
        """
        Return the marks of a call by the names of its arguments. Raise KeyNotMade.

        With hide_all the texts show no argument: they are encrypted elsewhere.
        """
        hidden = list(arguments) if hide_all else self.hidden
        marks: dict[str, Any] = {}
        if self.unique is not None:
            # Of the values and not of the text: "a:b", "c" is not "a", "b:c".
            values = json.dumps(self.unique.values(arguments), sort_keys=True)
            text = self.unique.render(arguments, hidden)[:KEY_TEXT]
            marks["unique"] = [digest("unique", self.scope, self.unique.text, values), text]
        if self.concurrency is not None:
            marks["concurrency"] = self.concurrency.mark(arguments, hidden)
        if self.rate is not None:
            marks["rate"] = self.rate.mark(arguments, hidden)
        if self.fair is not None:
            key = digest("fair", self.fair.render(arguments))[:16]
            marks["fair"] = [key, self.fair.render(arguments, hidden)[:KEY_TEXT]]
        return marks


def concurrency_of(value: Any, path: str, function: str, names: Sequence[str]) -> Concurrency:
    """Return concurrency=3 or ("partner:{partner}", 2) as a Concurrency. Raise BadOption."""
    key, most = (path, value) if not isinstance(value, list | tuple) else (*value, None)[:2]
    if (isinstance(value, list | tuple) and len(value) != 2) or not _whole(most):
        raise BadOption(
            "concurrency must be a number of tasks, or a key and a number such as "
            f"('partner:{{partner}}', 2), at least 1 and at most {MOST:,}, not {value!r}."
        )
    if key == path:
        return Concurrency(_constant(path), most)
    return Concurrency(KeyTemplate("concurrency", key, function, names), most)


def rate_of(value: Any, path: str, function: str, names: Sequence[str]) -> Rate:
    """Return "100/m", ("smtp", "100/m") or ("smtp", "100/m", 20) as a Rate. Raise BadOption."""
    parts = list(value) if isinstance(value, list | tuple) else [path, value]
    burst: Any = 1
    if len(parts) == 3:
        burst = parts.pop()
    found = _RATE.fullmatch(parts[1]) if len(parts) == 2 and isinstance(parts[1], str) else None
    if found is None or found[3] not in _UNITS or not _whole(int(found[1])) or not _whole(burst):
        raise BadOption(
            "rate must be such as '100/m', ('smtp', '100/m') or ('smtp', '100/m', 20) with the "
            "burst at the end; the units are s, m, h and d, and numbers are at least 1, "
            f"not {value!r}."
        )
    period = float(int(found[2] or 1) * _UNITS[found[3]])
    if not 0 < period <= LONGEST:
        raise BadOption(f"rate: the period must be above 0 and at most ten years, not {value!r}.")
    key = parts[0]
    template = _constant(path) if key == path else KeyTemplate("rate", key, function, names)
    return Rate(template, int(found[1]), period, burst)


def _constant(path: str) -> KeyTemplate:
    return KeyTemplate("concurrency", path, "", ())


_WHILE = ("running", "waiting")
_CONFLICT = ("return", "replace", "refuse")


def check_unique(given: Mapping[str, Any]) -> None:
    """Raise BadOption where the options about uniqueness contradict each other."""
    unique = given["unique"]
    if unique is None:
        for name in ("unique_while", "unique_for", "on_conflict"):
            if given[name] is not None:
                raise BadOption(f"{name} says nothing without unique='...'.")
        return
    during, period, conflict = (given[n] for n in ("unique_while", "unique_for", "on_conflict"))
    if during not in (None, *_WHILE):
        raise BadOption(f"unique_while must be 'running' or 'waiting', not {during!r}.")
    if conflict not in (None, *_CONFLICT):
        raise BadOption(f"on_conflict must be 'return', 'replace' or 'refuse', not {conflict!r}.")
    if period is not None and during is not None:
        raise BadOption("unique_for is a period, whatever the task does: leave unique_while out.")
    if conflict == "replace" and (period is not None or during == "running"):
        raise BadOption(
            "on_conflict='replace' replaces a task that waits: unique_while is 'waiting' then, "
            "and there is no unique_for."
        )


def unique_during(given: Mapping[str, Any]) -> str:
    """Return how long a key is taken: "waiting", "running" or "period"."""
    if given["unique_for"] is not None:
        return "period"
    if given["unique_while"] is not None:
        return str(given["unique_while"])
    return "waiting" if given["on_conflict"] == "replace" else "running"


def checked_labels(value: Any) -> dict[str, Any]:
    """Return labels. Raise BadOption unless they are texts with texts, numbers or booleans."""
    if not isinstance(value, Mapping) or not all(
        isinstance(k, str) and isinstance(v, str | int | float | bool) for k, v in value.items()
    ):
        raise BadOption(
            f"labels must be a dictionary of texts to texts, numbers or booleans, not {value!r}."
        )
    return dict(value)


def checked_names(option: str, value: Any, function: str, names: Sequence[str] | None) -> Any:
    """Return one or several names of arguments as a tuple; names None: any will do."""
    listed = (value,) if isinstance(value, str) else tuple(value)
    for name in listed:
        if not isinstance(name, str):
            raise BadOption(f"{option} must hold names of arguments, not {name!r}.")
        if names is not None and name not in names:
            close = get_close_matches(name, names, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise BadOption(f"{option}: {function}() has no argument {name!r}.{hint}")
    return listed


def checked_aliases(value: Any, own: str) -> tuple[str, ...]:
    """Return former paths of a task. Raise BadOption unless they are dotted paths."""
    listed = (value,) if isinstance(value, str) else tuple(value)
    for path in listed:
        if not isinstance(path, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path):
            raise BadOption(
                f"aliases must hold dotted paths such as 'shop.tasks.old_name', not {path!r}."
            )
        if path == own:
            raise BadOption(f"aliases: {path!r} is what the task is called now.")
    return listed
