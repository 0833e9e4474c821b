"""What is done to schedules that there are: sync, run, enable, disable, backfill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management.base import BaseCommand, CommandError

from django_bgtasks import queues
from django_bgtasks.backend import DatabaseBackend
from django_bgtasks.exceptions import DuplicateTask, InvalidSchedule
from django_bgtasks.management.commands.runworker import CONFIGURATION, our_backend
from django_bgtasks.models import Schedule
from django_bgtasks.observability.logs import safe
from django_bgtasks.schedules import by_hand
from django_bgtasks.schedules.sync import Changes, name_is_taken, specification_of, sync
from django_bgtasks.schedules.turn import has_the_key
from django_bgtasks.timetables import TimetableError

from ..explain import at_length
from ..pause import operator
from .common import (
    confirm,
    find,
    load_tasks,
    moment_of,
    plural,
    print_json,
    still_there,
    warn,
    zone_of_row,
)

#: A backfill of more runs asks first.
ASKED_FROM = 10
#: Due times of a backfill that are listed for people.
LISTED = 20


# sync


def synchronize(command: BaseCommand, options: dict[str, Any]) -> None:
    backends = [our_backend(options["backend"])] if options["backend"] else queues.backends()
    for backend in queues.backends():
        # Those of all: a module that one names may declare schedules of another.
        load_tasks(backend)
    done: list[tuple[DatabaseBackend, Changes]] = []
    for backend in backends:
        try:
            done.append((backend, sync(backend, dry_run=options["dry_run"])))
        except InvalidSchedule as error:
            raise CommandError(safe(error), returncode=CONFIGURATION) from None
    if options["json"]:
        print_json(
            command,
            [
                {"backend": backend.alias, "dry_run": options["dry_run"], **asdict(changes)}
                for backend, changes in done
            ],
        )
    else:
        for backend, changes in done:
            for line in _changes(changes, f"{backend.alias}: " if len(done) > 1 else ""):
                command.stdout.write(line)
        if options["dry_run"]:
            command.stderr.write("A dry run: nothing is changed.")
    taken = [(name, changes) for _, changes in done for name in changes.taken]
    for name, changes in taken:
        warn(command, name_is_taken(name, changes))
    if taken:
        raise SystemExit(1)


def _changes(changes: Changes, prefix: str) -> Iterator[str]:
    for verb in ("added", "changed", "removed", "taken"):
        for name in sorted(getattr(changes, verb)):
            yield f"{prefix}{verb:<8} {safe(name)}"
    if changes and changes.unchanged:
        yield f"{prefix}{plural(len(changes.unchanged), 'schedule')} unchanged."
    elif not changes:
        yield f"{prefix}Nothing to change: {plural(len(changes.unchanged), 'schedule')}."


# run, enable, disable, backfill


def run_now(command: BaseCommand, options: dict[str, Any]) -> None:
    row, alias = find(options)
    _check_work(row)
    try:
        with still_there():
            result = by_hand.run_now(row, by=operator(), alias=alias)
    except DuplicateTask as error:
        raise CommandError(safe(f"Schedule {row.name!r}: {error}"), returncode=1) from None
    if options["json"]:
        facts = {"name": row.name, "task_id": str(result.id), "created": result.created}
        print_json(command, facts)
    if not result.created:
        text = f"Schedule {row.name!r} is not run: {has_the_key(result.id)}"
        raise CommandError(safe(text), returncode=1)
    if not options["json"]:
        text = f"Task {result.id} of schedule {row.name!r} is enqueued. Its plan stays as it is."
        command.stdout.write(safe(text))


def _check_work(row: Schedule) -> None:
    """Refuse what can't be enqueued, with a sentence for each reason."""
    found = specification_of(row).problems()
    wrong = [found[key] for key in found if key in ("backend", "task", "queue_name", "args")]
    if wrong:
        raise CommandError(safe(f"Schedule {row.name!r}: {' '.join(wrong)}"), returncode=1)


def enable(command: BaseCommand, options: dict[str, Any]) -> None:
    row, alias = find(options)
    with still_there():
        changed = by_hand.set_enabled(row, True, alias=alias)
        row.refresh_from_db(using=alias)
    _say_enabled(command, row, changed, options)
    for sentence in specification_of(row).problems().values():
        warn(command, sentence)


