"""manage.py bgtasks schedules: what is due when, how it went, and what people do about it."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from . import acting, arguments, listing, making
from .common import tables_needed

HELP = "Show the schedules: what is due when, how the last runs went, and what is wrong."


def add_arguments(parser: ArgumentParser) -> None:
    from django_bgtasks.management.commands.bgtasks import _add_common

    arguments.add_backend(parser, default=None)
    arguments.add_list_options(parser, default=False)
    parser.set_defaults(act=listing.show)
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", parser_class=CommandParser, title="actions"
    )
    for name, (act, text, add) in ACTIONS.items():
        action: ArgumentParser = actions.add_parser(name, help=text, description=text)
        add(action)
        # Without a default of its own: --backend may stand before the action, too.
        arguments.add_backend(action, default=SUPPRESS)
        action.set_defaults(act=act)
        _add_common(action)


def run(command: BaseCommand, **options: Any) -> None:
    with tables_needed():
        options.pop("act")(command, options)


#: What does it, a sentence about it, and what adds its options.
ACTIONS: dict[
    str,
    tuple[Callable[[BaseCommand, dict[str, Any]], None], str, Callable[[ArgumentParser], None]],
] = {
    "list": (
        listing.show,
        "List the schedules, and what is wrong with them.",
        arguments.add_list_options,
    ),
    "next": (
        listing.upcoming,
        "List the next runs of a schedule, on its clock.",
        arguments.add_next_options,
    ),
    "runs": (
        listing.runs,
        "List the last runs of a schedule, and what became of them.",
        arguments.add_runs_options,
    ),
    "run": (
        acting.run_now,
        "Enqueue the task of a schedule now. Its plan stays as it is.",
        arguments.add_name_and_json,
    ),
    "disable": (
        acting.disable,
        "Have a schedule pause, until it is enabled.",
        arguments.add_name_and_json,
    ),
    "enable": (
        acting.enable,
        "Have a schedule go on, from now.",
        arguments.add_name_and_json,
    ),
    "backfill": (
        acting.backfill,
        "Run the due times of a range that have not been run.",
        arguments.add_backfill_options,
    ),
    "add": (
        making.add,
        "Add a schedule, as in the admin.",
        arguments.add_add_options,
    ),
    "remove": (
        making.remove,
        "Delete a schedule that was added by hand.",
        arguments.add_remove_options,
    ),
    "sync": (
        acting.synchronize,
        "Make the schedules what code and settings declare, as a worker does when it starts.",
        arguments.add_sync_options,
    ),
}
