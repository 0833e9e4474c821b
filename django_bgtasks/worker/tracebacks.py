"""Pure: exceptions as text that any database can store."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

#: Frames of these files stand above the task's own, and say nothing of it.
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep


def storable(text: str) -> str:
    """Return text with what a database refuses replaced by U+FFFD."""
    return (
        text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


Mask = Callable[[str], str]


def one_line(error: BaseException, limit: int = 200, *, mask: Mask = str) -> str:
    """Return class and message of an exception for a column of a list, masked before it is cut."""
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be shown)"
    message = " ".join(storable(mask(message)[: 2 * limit]).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def format_error(error: BaseException, limit: int, *, mask: Mask = str) -> str:
    """
    Return the traceback, masked, without our own frames and without its middle if it is too long.
    """
    try:
        tb = error.__traceback__
        while tb is not None and _is_ours(tb.tb_frame.f_code.co_filename):
            tb = tb.tb_next
        text = "".join(traceback.format_exception(type(error), error, tb or error.__traceback__))
    except BaseException as broken:
        text = (
            f"{type(error).__module__}.{type(error).__qualname__} (its traceback can't be "
            f"formatted: {type(broken).__name__})\n"
        )
    text = mask(text)
    if len(text) > limit:
        cut = f"\n… {len(text) - limit:,} characters left out …\n"
        half = max(0, limit - len(cut)) // 2
        text = f"{text[:half]}{cut}{text[-half:]}"
    return storable(text)


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS) or os.path.basename(filename) == "contextlib.py"
