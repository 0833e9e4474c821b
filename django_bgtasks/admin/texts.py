"""Parts of a task's page as plain text: as long as they are, secrets masked."""

from __future__ import annotations

import re
from typing import Any

from ..states import FinalStatus
from . import notes, payload
from .attempts import log_of
from .base import clock_of
from .timeline import attempts_of

#: The log of an attempt.
_LOG = re.compile(r"log-(\d{1,6})")


def text_of(row: Any, part: str) -> str | None:
    """
    Return a part of the page of row as plain text, None if it has none of this name.

    part is "arguments", "result", "log", or "log-2" for that of the second attempt.
    """
    try:
        if part == "arguments":
            args, kwargs = payload.opened_arguments(row)
            return payload.as_json(dict(payload.named_arguments(row, args, kwargs)))
        if part == "result" and row.status == FinalStatus.SUCCESSFUL:
            return payload.as_json(payload.redacted_value(row.return_value, row))
    except Exception:
        return payload.sealed()
    if part == "log":
        return notes.log(row) or None
    numbered = _LOG.fullmatch(part)
    places = dict(enumerate(attempts_of(row, clock_of(row)), 1)) if numbered else {}
    found = places.get(int(numbered[1])) if numbered else None
    return log_of(found.error or {}) or None if found else None
