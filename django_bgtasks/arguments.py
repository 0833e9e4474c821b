"""
Pure: arguments and return values, checked and encoded as JSON.

What one of the databases can't store is refused on all of them, so that a
project may change its database (docs/databases.md has the table). Encoded
values are ASCII.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .exceptions import ArgumentsTooLarge, InvalidArguments

#: MariaDB's JSON_VALID refuses a depth of 32.
MAX_DEPTH = 30

_SCALARS = frozenset({str, int, bool, type(None)})
_encode = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
# NUL, and surrogates that are not half of a pair: PostgreSQL refuses both.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class NotJSON(Exception):
    """A value that can't be stored: where it is, what it is, what to do."""

    def __init__(self, path: tuple[Any, ...], what: str, advice: str) -> None:
        super().__init__(path, what, advice)
        self.path = path
        self.what = what
        self.advice = advice


def normalise(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """
    Return value made of what JSON knows: dict, list, str, int, float, bool, None.

    As Django's normalize_json does, make lists of tuples and decode bytes as
    UTF-8; refuse, besides, what a database refuses. Raise NotJSON.
    """
    kind = type(value)
    if kind is str:
        if _UNSTORABLE.search(value):
            raise NotJSON(path, "holds NUL or half a surrogate pair", "Clean the text first.")
        return value
    if kind in _SCALARS:
        if kind is int and value.bit_length() > 4096:
            raise NotJSON(path, "is an int of more than 1,200 digits", "Pass it as a string.")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise NotJSON(path, f"is {value!r}, which JSON can't hold", "Pass None.")
        return value
    # The list, or dictionary, of all arguments is one level more.
    if len(path) >= MAX_DEPTH:
        raise NotJSON(path[:1], f"is nested deeper than {MAX_DEPTH} levels", "Flatten it.")
    if kind is dict or isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if isinstance(key, bytes):
                key = normalise(key, path)
            if not isinstance(key, str):
                raise NotJSON(
                    path,
                    f"has the {type(key).__name__} {key!r} as a key, which JSON can't hold",
                    "Use strings as keys.",
                )
            result[normalise(key, path)] = normalise(item, (*path, key))
        return result
    if isinstance(value, bytes):
        try:
            return normalise(value.decode(), path)
        except UnicodeDecodeError:
            raise NotJSON(
                path, "is bytes that aren't UTF-8", "Pass base64.b64encode(value).decode()."
            ) from None
    if isinstance(value, str):
        return normalise(str.__str__(value), path)
    if isinstance(value, int):
        return normalise(int(value), path)
    if isinstance(value, float):
        return normalise(float(value), path)
    if isinstance(value, Sequence) and not isinstance(value, bytearray | memoryview | range):
        return [normalise(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, range):
        return list(value)
    raise NotJSON(path, *_described(value))


def _described(value: Any) -> tuple[str, str]:
    """Say what a value is that JSON can't hold, and what to pass instead."""
    meta = getattr(type(value), "_meta", None)
    if meta is not None and hasattr(value, "pk"):
        name = f"{meta.app_label}.{meta.object_name}"
        return f"is {_article(name)} {name}", ".pk"
    name = type(value).__name__
    advice = {
        "date": ".isoformat()",
        "datetime": ".isoformat()",
        "time": ".isoformat()",
        "timedelta": ".total_seconds()",
        "Decimal": "str()",
        "UUID": "str()",
        "PosixPath": "str()",
        "set": "list()",
        "frozenset": "list()",
        "QuerySet": "list of primary keys",
        "__proxy__": "str()",
    }.get(name, "")
    if name == "__proxy__":
        name = "lazy translation"
    return f"is {_article(name)} {name}, which JSON can't hold", advice


def _article(name: str) -> str:
    return "an" if name[:1] in "aeioAEIO" else "a"


def _advice(name: str, advice: str, verb: str) -> str:
    """Return the sentence that says what to do with the value called name."""
    if advice == ".pk":
        return f"{verb} {name}.pk and load it in the task."
    if advice.startswith("."):
        return f"{verb} {name}{advice}."
    if advice.endswith("()"):
        return f"{verb} {advice[:-1]}{name})."
    if advice.startswith("list of"):
        return f"{verb} a {advice}."
    return advice or f"{verb} strings, numbers, booleans, None, lists and dictionaries of them."


def _located(name: str, path: tuple[Any, ...]) -> str:
    return name + "".join(f"[{step!r}]" for step in path)


#: Hidden values of fewer characters are not looked for: they stand in any text.
SHORTEST_SECRET = 4
MASK = "••••"


def secrets_in(value: Any) -> list[str]:
    """Return the texts and numbers in a JSON value that are long enough to be told from others."""
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in secrets_in(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in secrets_in(item)]
    text = str(value)
    return [text] if len(text) >= SHORTEST_SECRET and not isinstance(value, bool | None) else []


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return text with each secret masked, also as repr(), JSON, bytes or one line show it."""
    forms = {
        form
        for secret in secrets
        for form in (
            secret,
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
            repr(secret.encode("utf-8", "surrogatepass"))[2:-1],
            " ".join(secret.split()),
        )
        if len(form) >= SHORTEST_SECRET
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def encode_result(what: str, value: Any, limit: int) -> str:
    """
    Return what a task or a step returned as JSON; what names it, such as "sum_up()".

    Raise ValueError with a text for the task's page if it can't be stored.
    """
    try:
        encoded = _encode(normalise(value))
    except NotJSON as problem:
        where = _located("value", problem.path)
        within = f" has, at {where}, one that" if problem.path else ""
        raise ValueError(
            f"{what} returned a value that{within} {problem.what}. "
            f"{_advice(where, problem.advice, 'Return')}"
        ) from None
    except RecursionError:
        raise ValueError(f"{what} returned a value that is nested too deeply.") from None
    if len(encoded) > limit:
        raise ValueError(
            f"{what} returned {len(encoded):,} bytes of JSON; at most {limit:,} are "
            "stored (OPTIONS['MAX_RESULT_SIZE']). Store the data and return its id."
        )
    return encoded


class Signature:
    """
    The parameters of a task's function, as the caller of enqueue sees them.

    bind() checks a call in a microsecond where the function has neither
    *args nor **kwargs nor positional-only parameters, and explains in the
    words of Python's own TypeError.
    """

    __slots__ = (
        "_context",
        "_named",
        "_required",
        "_signature",
        "_simple",
        "name",
        "positional",
    )

    def __init__(self, func: Callable[..., Any], *, takes_context: bool) -> None:
        self.name = func.__name__
        parameters = list(inspect.signature(func).parameters.values())
        # What **kwargs can't hold, since the context is passed under this name.
        self._context: str | None = None
        if takes_context:
            if parameters[0].kind is parameters[0].POSITIONAL_OR_KEYWORD:
                self._context = parameters[0].name
            parameters = parameters[1:]
        self._signature = inspect.Signature(parameters)
        kinds = {p.kind for p in parameters}
        self._simple = kinds <= {
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        }
        self.positional = tuple(
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)
        )
        self._named = frozenset(p.name for p in parameters)
        self._required = frozenset(
            p.name
            for p in parameters
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        )

    @property
    def names(self) -> list[str]:
        """The parameters that have a name of their own."""
        return [
            name
            for name, parameter in self._signature.parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]

    @property
    def takes_any(self) -> bool:
        """Whether there is a **kwargs."""
        return any(p.kind is p.VAR_KEYWORD for p in self._signature.parameters.values())

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of the parameters that need not be given."""
        parameters = self._signature.parameters.items()
        return {name: p.default for name, p in parameters if p.default is not p.empty}

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return all arguments of a call that fits by their names, defaults included."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise InvalidArguments unless the function can be called so."""
        if self._simple:
            given = {*self.positional[: len(args)], *kwargs}
            if (
                len(args) <= len(self.positional)
                and len(given) == len(args) + len(kwargs)
                and given <= self._named
                and given >= self._required
            ):
                return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(self._explained(args, kwargs, str(error))) from None
        if self._context in kwargs:
            raise InvalidArguments(
                f"{self.name}() got multiple values for argument {self._context!r}"
            )

    def bind_some(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise InvalidArguments unless the function can be called with these and others."""
        try:
            self._signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(f"{self.name}() {error}") from None

    def _explained(self, args: Sequence[Any], kwargs: Mapping[str, Any], otherwise: str) -> str:
        if not self._simple:
            return f"{self.name}() {otherwise}"
        positional = self.positional
        if len(args) > len(positional):
            takes = f"{len(positional)} positional argument{'s' * (len(positional) != 1)}"
            verb = "was" if len(args) == 1 else "were"
            return f"{self.name}() takes {takes} but {len(args)} {verb} given"
        for name in kwargs:
            if name not in self._named:
                return f"{self.name}() got an unexpected keyword argument {name!r}"
            if name in positional[: len(args)]:
                return f"{self.name}() got multiple values for argument {name!r}"
        missing = [
            repr(name)
            for name in self._signature.parameters
            if name in self._required and name not in kwargs and name not in positional[: len(args)]
        ]
        listed = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
        plural = "s" * (len(missing) != 1)
        return f"{self.name}() missing {len(missing)} required argument{plural}: {listed}"

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the arguments with their names, those of *args as *args[n]."""
        for index, value in enumerate(args):
            if index < len(self.positional):
                yield self.positional[index], value
            else:
                yield f"*args[{index - len(self.positional)}]", value
        yield from kwargs.items()

    def encode(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int
    ) -> tuple[list[Any], dict[str, Any], str, str]:
        """
        Return the arguments normalised, and as JSON.

        Raise InvalidArguments, which names the argument.
        """
        try:
            own_args = [normalise(value) for value in args]
            own_kwargs = {normalise(key): normalise(value) for key, value in kwargs.items()}
            encoded_args = _encode(own_args) if own_args else "[]"
            encoded_kwargs = _encode(own_kwargs) if own_kwargs else "{}"
        except (NotJSON, RecursionError, ValueError):
            raise self._culprit(args, kwargs) from None
        if len(encoded_args) + len(encoded_kwargs) > limit:
            raise self._too_large(args, kwargs, len(encoded_args) + len(encoded_kwargs), limit)
        return own_args, own_kwargs, encoded_args, encoded_kwargs

    def _culprit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> InvalidArguments:
        for name, value in self.named(args, kwargs):
            if _UNSTORABLE.search(name):
                return InvalidArguments(
                    f"{self.name}(): the name {name!r} of an argument holds NUL or half a "
                    "surrogate pair. Clean the text first."
                )
            try:
                _encode(normalise(value))
            except NotJSON as problem:
                where = _located(name, problem.path)
                return InvalidArguments(
                    f"{self.name}(): argument {where!r} {problem.what}. "
                    f"{_advice(where, problem.advice, 'Pass')}"
                    if not problem.path
                    else f"{self.name}(): argument {name!r} has, at {where}, a value that "
                    f"{problem.what}. {_advice(where, problem.advice, 'Pass')}"
                )
            except (RecursionError, ValueError) as problem:
                return InvalidArguments(f"{self.name}(): argument {name!r}: {problem}.")
        return InvalidArguments(f"{self.name}(): the arguments can't be stored as JSON.")

    def _too_large(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], size: int, limit: int
    ) -> ArgumentsTooLarge:
        sizes = [(len(_encode(normalise(value))), name) for name, value in self.named(args, kwargs)]
        largest, name = max(sizes)
        return ArgumentsTooLarge(
            f"{self.name}(): the arguments take {size:,} bytes as JSON; at most {limit:,} are "
            f"allowed (OPTIONS['MAX_ARGUMENT_SIZE']). The largest is {name!r} with {largest:,}. "
            "Store the data and pass its id."
        )
