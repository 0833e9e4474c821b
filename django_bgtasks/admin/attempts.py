"""What is told of each attempt of a task: how it went, where it raised, what it logged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from ..models.record import TaskRecord
from . import tracebacks
from .badges import BAD, OK, RUN, badge
from .display import cut, duration, moment, visible
from .timeline import attempts_of

#: Lines of a log that a page shows, the last ones, and characters of the line of an exception.
LINES, LINE = 200, 200
#: Characters of a log or a traceback that a page shows.
BLOCK = 100_000
#: Attempts that a page shows, the last ones.
ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Log:
    """The end of a log, and how many lines stand before it."""

    text: str
    before: int


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """
    One attempt for the page; place counts from 1, the oldest that is known.

    own and whole are its traceback without and with all frames, whole "" where
    they are the same.

    Of who may not see payload all but the class of the exception is kept.
    """

    place: str
    number: str
    badge: SafeString
    facts: str
    began: SafeString | str
    exception: str
    headline: str
    own: str
    whole: str
    frames: int
    log: Log | None
    is_open: bool

    @property
    def part(self) -> str:
        """The end of the address of its log."""
        return f"log-{self.place}"


def end_of(text: str) -> Log:
    """Return the last lines of a log."""
    lines = text.splitlines()
    return Log(cut("\n".join(lines[-LINES:]), most=BLOCK), max(0, len(lines) - LINES))


def log_of(error: dict[str, Any]) -> str:
    """Return what the attempt of an entry in errors has logged, "" if that is nothing."""
    return str(error.get("log") or "")


def shown_attempts(row: TaskRecord, now: datetime, *, may_see: bool) -> list[ShownAttempt]:
    """Return the last attempts, newest first; the last that went wrong is open."""
    words = {OK: _("Successful"), BAD: _("Failed"), RUN: _("Running")}
    found = []
    is_open = may_see
    for place, attempt in reversed(list(enumerate(attempts_of(row, now), 1))[-ATTEMPTS:]):
        error = attempt.error or {}
        text = error.get("traceback")
        read = tracebacks.read(text if isinstance(text, str) and may_see else "")
        exception = visible(error.get("exception_class_path") or "")
        took = ""
        if attempt.begin is not None and attempt.end is not None:
            took = duration((attempt.end - attempt.begin).total_seconds())
        word = words.get(attempt.color) or (_("Lost") if error else _("Ended"))
        log = log_of(error) if may_see else ""
        found.append(
            ShownAttempt(
                place=str(place),
                number=visible(attempt.number),
                badge=badge(attempt.color, word),
                facts=" · ".join(filter(None, (visible(attempt.worker), took))),
                began=moment(attempt.begin, now) if attempt.begin is not None else "",
                exception=exception,
                headline=_headline(read.message, exception),
                own=cut(read.own, most=BLOCK),
                whole=cut(read.text, most=BLOCK) if read.own != read.text else "",
                frames=read.frames,
                log=end_of(log) if log else None,
                is_open=is_open and bool(error),
            )
        )
        is_open = is_open and not error
    return found


def _headline(message: str, exception: str) -> str:
    """Return the line of an exception with its message, or its class alone."""
    name = exception.rpartition(".")[2]
    if not name or name not in message.partition(":")[0]:
        return name
    return Truncator(visible(message).removeprefix("builtins.")).chars(LINE)
