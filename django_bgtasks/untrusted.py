"""Text that others have written, made fit to be read."""

from __future__ import annotations

import re
from typing import Any

# Controls, and what is invisible or turns the direction of the text around it.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: Any) -> str:
    """Return text with what can't be seen as \\uXXXX; not escaped for HTML."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))
