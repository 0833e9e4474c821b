"""manage.py bgtasks explain: what a cron expression says, and when that is."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from django_bgtasks.management.commands.runworker import CONFIGURATION, positive
from django_bgtasks.observability.logs import safe
from django_bgtasks.schedules.clock_changes import clock_changes, upcoming
from django_bgtasks.schedules.words import describe
from django_bgtasks.timetables import TimetableError, read, zone_of

HELP = (
    "Say in words when something is due, and give the next times. Wrong expressions: exit code 2."
)

#: The most times that are listed.
MOST = 1000


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "when",
        nargs="+",
        metavar="WHEN",
        help="'0 2 * * 1-5', '@daily', 'every 15 minutes' or 'at 2027-01-01 08:00', in quotes.",
    )
    parser.add_argument(
        "--tz", metavar="ZONE", help="The zone whose clock counts. Without: TIME_ZONE."
    )
    parser.add_argument("-n", dest="count", type=count, default=5, help="How many times to list.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")


def count(text: str) -> int:
    """Return how many times to list."""
    number = positive(text)
    if number > MOST:
        raise ArgumentTypeError(f"{text!r} is more than {MOST}.")
    return number


def run(command: BaseCommand, **options: Any) -> None:
    words = options["when"]
    try:
        zone = zone_of(options["tz"] or settings.TIME_ZONE)
        timetable = read(" ".join(words))
    except TimetableError as error:
        hint = " Put it in quotes: a shell replaces *." if len(words) > 5 else ""
        raise CommandError(f"{safe(error)}{hint}", returncode=CONFIGURATION) from None
    now = timezone.now()
    due = upcoming(timetable, zone, now, options["count"])
    changes = list(clock_changes(timetable, zone, now))
    if options["json"]:
        command.stdout.write(
            json.dumps(
                {
                    "expression": timetable.text,
                    "time_zone": zone.key,
                    "description": describe(timetable.text),
                    "next": [moment_in_json(moment, zone, now) for moment in due],
                    "clock_changes": [
                        {"at": change.at.astimezone(zone).isoformat(), "text": change.text}
                        for change in changes
                    ],
                },
                indent=2,
            )
        )
        return
    command.stdout.write(describe(timetable.text))
    command.stdout.write(f"{timetable.text}, {zone.key}")
    command.stdout.write("")
    for moment in due:
        command.stdout.write(f"  {at_length(moment, zone)}  {relative(moment, now)}")
    if not due:
        command.stdout.write("  Never again.")
    if changes:
        command.stdout.write("")
        command.stdout.write("When the clocks change:")
        for change in changes:
            command.stdout.write(f"  {change.at.astimezone(zone):%a %Y-%m-%d}  {change.text}")


# Moments as text


def at_length(moment: datetime, zone: ZoneInfo) -> str:
    """Return "Mon 2026-06-01 02:00:00 +02:00"."""
    local = moment.astimezone(zone)
    return f"{local:%a %Y-%m-%d %H:%M:%S} {_offset(local)}"


def in_short(moment: datetime, zone: ZoneInfo) -> str:
    """Return "Mon 2026-06-01 02:00", with seconds if there are any."""
    local = moment.astimezone(zone)
    return f"{local:%a %Y-%m-%d %H:%M}{f':{local:%S}' if local.second else ''}"


def _offset(local: datetime) -> str:
    return local.isoformat()[-6:]


def relative(moment: datetime, now: datetime) -> str:
    """Return "in 5 hours" or "3 minutes ago"."""
    seconds = (moment - now).total_seconds()
    text = f"{abs(seconds):.0f} s"
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if abs(seconds) >= 2 * unit:
            text = f"{abs(seconds) / unit:.0f} {name}"
            break
    return f"in {text}" if seconds >= 0 else f"{text} ago"


def moment_in_json(moment: datetime, zone: ZoneInfo, now: datetime) -> dict[str, Any]:
    """Return a moment with all that a reader may want to know of it."""
    local = moment.astimezone(zone)
    return {
        "at": local.isoformat(),
        "utc": moment.astimezone(UTC).isoformat(),
        "offset": _offset(local),
        "in_seconds": round((moment - now).total_seconds(), 3),
    }
