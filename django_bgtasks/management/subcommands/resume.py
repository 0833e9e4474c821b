"""manage.py bgtasks resume."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from django_bgtasks import queues

from .pause import add_backend, database_of, refused

HELP = "Have workers take from a paused queue again, at once."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", help="The queue to resume.")
    add_backend(parser)


def run(command: BaseCommand, **options: Any) -> None:
    name = options["queue"]
    with refused():
        changed = queues.resume(name, database=database_of(options))
    command.stdout.write(
        f"Queue {name!r} goes on." if changed else f"Queue {name!r} was not paused."
    )
