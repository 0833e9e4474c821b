"""manage.py bgtasks pause."""

from __future__ import annotations

import getpass
import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_bgtasks import queues
from django_bgtasks.management.commands.runworker import CONFIGURATION, our_backend

HELP = "Have workers take nothing more from a queue. What runs there finishes."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", help="The queue to pause.")
    parser.add_argument("--reason", default="", help="Why, for all who wonder later.")
    add_backend(parser)


def run(command: BaseCommand, **options: Any) -> None:
    name = options["queue"]
    with refused():
        database = database_of(options)
        changed = queues.pause(name, reason=options["reason"], by=operator(), database=database)
    if changed:
        command.stdout.write(
            f"Queue {name!r} is paused. To resume it, type: manage.py bgtasks resume {name}"
        )
    else:
        command.stdout.write(f"Queue {name!r} was paused already.{_since(name, database)}")


def _since(name: str, database: str | None) -> str:
    for row in queues.paused(database=database):
        if row.name == name and row.paused_at:
            by = f" by {row.paused_by}" if row.paused_by else ""
            why = f": {row.reason}" if row.reason else "."
            return f" Since {row.paused_at:%Y-%m-%d %H:%M} UTC{by}{why}"
    return ""


def add_backend(parser: ArgumentParser) -> None:
    """Add --backend to a command about a queue."""
    parser.add_argument(
        "--backend", help="Alias in TASKS. Without: the backend that has the queue."
    )


def database_of(options: dict[str, Any]) -> str | None:
    """Return the database of --backend, None if that is not given."""
    return our_backend(options["backend"]).database if options["backend"] else None


@contextmanager
def refused() -> Iterator[None]:
    """Make a wrong name of a queue the command's answer."""
    try:
        yield
    except queues.UnknownQueue as error:
        raise CommandError(str(error), returncode=CONFIGURATION) from None


def operator() -> str:
    """Return the operating system's name of who runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # A container may know numbers only.
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else ""
