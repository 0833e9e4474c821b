"""Pure: where `previous` stands among arguments, and how it is filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..exceptions import PreviousNotUsable
from .elements import Previous, Step

#: Where in the arguments: the index or name of one, then indexes and keys within it.
Path = list[Any]


def taken_out(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any], list[tuple[Path, Previous]]]:
    """Return the arguments with None for each `previous`, and where those stood."""
    found: list[tuple[Path, Previous]] = []
    own_args = [_without(value, [index], found) for index, value in enumerate(args)]
    own_kwargs = {name: _without(value, [name], found) for name, value in kwargs.items()}
    return own_args, own_kwargs, found


def _without(value: Any, path: Path, found: list[tuple[Path, Previous]]) -> Any:
    if isinstance(value, Step):
        value = value.result
    if isinstance(value, Previous):
        found.append((path, value))
        return None
    if type(value) is dict:
        return {key: _without(item, [*path, key], found) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_without(item, [*path, index], found) for index, item in enumerate(value)]
    return value


def put(args: list[Any], kwargs: dict[str, Any], path: Path, value: Any) -> None:
    """Put a value where taken_out() found a `previous`."""
    holder: Any = args if isinstance(path[0], int) else kwargs
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value


def looked_up(value: Any, keys: Sequence[Any], what: str, *, is_secret: bool = False) -> Any:
    """Return value[key][key]...; what says whose value it is. Raise PreviousNotUsable."""
    for index, key in enumerate(keys):
        try:
            if isinstance(value, str):
                raise TypeError
            value = value[key]
        except (KeyError, IndexError, TypeError):
            path = "previous" + "".join(f"[{k!r}]" for k in keys[: index + 1])
            found = "" if is_secret else f": it is {_described(value)}"
            raise PreviousNotUsable(f"{what}: there is no {path}{found}.") from None
    return value


def _described(value: Any) -> str:
    if isinstance(value, dict):
        names = ", ".join(repr(name) for name in list(value)[:10])
        return f"a dictionary with {names}" if names else "an empty dictionary"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
