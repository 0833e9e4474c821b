"""Stored tracebacks for people: the project's own frames first."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

#: A frame, within whatever margin an exception group draws.
_FRAME = re.compile(r'^(?P<margin>[ |+]*?)  File "(?P<path>.+)", line \d+(?:, in .*)?$')
#: Where the code of others lies: installed packages, Python's own library, frozen modules.
_FOREIGN = re.compile(
    r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib(?:64)?[/\\]python\d|[/\\]Python\d+[/\\]lib[/\\]|^<",
    re.IGNORECASE,
)
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_HEADER = "Traceback (most recent call last):"


@dataclass(slots=True)
class Part:
    """Lines of a traceback: a frame, or with of is_frame False what stands between frames."""

    is_frame: bool
    foreign: bool = False
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Traceback:
    """
    A traceback as it is stored, and without the frames of others.

    Both are the same text where nothing is left out. message is the line of the
    last exception, "" if there is none to be found.
    """

    text: str
    own: str
    frames: int
    message: str


def read(text: str) -> Traceback:
    """Return what a stored text says; whatever it is, nothing raises."""
    parts = _parts(text)
    frames = [part for part in parts if part.is_frame]
    if frames and all(frame.foreign for frame in frames):
        # Where nothing is the project's own, it matters where it was raised.
        frames[-1].foreign = False
    own = text
    if any(frame.foreign for frame in frames):
        kept = [
            line
            for part in parts
            if not part.foreign
            for line in part.lines
            if part.is_frame or line.strip(" |+") != _HEADER
        ]
        own = "\n".join(kept).strip("\n")
    return Traceback(text, own, len(frames), _message(parts))


def _parts(text: str) -> list[Part]:
    parts = [Part(is_frame=False)]
    inner = ""
    for line in text.splitlines():
        frame = _FRAME.match(line)
        if frame is not None:
            path = frame["path"]
            foreign = bool(_FOREIGN.search(path)) or path.startswith(_OURS)
            parts.append(Part(True, foreign, [line]))
            inner = f"{frame['margin']}    "
        elif parts[-1].is_frame and (
            line.startswith(inner) or line.lstrip(" |").startswith("[Previous line repeated")
        ):
            parts[-1].lines.append(line)
        else:
            if parts[-1].is_frame:
                parts.append(Part(is_frame=False))
            parts[-1].lines.append(line)
    return parts


def _message(parts: list[Part]) -> str:
    for part in reversed(parts):
        if not part.is_frame:
            for line in part.lines:
                # A group ends in a line that is drawn.
                found = line.strip(" |+-")
                if found and found != _HEADER:
                    return found
    return ""
