"""What the actions share: to find a schedule, to read moments, to ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from django_bgtasks import queues, registry
from django_bgtasks.backend import DatabaseBackend
from django_bgtasks.conf import suggestion
from django_bgtasks.cron import first_instant
from django_bgtasks.db import is_missing_table
from django_bgtasks.exceptions import InvalidSchedule
from django_bgtasks.management.commands.runworker import (
    CONFIGURATION,
    NO_DATABASE,
    our_backend,
)
from django_bgtasks.models import Schedule
from django_bgtasks.observability.logs import safe
from django_bgtasks.schedules.by_hand import NotPossible
from django_bgtasks.timetables import TimetableError, zone_of

#: Characters of what was given that a complaint about it shows.
SHOWN = 200
#: Names that the answer to an unknown one lists.
NAMED = 20


@contextmanager
def tables_needed() -> Iterator[None]:
    """Make missing tables the command's answer."""
    try:
        yield
    except DatabaseError as error:
        if not is_missing_table(error):
            raise
        raise CommandError(
            "The bgtasks tables of schedules do not exist. Run: python manage.py migrate",
            returncode=NO_DATABASE,
        ) from error


@contextmanager
def still_there() -> Iterator[None]:
    """Make it the command's answer that somebody deleted the schedule meanwhile."""
    try:
        yield
    except (NotPossible, Schedule.DoesNotExist) as error:
        raise CommandError(safe(error), returncode=1) from None


def find(options: dict[str, Any]) -> tuple[Schedule, str]:
    """Return a schedule by its name, and the alias of its database."""
    name = options["name"]
    known: list[str] = []
    found: list[tuple[Schedule, str]] = []
    for alias, rows in rows_of(options):
        found += [(row, alias) for row in rows.filter(name=name)]
        known += rows.values_list("name", flat=True)
    if len(found) > 1:
        where = " and ".join(repr(alias) for _, alias in found)
        raise CommandError(
            f"Databases {where} each have a schedule {safe(name)!r}. Name one with --backend.",
            returncode=CONFIGURATION,
        )
    if not found:
        more = ", ..." if len(known) > NAMED else ""
        listed = f" Known: {', '.join(known[:NAMED])}{more}." if known else " There are none."
        raise CommandError(
            safe(f"Unknown schedule {name!r}.{suggestion(name, known)}{listed}"),
            returncode=CONFIGURATION,
        )
    return found[0]


def rows_of(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the alias of each database with its schedules, or with those of --backend."""
    if options["backend"]:
        backend = our_backend(options["backend"])
        rows = Schedule.objects.using(backend.database).order_by("name")
        yield backend.database, rows.filter(backend=backend.alias)
        return
    for alias in queues.databases():
        yield alias, Schedule.objects.using(alias).order_by("name")


def zone_of_row(row: Schedule) -> ZoneInfo:
    """Return the zone of a schedule; UTC if there is none of that name, which is shown anyway."""
    try:
        return zone_of(row.time_zone)
    except TimetableError:
        return ZoneInfo("UTC")


def load_tasks(backend: DatabaseBackend) -> None:
    """Import what has tasks, and with them the schedules in code."""
    try:
        registry.load_task_modules(backend.conf.task_modules)
    except InvalidSchedule as error:
        raise CommandError(safe(error), returncode=CONFIGURATION) from None
    except Exception as error:
        raise CommandError(
            f"The tasks could not be loaded: {type(error).__name__}: {error}", returncode=1
        ) from error


def moment_of(option: str, text: str, zone: ZoneInfo, *, last: bool = False) -> datetime:
    """
    Return a moment that was given: with an offset, or as a time of the zone's clock.

    A date stands for its first moment, or its last second; so does a time that
    comes twice for its first or last pass.
    """
    try:
        given = datetime.fromisoformat(text.strip())
        if given.tzinfo is not None:
            return given
        if last and len(text.strip()) <= len("2026-06-01"):
            given += timedelta(days=1, seconds=-1)
        instant = first_instant(given, zone)
        if last:
            instant = max(instant, given.replace(tzinfo=zone, fold=1).astimezone(UTC))
        # With a fixed offset: two moments of one zone would be compared by their clock times.
        return instant.astimezone(timezone(instant.astimezone(zone).utcoffset() or timedelta(0)))
    except (ValueError, OverflowError):
        raise CommandError(
            safe(f"{option}: {text!r} is no date with a time. Write it like '2026-06-01 02:00'."),
            returncode=CONFIGURATION,
        ) from None


def json_of(option: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except RecursionError:
        raise CommandError(f"{option} is nested too deeply.", returncode=CONFIGURATION) from None
    except ValueError as error:
        text = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
        raise CommandError(
            safe(f"{option} is no JSON: {text!r} ({error})."), returncode=CONFIGURATION
        ) from None


def confirm(question: str, options: dict[str, Any]) -> None:
    """Go on if --yes is given, or somebody at a terminal says so."""
    if options["yes"]:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Nobody can be asked: add --yes.", returncode=CONFIGURATION)
    try:
        answer = input(f"{question} Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing is changed.", returncode=1)


def print_json(command: BaseCommand, value: Any) -> None:
    command.stdout.write(json.dumps(value, indent=2, default=str))


def warn(command: BaseCommand, text: str) -> None:
    command.stderr.write(command.style.WARNING(safe(text)))


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