def disable(command: BaseCommand, options: dict[str, Any]) -> None:
    row, alias = find(options)
    with still_there():
        changed = by_hand.set_enabled(row, False, alias=alias)
        row.refresh_from_db(using=alias)
    _say_enabled(command, row, changed, options)


def _say_enabled(
    command: BaseCommand, row: Schedule, changed: bool, options: dict[str, Any]
) -> None:
    zone, due = zone_of_row(row), row.next_due_at
    if options["json"]:
        facts = {"name": row.name, "enabled": row.enabled, "changed": changed}
        next_due_at = due and due.astimezone(zone).isoformat()
        print_json(command, facts | {"next_due_at": next_due_at})
        return
    state = "enabled" if row.enabled else "disabled"
    state = f"is {state}" if changed else f"was {state} already"
    text = f"Schedule {row.name!r} {state}."
    if row.enabled:
        text += f" Next run: {at_length(due, zone)}." if due else " It is never due again."
    elif changed:
        text += " What it has enqueued stays."
    command.stdout.write(safe(text))


def backfill(command: BaseCommand, options: dict[str, Any]) -> None:
    row, alias = find(options)
    zone = zone_of_row(row)
    start = moment_of("--from", options["from_time"], zone)
    end = moment_of("--to", options["to_time"], zone, last=True)
    _check_work(row)

    def backfill(*, dry_run: bool) -> by_hand.Backfill:
        try:
            return by_hand.backfill(row, start, end, by=operator(), dry_run=dry_run, alias=alias)
        except (by_hand.NotPossible, TimetableError) as error:
            raise CommandError(safe(error), returncode=CONFIGURATION) from None

    found = backfill(dry_run=True)
    if not options["dry_run"]:
        if len(found.due) > ASKED_FROM:
            confirm(f"Schedule {safe(row.name)!r} would run {len(found.due):,} times.", options)
        found = backfill(dry_run=False)
    if options["json"]:
        print_json(
            command,
            {
                "name": row.name,
                "dry_run": options["dry_run"],
                "in_turn": found.in_turn,
                "due": [due.astimezone(zone).isoformat() for due in found.due],
                "done": [due.astimezone(zone).isoformat() for due in found.done],
                "refused": {
                    due.astimezone(zone).isoformat(): why for due, why in found.refused.items()
                },
            },
        )
        _warn_of_refused(command, row, found, zone)
        return
    for due in found.due[:LISTED]:
        command.stdout.write(at_length(due, zone))
    if len(found.due) > LISTED:
        command.stdout.write(f"... and {len(found.due) - LISTED:,} more")
    if found.due or not found.refused:
        command.stderr.write(_backfilled(found, dry_run=options["dry_run"]))
    _warn_of_refused(command, row, found, zone)


def _warn_of_refused(
    command: BaseCommand, row: Schedule, found: by_hand.Backfill, zone: ZoneInfo
) -> None:
    """Say what was not run and why; raise CommandError if that is all there was."""
    if not found.refused:
        return
    if not found.due:
        why = next(iter(found.refused.values()))
        text = f"Schedule {row.name!r}: {why} Nothing was backfilled."
        raise CommandError(safe(text), returncode=1)
    for due, why in list(found.refused.items())[:LISTED]:
        warn(command, f"{at_length(due, zone)} is not run: {why}")
    if len(found.refused) > LISTED:
        warn(command, f"... and {len(found.refused) - LISTED:,} more")


def _backfilled(found: by_hand.Backfill, *, dry_run: bool) -> str:
    done = f" {plural(len(found.done), 'due time')} had run already." if found.done else ""
    if not found.due:
        return f"There is nothing to make up for.{done}"
    how = "one after another" if found.in_turn else "at once"
    if dry_run:
        text = f"{plural(len(found.due), 'run')} would be enqueued, {how}."
        return f"{text}{done} A dry run: nothing is changed."
    verb = "waits to run" if len(found.due) == 1 else "wait to run"
    return f"{plural(len(found.due), 'run')} {verb}, {how}.{done}"
