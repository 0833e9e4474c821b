"""Times, durations and untrusted text as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from .. import untrusted

#: Characters of one untrusted text that a page has room for, unless it is a block.
ROOM = 10_000


def visible(text: Any) -> str:
    """Return untrusted text with what can't be seen as \\uXXXX, at most ROOM characters of it."""
    return cut(str(text), most=ROOM)


def cut(text: str, *, most: int = 2_000) -> str:
    """Return untrusted text as far as a page has room for it; not escaped for HTML."""
    shown = untrusted.visible(text[: most + 1])
    return shown if len(text) <= most else f"{shown[:most]}…"


def _unbroken(text: str) -> str:
    """Return text as one word for a column that is narrow."""
    return text.replace(" ", "\xa0")


def duration(seconds: float | None) -> str:
    """Return seconds as "850 ms", "12.4 s", "3 min 12 s", "2 h 10 min" or "3 d 4 h"."""
    return "-" if seconds is None else _unbroken(_duration(max(seconds, 0.0)))


def _duration(seconds: float) -> str:
    if seconds < 0.9995:
        if seconds < 0.001:
            return _("under 1 ms")
        return _("%(number)s ms") % {"number": number_format(round(seconds * 1000))}
    if seconds < 59.95:
        return _("%(number)s s") % {"number": number_format(round(seconds, 1), 1)}
    whole = round(seconds)
    if whole < 3_600:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": whole // 60, "seconds": whole % 60}
    if whole < 86_400:
        return _("%(hours)d h %(minutes)d min") % {
            "hours": whole // 3_600,
            "minutes": whole % 3_600 // 60,
        }
    return _("%(days)d d %(hours)d h") % {
        "days": whole // 86_400,
        "hours": whole % 86_400 // 3_600,
    }


def relative(value: datetime, now: datetime) -> str:
    """Return value as "3 min ago", "in 2 h" or "just now"."""
    seconds = round((now - value).total_seconds())
    if abs(seconds) < 2:
        return _unbroken(_("just now"))
    time = about(abs(seconds))
    return _unbroken((_("%(time)s ago") if seconds > 0 else _("in %(time)s")) % {"time": time})


def about(seconds: int) -> str:
    """Return seconds in their largest unit: "42 s", "3 min", "2 h", "4 d"."""
    if seconds < 90:
        return _("%(number)s s") % {"number": seconds}
    if seconds < 5_400:
        return _("%(number)s min") % {"number": round(seconds / 60)}
    if seconds < 129_600:
        return _("%(number)s h") % {"number": round(seconds / 3_600)}
    return _("%(number)s d") % {"number": round(seconds / 86_400)}


def moment(value: datetime | None, now: datetime) -> SafeString | str:
    """Return an aware datetime in the viewer's time zone, with its age."""
    if value is None:
        return "-"
    return format_html(
        '<time datetime="{}">{}</time> ({})',
        value.isoformat(),
        _absolute(value),
        relative(value, now),
    )


def short_moment(value: datetime | None, now: datetime) -> SafeString | str:
    """Return the age of an aware datetime, for lists: the rest is in the tooltip."""
    if value is None:
        return "-"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        _absolute(value),
        relative(value, now),
    )


def _absolute(value: datetime) -> str:
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    return date_format(local, "Y-m-d H:i:s")


def block(text: Any) -> SafeString:
    """Return untrusted text as it stands, its long lines wrapped."""
    # The attribute is an old one that browsers keep: a style would be refused by a strict
    # Content-Security-Policy, and on a telephone half of each line of a log is hidden.
    return format_html("<pre wrap>{}</pre>", untrusted.visible(text))


def preformatted(text: str, *, fold_at: int = 4096, cut_at: int = 100_000) -> SafeString:
    """
    Return untrusted text in a block; what is longer than fold_at stays folded.

    Of what is longer than cut_at only so many characters are there.
    """
    shown = block(text[:cut_at])
    if len(text) <= fold_at:
        return shown
    size = _("%(number)s characters") % {"number": number_format(len(text))}
    if len(text) > cut_at:
        note = _("The first %(number)s are shown.") % {"number": number_format(cut_at)}
        shown = format_html("{}<div>{}</div>", shown, note)
    return format_html("<details><summary>{}</summary>{}</details>", size, shown)


def lines(items: Iterable[Any]) -> SafeString:
    """Return items one below the other."""
    return format_html_join("", "<div>{}</div>", ((item,) for item in items))
