"""Schedules in words, in the active language: cron expressions by cron-descriptor."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cron_descriptor
from django.utils import formats
from django.utils.dates import MONTHS, WEEKDAYS
from django.utils.translation import get_language, ngettext, to_locale
from django.utils.translation import gettext as _

from ..cron import ALIASES
from ..timetables import CronTimetable, Interval, Once, TimetableError, read


def describe(when: str) -> str:
    """Return what a schedule's text says: "At 02:00, Monday through Friday"; else the text."""
    try:
        timetable = read(when)
    except TimetableError:
        return when
    if isinstance(timetable, Interval):
        return _interval(timetable)
    if isinstance(timetable, Once):
        at = formats.date_format(timetable.at, "DATETIME_FORMAT")
        zone = "" if timetable.is_local else " UTC"
        return _("Once, at %(moment)s") % {"moment": f"{at}{zone}"}
    assert isinstance(timetable, CronTimetable)
    expression = ALIASES.get(when.strip().lower(), timetable.text)
    return _cron(expression, get_language() or "en")


def _interval(timetable: Interval) -> str:
    seconds = int(timetable.every.total_seconds())
    weeks, days = 7 * 86_400, 86_400
    if seconds % weeks == 0:
        count = seconds // weeks
        return ngettext("Every week", "Every %(count)d weeks", count) % {"count": count}
    if seconds % days == 0:
        count = seconds // days
        return ngettext("Every day", "Every %(count)d days", count) % {"count": count}
    if seconds % 3600 == 0:
        count = seconds // 3600
        return ngettext("Every hour", "Every %(count)d hours", count) % {"count": count}
    if seconds % 60 == 0:
        count = seconds // 60
        return ngettext("Every minute", "Every %(count)d minutes", count) % {"count": count}
    return ngettext("Every second", "Every %(count)d seconds", seconds) % {"count": seconds}


@lru_cache(maxsize=2048)
def _cron(expression: str, language: str) -> str:
    try:
        options = cron_descriptor.Options(locale_code=_locale(language))
    except TypeError:  # cron-descriptor 1, which django-celery-beat 2.9 asks for.
        options = cron_descriptor.Options()
        options.locale_code = _locale(language)
    options.use_24hour_time_format = True

    def said(text: str) -> str:
        described: str = cron_descriptor.get_description(text, options)
        return described

    try:
        fields = expression.split()
        # Both days must match if one begins with a star; cron-descriptor says "or".
        if "*" in (fields[2], fields[4]):
            return _with_names(said(expression), language)
        # Both days must match if one begins with a star, else either one: cron-descriptor says
        # "or" by what the weekday looks like.
        if fields[2][0] == "*" or fields[4][0] == "*":
            return _with_names(_in_parts(fields, said), language)
        if "-" in fields[4]:
            return _with_names(_in_parts(fields, said, _("or")), language)
        return _with_names(said(expression), language)
    except Exception:  # Whatever it can't say: the dates beside it can't be wrong.
        return expression


def _in_parts(fields: list[str], said: Callable[[str], str], word: str = "") -> str:
    """Return what an expression says, with a comma and word between its days."""
    time = said(" ".join([*fields[:2], "*", "*", "*"]))
    text = time
    for place in (2, 4, 3):
        days = ["*", "*", "*"]
        days[place - 2] = fields[place]
        part = said(" ".join([*fields[:2], *days]))
        if not part.startswith(time):
            raise ValueError(f"{part!r} does not begin with {time!r}.")
        part = part[len(time) :]
        text += f", {word}{part.removeprefix(',')}" if word and place == 4 else part
    return text


#: The names of days and months in English, with Django's translations.
_NAMES = {
    **{calendar.day_name[number]: name for number, name in WEEKDAYS.items()},
    **{calendar.month_name[number]: name for number, name in MONTHS.items()},
}
_ANY_NAME = re.compile(rf"\b({'|'.join(_NAMES)})\b")


def _with_names(text: str, language: str) -> str:
    """Translate days and months, which cron-descriptor takes from the process' locale."""
    # Django's names stand alone; within a sentence few languages write them with a capital.
    capital = language.partition("-")[0] in ("en", "de")

    def translated(match: re.Match[str]) -> str:
        name = str(_NAMES[match[1]])
        return name if capital else name.lower()

    return _ANY_NAME.sub(translated, text)


def _locale(language: str) -> str:
    """Return the catalogue of cron-descriptor that is nearest to a language of Django."""
    wanted = to_locale(language)
    folder = Path(cron_descriptor.__file__).parent / "locale"
    there = sorted(path.stem for path in folder.glob("*.mo"))
    if wanted in there:
        return wanted
    first = wanted.partition("_")[0]
    same = [name for name in there if name.partition("_")[0] == first]
    # pt: pt_PT, and en: en_US.
    return next((n for n in same if n == f"{first}_{first.upper()}"), (same or ["en_US"])[0])
