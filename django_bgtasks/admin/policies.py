"""The policies of one task in words: what @task says, and what .using() changed for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from string import Formatter
from typing import Any

from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models.record import TaskRecord
from ..policies import unique_during
from ..retries import names_of
from . import payload
from .display import duration, lines, moment, visible

#: The options that make a key unique.
_UNIQUE = ("unique", "unique_while", "unique_for", "on_conflict")
#: What retry_on says unless it is told otherwise.
_EVERY_EXCEPTION = ("builtins.Exception",)


class Policies:
    """
    The policies in force for row, as a viewer may see them.

    Keys are made of arguments: without may_see, and where an argument in them
    is hidden, their templates are shown.
    """

    def __init__(self, row: TaskRecord, now: datetime, *, may_see: bool) -> None:
        self._row = row
        self._now = now
        self._may_see = may_see
        self._task = payload.task_of(row)
        self._options = payload.mapping(row.options)
        self._marks = payload.mapping(self._options.get("marks"))

    def in_words(self) -> SafeString | str:
        """Return a line for each policy."""
        return lines(self._lines()) or "-"

    @property
    def max_attempts(self) -> int | None:
        """How often it may raise, None if that is known no more."""
        most = self._option("max_attempts")
        return most if isinstance(most, int) else None

    def _lines(self) -> list[str]:
        sentences: tuple[tuple[tuple[str, ...], Callable[[], str]], ...] = (
            (("max_attempts",), self._attempts),
            (("backoff",), self._pauses),
            (("retry_on", "give_up_on"), self._exceptions),
            (("on_lost",), self._on_lost),
            (("timeout", "grace"), self._timeout),
            (("expires",), self._expiry),
            (_UNIQUE, self._uniqueness),
            (("concurrency",), self._concurrency),
            (("rate",), self._rate),
            (("fair",), self._turns),
            (("atomic",), self._atomicity),
        )
        shown = []
        for names, sentence in sentences:
            try:
                words = sentence()
            except Exception:
                continue  # Whatever the row holds there: the page of a task must open.
            if words and any(name in self._options for name in names):
                words = format_html("{} {}", words, _("(Set by .using().)"))
            if words:
                shown.append(words)
        return shown

    def _option(self, name: str) -> Any:
        return self._options.get(name, getattr(self._task, name, None))

    # A sentence for each policy, "" for one that the task doesn't have

    def _attempts(self) -> str:
        most = self._option("max_attempts")
        if most is None:
            return ""
        return ngettext("At most %(count)d attempt.", "At most %(count)d attempts.", most) % {
            "count": most
        }

    def _pauses(self) -> str:
        backoff = self._option("backoff")
        if backoff is None or (self._option("max_attempts") or 1) == 1:
            return ""
        if callable(backoff):
            how = _("as a function says")
        elif backoff == "exponential":
            how = _("15 s, then twice as long each time, at most an hour")
        else:
            pauses = backoff if isinstance(backoff, list | tuple) else [backoff]
            how = ", ".join(duration(pause) for pause in pauses)
        return _("Pauses between attempts: %(pauses)s.") % {"pauses": how}

    def _exceptions(self) -> str:
        retry_on, give_up_on = (
            names_of(self._option(name) or ()) for name in ("retry_on", "give_up_on")
        )
        found = []
        if retry_on and retry_on != _EVERY_EXCEPTION:
            found.append(_("Another attempt after %(names)s alone.") % {"names": _list(retry_on)})
        if give_up_on:
            found.append(_("No other attempt after %(names)s.") % {"names": _list(give_up_on)})
        return visible(" ".join(found))

    def _on_lost(self) -> str:
        on_lost = self._option("on_lost")
        if on_lost == "fail":
            return _("If its process dies, it has failed.")
        return _("If its process dies, it runs again.") if on_lost == "retry" else ""

    def _timeout(self) -> str:
        timeout, grace = self._option("timeout"), self._option("grace")
        if timeout is None:
            return ""
        if grace is None:
            grace = getattr(payload.conf_of(self._row), "grace", None)
        words = {"timeout": duration(timeout), "grace": duration(grace)}
        if grace is None:
            return _("An attempt may take %(timeout)s.") % words
        return _("An attempt may take %(timeout)s, and %(grace)s more to end.") % words

    def _expiry(self) -> str:
        at = self._options.get("expires_at")
        if at is None:
            return ""
        when = moment(datetime.fromisoformat(at), self._now)
        return format_html(_("Expires at {}, unless it has started."), when)

    def _uniqueness(self) -> str:
        if "unique" not in self._marks:
            return ""
        given = {name: self._option(name) for name in _UNIQUE}
        during = unique_during(given)
        if during == "period":
            how_long = _("for %(time)s after it was enqueued") % {
                "time": duration(given["unique_for"])
            }
        elif during == "waiting":
            how_long = _("until it starts")
        else:
            how_long = _("until it ends")
        what = {
            "replace": _("Another one replaces its arguments."),
            "refuse": _("Another one is refused."),
        }.get(given["on_conflict"], _("Another one is not made."))
        unique = _("Unique by %(key)s, %(how_long)s.") % {
            "key": self._key("unique"),
            "how_long": how_long,
        }
        return f"{unique} {what}"

    def _concurrency(self) -> str:
        if "concurrency" not in self._marks:
            return ""
        most = self._marks["concurrency"][2]
        return ngettext(
            "At most %(count)d of %(key)s runs at once.",
            "At most %(count)d of %(key)s run at once.",
            most,
        ) % {"count": most, "key": self._key("concurrency")}

    def _rate(self) -> str:
        if "rate" not in self._marks:
            return ""
        _digest, _text, apart, burst = self._marks["rate"]
        words = {"key": self._key("rate"), "time": duration(apart), "burst": number_format(burst)}
        if burst > 1:
            return _("One of %(key)s starts each %(time)s, up to %(burst)s at once.") % words
        return _("One of %(key)s starts each %(time)s.") % words

    def _turns(self) -> str:
        if "fair" not in self._marks:
            return ""
        return _("Takes turns with others as %(key)s.") % {"key": self._key("fair")}

    def _atomicity(self) -> str:
        if not self._option("atomic"):
            return ""
        return _("Atomic: its work, its result and what it enqueues commit together.")

    # Keys

    def _key(self, kind: str) -> str:
        text, template = str(self._marks[kind][1]), self._template(kind)
        if text == template:  # No argument is in it.
            return visible(text)
        names = _names_in(template)
        if not names:  # The code has changed since.
            return payload.HIDDEN
        secret = payload.secret_names()
        hidden = any(
            secret.search(name)
            or payload.is_hidden(re.split(r"[.\[]", name)[0], self._task, secret)
            for name in names
        )
        return visible(template if hidden or not self._may_see else text)

    def _template(self, kind: str) -> str:
        value = self._option(kind)
        if kind in ("concurrency", "rate"):
            # A number or a rate alone is the task's own: its path is the key.
            own = getattr(self._task, "module_path", self._row.task_path)
            value = value[0] if isinstance(value, list | tuple) else own
        return value if isinstance(value, str) else ""

    def limit(self, digest: str) -> str:
        """Return the limit of a key of the task, "" if it has no such key."""
        for kind, sentence in (("concurrency", self._concurrency), ("rate", self._rate)):
            mark = self._marks.get(kind)
            if isinstance(mark, list) and digest and mark[:1] == [digest]:
                return sentence()
        return ""


def limit_in_words(row: TaskRecord, digest: str, now: datetime, *, may_see: bool) -> str:
    """Return the limit of a key of a task."""
    try:
        return Policies(row, now, may_see=may_see).limit(digest) or "-"
    except (TypeError, ValueError, LookupError):  # The row holds no such mark.
        return "-"


def _names_in(template: str) -> list[str]:
    """Return what stands in the braces of a key template."""
    try:
        return [name for _literal, name, _spec, _conversion in Formatter().parse(template) if name]
    except ValueError:
        return []


def _list(names: tuple[str, ...]) -> str:
    # What Python has itself is known by its name alone.
    return ", ".join(name.removeprefix("builtins.") for name in names)
