"""
Pure: what two failures have in common.

The task, the class of the exception, and the innermost functions of the
project that it came through, without line numbers: a deploy that moves a line
splits no group (after Sentry's grouping by in-app frames). Where no function of
the project is involved, the message without its numbers, ids and quotes.
"""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator
from types import FrameType
from typing import Any

#: Frames of the project that count, from the innermost.
FRAMES = 3
#: Characters of a message that are kept for display.
MESSAGE = 255

_OURS = os.path.dirname(__file__) + os.sep
_STANDARD = tuple(
    os.path.join(sysconfig.get_path(name), "")
    for name in ("stdlib", "platstdlib")
    if sysconfig.get_path(name)
)
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]")

_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.I), "<address>"),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.I), "<url>"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<mail>"),
    (re.compile(r"'(?:[^'\\]|\\.){1,200}'|\"(?:[^\"\\]|\\.){1,200}\""), "<text>"),
    (re.compile(r"(?<![\w<])(?:/[\w.@+-]+){2,}/?|\b[A-Z]:\\[^\s'\"]+"), "<path>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{12,}\b", re.I), "<id>"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "<n>"),
)


def normalised(message: str) -> str:
    """Return a message with what varies from failure to failure replaced, at most MESSAGE long."""
    text = " ".join(message[: 8 * MESSAGE].split())
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text if len(text) <= MESSAGE else f"{text[: MESSAGE - 1]}…"


def of_exception(task_path: str, error: BaseException) -> str:
    """Return the fingerprint of a failure, 32 hexadecimal digits."""
    cls = type(error)
    places = [f"{module}.{function}" for module, function in _project_frames(error)]
    if not places:
        try:
            message = str(error)
        except Exception:
            message = ""
        places = [normalised(message)]
    return of_words(task_path, f"{cls.__module__}.{cls.__qualname__}", *places)


def of_words(task_path: str, exception_class: str, *places: str) -> str:
    """Return the fingerprint of a failure that has no traceback, such as a lost process."""
    text = "\0".join((task_path, exception_class, *places))
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _project_frames(error: BaseException) -> list[tuple[str, str]]:
    """Return module and function of the innermost frames of the project, outermost first."""
    found = [
        (str(frame.f_globals.get("__name__", "")), frame.f_code.co_qualname)
        for frame in _frames(error)
        if is_of_project(frame.f_code.co_filename)
    ]
    return found[-FRAMES:]


def _frames(error: BaseException) -> Iterator[FrameType]:
    tb: Any = error.__traceback__
    while tb is not None:
        yield tb.tb_frame
        tb = tb.tb_next


def is_of_project(filename: str) -> bool:
    """Say whether a file is the project's own: not installed, not Python's, not ours."""
    if filename.startswith(("<", _OURS)) or _INSTALLED.search(filename):
        return False
    return not filename.startswith(_STANDARD)
