"""The schedules of django-q2."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from django_bgtasks.timetables import TimetableError, zone_of
from django_bgtasks.timetables import read as timetable_of

from . import Found, Unavailable, aware

TITLE = "the tables of django-q2"

APP = "django_q"


def read(options: Mapping[str, Any]) -> list[Found]:
    """Return the schedules."""
    if not apps.is_installed(APP):
        raise Unavailable(
            f"{APP} is not in INSTALLED_APPS, so its tables can't be read. Import before you "
            "remove it."
        )
    conf = import_module("django_q.conf").Conf
    rows = apps.get_model(APP, "Schedule")._default_manager.order_by("pk")
    seen: Counter[str] = Counter()
    listed = []
    try:
        for row in rows:
            found = found_of(row, conf)
            seen[found.name] += 1
            if seen[found.name] > 1:
                # Here a name belongs to one schedule.
                found.notes.append(f"There are several {found.name!r}: this gets its number.")
                found.name = f"{found.name} ({row.pk})"
            listed.append(found)
    except DatabaseError as error:
        raise Unavailable(f"The tables of {APP} can't be read: {error}") from error
    return listed


def found_of(row: Any, conf: Any) -> Found:
    """Return one schedule. conf: what the settings of django-q2 say."""
    found = Found(row.name or row.func, row.func)
    # A cluster enqueues whether or not the last task has ended, and all that it missed.
    found.options |= {
        "tz": conf.TIME_ZONE or settings.TIME_ZONE,
        "overlap": "allow",
        "missed": "all" if conf.CATCH_UP else "once",
    }
    _read_when(found, row)
    _read_arguments(found, row)
    cluster = row.cluster or found.options.get("queue_name")
    if cluster and cluster != conf.CLUSTER_NAME:
        found.options["queue_name"] = cluster
        found.notes.append(f"Its cluster becomes the queue {cluster!r}.")
    else:
        found.options.pop("queue_name", None)
    if row.repeats > 0 and row.schedule_type != "O":
        found.options["max_runs"] = row.repeats
    if row.repeats == 0:
        found.over = "It has no repeats left."
    lost = [name for name in ("hook", "intended_date_kwarg") if getattr(row, name, None)]
    if lost:
        found.notes.append(f"Lost: {', '.join(lost)}.")
    return found


# When


def _read_when(found: Found, row: Any) -> None:
    kind = row.schedule_type
    found.was = row.get_schedule_type_display().lower()
    if row.next_run is None:
        if kind == "C":
            _read_cron(found, row.cron or "")
        else:
            found.over = "It has no next run."
        return
    due = aware(row.next_run, found.options["tz"])
    local = due.astimezone(zone_of(found.options["tz"]))
    found.was = f"{found.was}, next {local:%a %Y-%m-%d %H:%M:%S}"
    if kind == "O":
        found.when = due.astimezone(UTC)
    elif kind in ("I", "H", "BW"):
        minutes = {"I": row.minutes or 1, "H": 60, "BW": 14 * 24 * 60}[kind]
        if kind == "I":
            found.was = f"every {minutes} {found.was}"
        found.when = timedelta(minutes=minutes)
        found.options["start"] = due
        if kind == "BW" and local.utcoffset() != (local + timedelta(days=182)).utcoffset():
            found.notes.append("Counted in UTC: an hour off when the clocks have changed.")
    elif kind == "C":
        _read_cron(found, row.cron or "")
    elif kind in _EXPRESSIONS:
        found.when = _EXPRESSIONS[kind](found, local)
        if local.second:
            found.notes.append(f"Lost: {local.second} s, since cron knows minutes.")
        _start(found, due.replace(second=0))
    else:
        found.problem = f"Its type {kind!r} is unknown."


def _start(found: Found, due: datetime) -> None:
    """Have nothing run before the next run, if something would."""
    timetable, zone = timetable_of(found.when), zone_of(found.options["tz"])
    first = timetable.after(timezone.now(), zone)
    if first is not None and first < due:
        found.options["start"] = due


def _daily(found: Found, due: datetime) -> str:
    return f"{due.minute} {due.hour} * * *"


def _weekly(found: Found, due: datetime) -> str:
    return f"{due.minute} {due.hour} * * {due.isoweekday() % 7}"


def _months(step: int) -> Callable[[Found, datetime], str]:
    """Return what makes an expression for every so many months."""

    def monthly(found: Found, due: datetime) -> str:
        day = str(due.day)
        if due.day == 31:
            day = "L"
            found.notes.append("The 31st becomes the last day of the month.")
        elif due.day > 28:
            found.notes.append(f"There is no run in a month without a day {due.day}.")
        months = sorted((due.month - 1 + add) % 12 + 1 for add in range(0, 12, step))
        listed = "*" if step == 1 else ",".join(map(str, months))
        return f"{due.minute} {due.hour} {day} {listed} *"

    return monthly


def _yearly(found: Found, due: datetime) -> str:
    if (due.month, due.day) == (2, 29):
        found.notes.append("There is a run in leap years only.")
    return f"{due.minute} {due.hour} {due.day} {due.month} *"


_EXPRESSIONS: dict[str, Callable[[Found, datetime], str]] = {
    "D": _daily,
    "W": _weekly,
    "M": _months(1),
    "BM": _months(2),
    "Q": _months(3),
    "Y": _yearly,
}


def _read_cron(found: Found, expression: str) -> None:
    found.was = f"{expression} ({found.options['tz']})"
    fields = expression.split()
    if len(fields) == 5 and not {fields[2], fields[4]} & {"*", "?"}:
        # Of a day of the month and a weekday croniter takes either, unless one is a star
        # alone; here a field that begins with a star must match.
        for index, span in ((2, "1-31"), (4, "0-6")):
            if fields[index].startswith("*/"):
                fields[index] = f"{span}{fields[index][1:]}"
    found.when = " ".join(fields)
    try:
        timetable_of(found.when)
    except TimetableError as error:
        found.problem = str(error)


# Arguments


def _read_arguments(found: Found, row: Any) -> None:
    try:
        args = _args(row.args or "")
        kwargs = _kwargs(row.kwargs or "")
    except (SyntaxError, ValueError, TypeError, AttributeError, IndexError) as error:
        found.problem = found.problem or f"Its arguments are no literals: {error}."
        return
    options = kwargs.pop("q_options", None)
    if isinstance(options, dict):
        cluster = options.pop("cluster", options.pop("broker_name", None))
        if cluster:
            found.options["queue_name"] = str(cluster)
        if options:
            found.notes.append(f"Lost: {', '.join(sorted(map(str, options)))} of q_options.")
    if args:
        found.options["args"] = args
    if kwargs:
        found.options["kwargs"] = kwargs


def _args(text: str) -> list[Any]:
    """Return what a cluster makes of "1, 2, 'John'"."""
    if not text.strip():
        return []
    value = ast.literal_eval(text.strip())
    return list(value) if isinstance(value, tuple) else [value]


def _kwargs(text: str) -> dict[str, Any]:
    """Return what a cluster makes of "x=1, name='John'", or of a dictionary."""
    if not text.strip():
        return {}
    try:
        value = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError):
        call: Any = ast.parse(f"f({text})", mode="eval").body
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    if not isinstance(value, dict):
        raise ValueError(f"{text} is no dictionary")
    return value
