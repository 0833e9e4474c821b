"""The options of each action."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django_bgtasks.management.commands.runworker import positive, seconds
from django_bgtasks.schedules.specification import MISSED, OVERLAP

from ..explain import count


def add_backend(parser: ArgumentParser, *, default: Any) -> None:
    parser.add_argument(
        "--backend", default=default, help="Alias in TASKS. Without: all of ours, or the only one."
    )


def add_json(parser: ArgumentParser, *, default: Any = SUPPRESS) -> None:
    parser.add_argument("--json", action="store_true", default=default, help="Print JSON.")


def add_list_options(parser: ArgumentParser, *, default: Any = SUPPRESS) -> None:
    add_json(parser, default=default)
    parser.add_argument(
        "--check",
        action="store_true",
        default=default,
        help="Exit code 1 if something is wrong with a schedule.",
    )


def add_name(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="The schedule's name.")


def add_dry_run(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="Say what would be done, do nothing."
    )


def add_yes(parser: ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="Don't ask.")


def add_sync_options(parser: ArgumentParser) -> None:
    add_dry_run(parser)
    add_json(parser)


def add_next_options(parser: ArgumentParser) -> None:
    add_name(parser)
    parser.add_argument("-n", dest="count", type=count, default=5, help="How many. Default: 5.")
    add_json(parser)


def add_name_and_json(parser: ArgumentParser) -> None:
    add_name(parser)
    add_json(parser)


def add_runs_options(parser: ArgumentParser) -> None:
    add_name(parser)
    parser.add_argument("-n", dest="count", type=count, default=20, help="How many. Default: 20.")
    add_json(parser)


def add_backfill_options(parser: ArgumentParser) -> None:
    add_name(parser)
    for option, text in (("from", "The first"), ("to", "The last")):
        parser.add_argument(
            f"--{option}",
            dest=f"{option}_time",
            metavar="TIME",
            required=True,
            help=f"{text} due time, such as '2026-06-01 02:00'. Without an offset: the "
            "schedule's zone.",
        )
    add_dry_run(parser)
    add_yes(parser)
    add_json(parser)


def add_add_options(parser: ArgumentParser) -> None:
    add_name(parser)
    parser.add_argument("--task", required=True, metavar="PATH", help="Such as shop.tasks.nightly.")
    parser.add_argument(
        "--when",
        required=True,
        help="'0 2 * * 1-5', '@daily', 'every 15 minutes' or 'at 2027-01-01 08:00'.",
    )
    parser.add_argument("--tz", metavar="ZONE", help="The zone whose clock counts. TIME_ZONE.")
    # Django takes what is called args for itself.
    for option, text in (("args", "A list."), ("kwargs", "An object.")):
        parser.add_argument(f"--{option}", dest=f"{option}_json", metavar="JSON", help=text)
    parser.add_argument("--queue", help="Instead of the task's own queue.")
    parser.add_argument("--priority", type=int, help="Instead of the task's own.")
    parser.add_argument("--missed", help=f"If a run is missed: {', '.join(MISSED)}. Default: once.")
    parser.add_argument(
        "--overlap", help=f"If the last run still goes: {', '.join(OVERLAP)}. Default: skip."
    )
    for option, text in (("start", "No run before"), ("end", "No run after")):
        parser.add_argument(
            f"--{option}",
            metavar="TIME",
            help=f"{text}. Without an offset: the schedule's zone.",
        )
    parser.add_argument("--max-runs", type=positive, metavar="N", help="So many runs, then none.")
    for option, text in (
        ("jitter", "Start each run up to so much later."),
        ("expires", "A run that has not started so long after its time is dropped."),
        ("success-within", "It is a problem if a run has not succeeded by then."),
    ):
        parser.add_argument(
            f"--{option}", type=seconds, metavar="TIME", help=f"{text} Such as 15m."
        )
    parser.add_argument("--disabled", action="store_true", help="Add it disabled.")
    add_json(parser)


def add_remove_options(parser: ArgumentParser) -> None:
    add_name(parser)
    add_yes(parser)
