"""Beat's dictionary: CELERY_BEAT_SCHEDULE in the settings, or app.conf.beat_schedule."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings

from django_bgtasks.compat import TASK_MAX_PRIORITY
from django_bgtasks.timetables import TimetableError
from django_bgtasks.timetables import read as timetable_of

from . import Found, Unavailable, aware, zone_name
from .crontabs import NoExpression, expression_of

TITLE = "Beat's dictionary, in the settings or of an app of Celery (--app)"

SETTINGS = ("CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE")
#: What Beat adds by itself.
CLEANUP = "celery.backend_cleanup"
_KEYS = {"task", "schedule", "args", "kwargs", "options", "relative"}


def read(options: Mapping[str, Any]) -> list[Found]:
    """Return the schedules of Beat's dictionary."""
    entries, zone = _of_app(options["app"]) if options.get("app") else _of_settings()
    return [found_of(str(name), entry, zone) for name, entry in entries.items()]


def _of_settings() -> tuple[Mapping[str, Any], str]:
    for name in SETTINGS:
        entries = getattr(settings, name, None)
        if entries:
            return entries, zone_of_settings()
    raise Unavailable(
        f"The settings have neither {SETTINGS[0]} nor {SETTINGS[1]}. If Beat's schedule belongs to "
        "an app of Celery, name that: --app proj.celery:app"
    )


def zone_of_settings() -> str:
    """Return the zone of Celery, as far as Django's settings say it."""
    if zone := getattr(settings, "CELERY_TIMEZONE", None):
        return zone_name(zone)
    return "UTC" if getattr(settings, "CELERY_ENABLE_UTC", True) else settings.TIME_ZONE


def _of_app(path: str) -> tuple[Mapping[str, Any], str]:
    try:
        find_app = import_module("celery.app.utils").find_app
    except ImportError:
        raise Unavailable("Celery is not installed: pip install celery") from None
    try:
        app = find_app(path)
        # As Beat does, for what is added with add_periodic_task().
        app.loader.init_worker()
        app.finalize()
        entries, zone = app.conf.beat_schedule, app.timezone
    except Exception as error:
        raise Unavailable(
            f"--app {path} can't be used: {type(error).__name__}: {error}. Write it like "
            "proj.celery:app"
        ) from error
    return entries, zone_name(zone)


# One entry


def found_of(name: str, entry: Any, zone: str) -> Found:
    """Return one entry of the dictionary."""
    if not isinstance(entry, Mapping) or not entry.get("task"):
        return Found(name, "-", problem="The entry is no dictionary with a task.")
    task = entry["task"]
    found = Found(name, str(getattr(task, "name", task)))
    read_schedule(found, entry.get("schedule"), zone)
    try:
        if entry.get("args"):
            found.options["args"] = list(entry["args"])
        if entry.get("kwargs"):
            found.options["kwargs"] = dict(entry["kwargs"])
        read_options(found, entry.get("options") or {})
    except (TypeError, ValueError, AttributeError) as error:
        found.problem = found.problem or f"Its arguments or options can't be read: {error}."
    if unknown := sorted(map(str, set(entry) - _KEYS)):
        found.notes.append(f"Lost: {', '.join(unknown)}.")
    finish(found)
    return found


def read_schedule(found: Found, schedule: Any, zone: str) -> None:
    """Set when a schedule of Celery is due, or the problem."""
    # Beat enqueues whether or not the last task has ended.
    found.options |= {"tz": zone, "overlap": "allow"}
    if isinstance(schedule, int | float) and not isinstance(schedule, bool):
        try:
            schedule = timedelta(seconds=schedule)
        except (OverflowError, ValueError):
            found.was, found.problem = f"every {schedule} s", "That is no interval."
            return
    if isinstance(schedule, timedelta):
        _read_interval(found, schedule)
        return
    try:
        schedules = import_module("celery.schedules")
    except ImportError:
        schedules = None
    kind = type(schedule)
    if schedules is not None and kind is schedules.schedule:
        _read_interval(found, schedule.run_every)
    elif kind.__name__ == "TzAwareCrontab":  # Of django-celery-beat.
        _read_crontab(found, schedule, zone_name(schedule.tz))
    elif schedules is not None and kind is schedules.crontab:
        _read_crontab(found, schedule, zone)
        if schedule.nowfun is not None:
            found.notes.append(f"Its nowfun is lost: the clock is that of {zone}.")
    elif kind.__name__ == "clocked":  # Of django-celery-beat.
        read_moment(found, aware(schedule.clocked_time))
    elif kind.__name__ == "solar":
        read_solar(found, schedule.event, schedule.lat, schedule.lon)
    else:
        found.was = kind.__name__
        found.problem = (
            f"Only its class, {kind.__module__}.{kind.__qualname__}, knows when it is due."
        )


def _read_interval(found: Found, every: timedelta) -> None:
    found.when = every
    try:
        found.was = timetable_of(every).text
    except TimetableError as error:
        found.was = f"every {every.total_seconds():g} s"
        found.problem = str(error)


def _read_crontab(found: Found, crontab: Any, zone: str) -> None:
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    texts = [getattr(crontab, f"_orig_{name}") for name in names]
    found.options["tz"] = zone
    found.was = f"{' '.join(map(_written, texts))} ({zone})"
    try:
        found.when = expression_of(texts, [getattr(crontab, name) for name in names])
    except NoExpression as error:
        found.problem = str(error)


def _written(text: Any) -> str:
    """Return a field of a crontab, which may be a collection of numbers."""
    if isinstance(text, str | int):
        return str(text).replace(" ", "")
    return ",".join(map(str, sorted(text)))


def read_moment(found: Found, moment: datetime) -> None:
    """Set that a schedule is due once."""
    found.was = f"once, {moment:%Y-%m-%d %H:%M:%S %Z}"
    found.when = moment.astimezone(UTC)


def read_solar(found: Found, event: Any, latitude: Any, longitude: Any) -> None:
    """Set that a schedule follows the sun."""
    found.was = f"{event} at {latitude}, {longitude}"
    found.problem = "Nothing here follows the sun. Take a fixed time, or enqueue it from a task."


def read_options(found: Found, options: Mapping[str, Any]) -> None:
    """Set what Celery's options of a message say; note what gets lost."""
    lost = []
    for key, value in options.items():
        if value is None or value == {}:
            continue
        if key == "queue":
            found.options["queue_name"] = str(getattr(value, "name", value))
        elif key == "priority":
            read_priority(found, value)
        elif key == "expires" and isinstance(value, datetime):
            found.options["end"] = aware(value)
        elif key == "expires" and isinstance(value, int | float | timedelta):
            found.options["expires"] = value
        else:
            lost.append(str(key))
    if lost:
        found.notes.append(f"Lost: {', '.join(sorted(lost))}.")


def read_priority(found: Found, priority: Any) -> None:
    """Set a priority; note that it may have meant the opposite."""
    try:
        number = int(priority)
    except (TypeError, ValueError):
        found.notes.append("Lost: priority.")
        return
    found.options["priority"] = most = min(number, TASK_MAX_PRIORITY)
    became = "" if most == number else f" becomes {most}"
    found.notes.append(
        f"Priority {number}{became}: here the highest number goes first, as with RabbitMQ, and "
        "not the lowest, as with Redis."
    )


def finish(found: Found) -> None:
    """Say of Beat's own entry that nobody needs it."""
    if found.task == CLEANUP:
        found.over = "Workers delete old results by themselves."
