"""
Who or what enqueued a task: written to its row's options, where it is known.

A task that is enqueued by another names it, one that is enqueued while a
request is answered its path and user (see middleware.py), one of a management
command the command. The rows of schedules say so themselves.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .context import running

Origin = Mapping[str, Any]

#: Characters that are kept of a name or a path.
LONGEST = 200
#: Commands that enqueue nothing for themselves: they answer requests, or run tasks and tests.
SERVING = frozenset({"bgtasks", "runserver", "runworker", "test", "testserver"})
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_asker: ContextVar[Callable[[], Origin | None] | None] = ContextVar(
    "django_bgtasks_origin", default=None
)


@contextmanager
def enqueued_by(describe: Callable[[], Origin | None]) -> Iterator[None]:
    """
    Have tasks that are enqueued in this block say what describe returns.

    It is called when a task is enqueued, and not before.
    """
    token = _asker.set(describe)
    try:
        yield
    finally:
        _asker.reset(token)


def known_origin() -> Origin | None:
    """Return what is known of who enqueues here, None where that is nothing."""
    # What a stand-in runs has no row, and is a part of the request around it.
    row, describe = getattr(running(), "row", None), _asker.get()
    if row is not None:
        return {"task": str(row.id)}
    return _COMMAND if describe is None else describe()


def storable(text: Any) -> str:
    """Return text as each database can store it, and not too long."""
    return _UNSTORABLE.sub("\ufffd", str(text))[:LONGEST]


def command_of(argv: Sequence[str]) -> Origin | None:
    """Return the origin of what the process with these arguments enqueues by itself."""
    program = os.path.basename(argv[0]) if argv else ""
    if program not in ("manage.py", "django-admin", "django-admin.py") or len(argv) < 2:
        return None
    name = argv[1]
    return None if name in SERVING or name.startswith("-") else {"command": storable(name)}


_COMMAND = command_of(sys.argv)
