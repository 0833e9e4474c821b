"""
Plans of other libraries, to be imported: each source is a module with TITLE and read().

read(options) returns what it found; it raises Unavailable where there is
nothing to read. No library is imported before that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any

from django.conf import settings
from django.utils import timezone

from django_bgtasks.timetables import zone_of


class Unavailable(Exception):
    """There is nothing to read: the library, its app or its setting is missing."""


@dataclass(slots=True)
class Found:
    """One schedule of another library."""

    name: str
    #: What the library calls the task.
    task: str
    #: When it was due, as a person would read it there.
    was: str = ""
    #: What timetables.read() understands; None if problem says why not.
    when: str | timedelta | datetime | None = None
    #: Options of Specification.of().
    options: dict[str, Any] = field(default_factory=dict)
    #: What gets lost, or is different from now on.
    notes: list[str] = field(default_factory=list)
    #: Why it can't be mapped.
    problem: str = ""
    #: Why there is nothing to map.
    over: str = ""


def aware(moment: datetime, zone: str | None = None) -> datetime:
    """Return a moment of a project with or without USE_TZ as an aware one, in whole seconds."""
    if timezone.is_naive(moment):
        moment = moment.replace(tzinfo=zone_of(zone or settings.TIME_ZONE))
    return moment.replace(microsecond=0)


def zone_name(zone: tzinfo | str | None) -> str:
    """Return the name of a zone; TIME_ZONE for what has none, such as the machine's own."""
    if isinstance(zone, str):
        return zone
    for attribute in ("key", "zone"):  # zoneinfo, pytz
        if name := getattr(zone, attribute, None):
            return str(name)
    return "UTC" if str(zone) == "UTC" else str(settings.TIME_ZONE)
