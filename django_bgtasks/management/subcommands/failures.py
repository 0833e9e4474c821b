"""manage.py bgtasks failures."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_bgtasks import failures, queues
from django_bgtasks.management.commands.runworker import CONFIGURATION, our_backend, seconds
from django_bgtasks.models import FailureGroup
from django_bgtasks.observability.logs import safe

from .pause import operator

HELP = "Show failures by cause: the most frequent first."

#: Digits of a fingerprint that are enough to mean it, and those that are shown.
ENOUGH, SHOWN = 6, 12
#: Days for which hours are counted.
MOST_DAYS = 7


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--since", type=_hours, default=24, metavar="TIME", help="Such as 6h or 7d. Default: 24h."
    )
    parser.add_argument("--limit", type=int, default=20, help="Causes at most. Default: 20.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    parser.add_argument("--backend", help="Alias in TASKS. Without: all of ours.")
    acts = parser.add_mutually_exclusive_group()
    acts.add_argument("--acknowledge", metavar="CAUSE", help="Write down that you know of it.")
    acts.add_argument(
        "--mute", nargs=2, metavar=("CAUSE", "TIME"), help="Leave it out for so long, such as 1d."
    )
    acts.add_argument("--reopen", metavar="CAUSE", help="Take an acknowledgement or a mute back.")
    parser.add_argument("--note", default="", help="With --acknowledge: what you know.")


def run(command: BaseCommand, **options: Any) -> None:
    aliases = (
        [our_backend(options["backend"]).database] if options["backend"] else queues.databases()
    )
    if options["acknowledge"]:
        group = _found(options["acknowledge"], aliases)
        failures.acknowledge(_alias(group), group.pk, by=operator(), note=options["note"])
        command.stdout.write(f"{_name(group)} is acknowledged.")
    elif options["mute"]:
        term, length = options["mute"]
        try:
            muted_for = seconds(length)
        except ArgumentTypeError as error:
            raise CommandError(str(error), returncode=CONFIGURATION) from None
        group = _found(term, aliases)
        failures.mute(_alias(group), group.pk, muted_for)
        command.stdout.write(f"{_name(group)} is muted for {length}.")
    elif options["reopen"]:
        group = _found(options["reopen"], aliases)
        changed = failures.reopen(_alias(group), group.pk)
        command.stdout.write(f"{_name(group)} {'is open again' if changed else 'was open'}.")
    else:
        _show(command, aliases, options)


def _show(command: BaseCommand, aliases: list[str], options: dict[str, Any]) -> None:
    hours, limit = options["since"], max(1, options["limit"])
    found = {alias: failures.top(alias, hours=hours, limit=limit) for alias in aliases}
    causes = sorted(
        (cause for top in found.values() for cause in top.open), key=lambda cause: -cause.count
    )[:limit]
    muted = sum(top.muted for top in found.values())
    if options["json"]:
        shown = [_facts(cause) for cause in causes]
        command.stdout.write(
            json.dumps({"hours": hours, "causes": shown, "muted": muted}, indent=2)
        )
        return
    if not causes:
        command.stdout.write(f"No failures in the last {hours} hours.")
    for line in _lines(causes):
        command.stdout.write(line)
    if muted:
        command.stdout.write(f"{muted} muted.")


def _lines(causes: list[failures.Cause]) -> Iterator[str]:
    if not causes:
        return
    rows = [("count", "total", "last (UTC)", "state", "cause", "")]
    for cause in causes:
        group = cause.group
        rows.append(
            (
                f"{cause.count:,}",
                f"{group.total:,}",
                f"{group.last_seen:%Y-%m-%d %H:%M}",
                cause.state.value,
                group.pk[:SHOWN],
                safe(f"{group.exception_name} in {group.task_path}: {group.message}"),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[:2], widths, strict=False)]
        words = [cell.ljust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join([*numbers, *words]).rstrip()


def _facts(cause: failures.Cause) -> dict[str, Any]:
    group = cause.group
    return {
        "database": _alias(group),
        "cause": group.pk,
        "exception": group.exception_class,
        "message": group.message,
        "task": group.task_path,
        "count": cause.count,
        "total": group.total,
        "by_hour": list(cause.hours),
        "first_seen": group.first_seen.isoformat(),
        "last_seen": group.last_seen.isoformat(),
        "state": cause.state.value,
        "acknowledged_by": group.acknowledged_by,
        "note": group.note,
    }


def _found(term: str, aliases: list[str]) -> FailureGroup:
    """Return the one cause that begins with term. Raise CommandError."""
    if len(term) < ENOUGH or not term.isalnum():
        raise CommandError(
            f"{safe(term)!r} is no cause. Give its first {ENOUGH} digits or more, as "
            "manage.py bgtasks failures shows them.",
            returncode=CONFIGURATION,
        )
    found = [
        group
        for alias in aliases
        for group in FailureGroup.objects.using(alias)
        .filter(pk__startswith=term)
        .defer("traceback")[:2]
    ]
    if len(found) != 1:
        why = "Several causes begin with" if found else "No cause begins with"
        raise CommandError(f"{why} {safe(term)!r}.", returncode=CONFIGURATION)
    return found[0]


def _alias(group: FailureGroup) -> str:
    return str(group._state.db)


def _name(group: FailureGroup) -> str:
    return safe(str(group))


def _hours(text: str) -> int:
    hours = math.ceil(seconds(text) / 3600)
    if not 1 <= hours <= MOST_DAYS * 24:
        raise ArgumentTypeError(f"{text!r} is not within an hour and {MOST_DAYS} days.")
    return hours
