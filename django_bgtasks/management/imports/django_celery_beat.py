"""The tables of django-celery-beat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError

from . import Found, Unavailable, aware, celery_beat, zone_name

TITLE = "the tables of django-celery-beat"

APP = "django_celery_beat"


def read(options: Mapping[str, Any]) -> list[Found]:
    """Return the periodic tasks."""
    if not apps.is_installed(APP):
        raise Unavailable(
            f"{APP} is not in INSTALLED_APPS, so its tables can't be read. Import before you "
            "remove it."
        )
    rows = (
        apps.get_model(APP, "PeriodicTask")
        ._default_manager.select_related("interval", "crontab", "solar", "clocked")
        .order_by("name")
    )
    try:
        return [_found(row) for row in rows]
    except DatabaseError as error:
        raise Unavailable(f"The tables of {APP} can't be read: {error}") from error


def _found(row: Any) -> Found:
    found = Found(row.name, row.task)
    found.options["enabled"] = row.enabled
    _read_when(found, row)
    for column, kind in (("args", list), ("kwargs", dict)):
        try:
            value = json.loads(getattr(row, column) or "null")
        except ValueError as error:
            found.problem = found.problem or f"Its {column} are no JSON: {error}."
            continue
        if value is not None and not isinstance(value, kind):
            found.problem = found.problem or f"Its {column} are no JSON {kind.__name__}."
        elif value:
            found.options[column] = value
    celery_beat.read_options(
        found,
        {
            "queue": row.queue or None,
            "priority": row.priority,
            "expires": row.expires or row.expire_seconds,
            "exchange": row.exchange or None,
            "routing_key": row.routing_key or None,
            "headers": row.headers if row.headers not in ("", "{}") else None,
            "description": row.description or None,
        },
    )
    if row.one_off:
        if row.crontab or row.interval:
            found.options["max_runs"] = 1
        if row.total_run_count:
            found.over = "It was to run once, and has run."
    celery_beat.finish(found)
    return found


def _read_when(found: Found, row: Any) -> None:
    """Set when a periodic task is due; the first of its four columns counts, as in the library."""
    if row.interval:
        found.was = f"every {row.interval.every} {row.interval.period}"
        try:
            every = timedelta(**{row.interval.period: row.interval.every})
        except (OverflowError, TypeError) as error:
            found.problem = f"Its interval is none: {error}."
            return
        celery_beat.read_schedule(found, every, settings.TIME_ZONE)
        found.options["start"] = _anchor(row, every)
    elif row.crontab:
        if getattr(settings, "DJANGO_CELERY_BEAT_TZ_AWARE", True):
            zone = zone_name(row.crontab.timezone)
        else:
            zone = celery_beat.zone_of_settings()
        try:
            schedule = row.crontab.schedule
        except Exception as error:  # ValueError, ParseException
            found.was = f"{row.crontab}"
            found.problem = f"Celery refuses it, too: {error}"
            return
        celery_beat.read_schedule(found, schedule, zone)
        found.options["start"] = row.start_time and aware(row.start_time)
    elif row.solar:
        celery_beat.read_solar(found, row.solar.event, row.solar.latitude, row.solar.longitude)
    elif row.clocked:
        celery_beat.read_schedule(found, None, settings.TIME_ZONE)
        found.problem = ""
        celery_beat.read_moment(found, aware(row.clocked.clocked_time))
    else:
        found.problem = "It has no schedule."


def _anchor(row: Any, every: timedelta) -> datetime | None:
    """Return from when an interval is counted, so that it goes on where Beat stops."""
    start: datetime | None = row.start_time and aware(row.start_time)
    if row.last_run_at is None:
        return start
    following = aware(row.last_run_at) + every
    return following if start is None else max(start, following)
