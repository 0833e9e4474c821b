"""What there is: list, next, runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from django_bgtasks.models import Schedule
from django_bgtasks.models.schedule import RunKind
from django_bgtasks.observability.logs import duration, safe
from django_bgtasks.schedules import watching
from django_bgtasks.schedules.words import describe
from django_bgtasks.timetables import TimetableError

from ..explain import at_length, in_short, moment_in_json, relative
from ..queues import _table
from .common import find, plural, print_json, rows_of, zone_of_row

#: On a narrow terminal what a schedule says in words gets this at least.
NARROWEST = 20


def show(command: BaseCommand, options: dict[str, Any]) -> None:
    """List the schedules, and what is wrong with them."""
    facts: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    problems: list[watching.Problem] = []
    aliases = []
    for alias, rows in rows_of(options):
        aliases.append(alias)
        listed = list(rows)
        last = watching.last_of(listed, alias=alias)
        names = {row.name for row in listed}
        problems += [p for p in watching.problems(alias) if p.schedule in names]
        for row in listed:
            outcome = last.get(row.pk)
            facts.append(facts_of(row, alias, outcome))
            lines.append([alias, *_line(row, outcome)])
    if options["json"]:
        print_json(command, {"schedules": facts, "problems": [asdict(p) for p in problems]})
    elif lines:
        heads = [
            "database", "name", "when", "expression", "zone", "next", "last", "outcome", "enabled",
            "source",
        ]  # fmt: skip
        table = [heads, *lines]
        if len(aliases) == 1:
            table = [row[1:] for row in table]
        _narrow(table, table[0].index("when"))
        for line in _table(table, numbers=set()):
            command.stdout.write(line)
        if problems:
            command.stdout.write("\nProblems:")
        for problem in problems:
            command.stdout.write(safe(f"  {problem.text}"))
    else:
        command.stdout.write("There are no schedules yet.")
    if options["check"] and problems:
        raise SystemExit(1)


def _line(row: Schedule, outcome: watching.Outcome | None) -> list[str]:
    zone = zone_of_row(row)
    return [
        safe(row.name),
        safe(describe(row.expression)),
        safe(row.expression),
        safe(row.time_zone),
        in_short(row.next_due_at, zone) if row.next_due_at else "-",
        in_short(outcome.run.due_at, zone) if outcome else "-",
        _state(outcome) if outcome else "-",
        "yes" if row.enabled else "no",
        row.source,
    ]


def _state(outcome: watching.Outcome) -> str:
    return outcome.state.lower()


def facts_of(row: Schedule, alias: str, outcome: watching.Outcome | None) -> dict[str, Any]:
    zone = zone_of_row(row)
    return {
        "name": row.name,
        "description": describe(row.expression),
        "expression": row.expression,
        "time_zone": row.time_zone,
        "task": row.task_path,
        "next_due_at": row.next_due_at and row.next_due_at.astimezone(zone).isoformat(),
        "last_due_at": outcome and outcome.run.due_at.astimezone(zone).isoformat(),
        "last_outcome": outcome and outcome.state,
        "runs": row.runs,
        "enabled": row.enabled,
        "error": row.error,
        "source": row.source,
        "source_detail": row.source_detail,
        "backend": row.backend,
        "database": alias,
    }


def _narrow(table: list[list[str]], column: int) -> None:
    """Cut one column so that a table fits the terminal, if there is one."""
    if not sys.stdout.isatty():
        return
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
    if over > 0:
        width = max(NARROWEST, widths[column] - over)
        for row in table:
            if len(row[column]) > width:
                row[column] = f"{row[column][: width - 3]}..."


# next, runs


def upcoming(command: BaseCommand, options: dict[str, Any]) -> None:
    row, _ = find(options)
    zone, now = zone_of_row(row), timezone.now()
    try:
        due = row.upcoming(options["count"], after=None if row.enabled else now)
    except TimetableError as error:
        raise CommandError(safe(f"Schedule {row.name!r}: {error}"), returncode=1) from None
    if options["json"]:
        print_json(command, [moment_in_json(moment, zone, now) for moment in due])
    for moment in [] if options["json"] else due:
        command.stdout.write(f"{at_length(moment, zone)}  {relative(moment, now)}")
    for sentence in _why(row, due):
        command.stderr.write(safe(sentence))


def _why(row: Schedule, due: Sequence[datetime]) -> Iterator[str]:
    """Yield what one must know about the next runs."""
    if not row.enabled:
        yield f"Schedule {row.name!r} is disabled: none of these runs comes."
    if row.is_exhausted:
        yield f"Schedule {row.name!r} has run {plural(row.runs, 'time')}, and may not again."
    elif row.error:
        yield f"Schedule {row.name!r} can't be fired: {row.error}"
    elif not due:
        yield f"Schedule {row.name!r} is never due again."
    elif row.jitter:
        yield f"Each starts up to {duration(row.jitter)} later (jitter)."


def runs(command: BaseCommand, options: dict[str, Any]) -> None:
    row, alias = find(options)
    zone = zone_of_row(row)
    outcomes = watching.latest(row, options["count"], alias=alias)
    if options["json"]:
        print_json(command, [_run_facts(outcome, zone) for outcome in outcomes])
        return
    if not outcomes:
        command.stdout.write(f"Schedule {safe(row.name)!r} has not run yet.")
        return
    table = [["due", "why", "outcome", "drift", "took", "missed", "task", "note"]]
    for outcome in outcomes:
        run, took = outcome.run, _took(outcome)
        table.append(
            [
                in_short(run.due_at, zone),
                run.kind,
                _state(outcome),
                # What was done by hand is not late.
                duration(outcome.drift) if run.kind == RunKind.PLAN else "-",
                "-" if took is None else duration(took),
                f"{run.missed:,}" if run.missed else "",
                str(run.task_id) if run.task_id else "-",
                safe(run.reason),
            ]
        )
    for line in _table(table, numbers={"drift", "took", "missed"}):
        command.stdout.write(line)


def _took(outcome: watching.Outcome) -> float | None:
    if outcome.started_at is None or outcome.finished_at is None:
        return None
    return (outcome.finished_at - outcome.started_at).total_seconds()


def _run_facts(outcome: watching.Outcome, zone: ZoneInfo) -> dict[str, Any]:
    run = outcome.run
    return {
        "due_at": run.due_at.astimezone(zone).isoformat(),
        "kind": run.kind,
        "outcome": outcome.state,
        "fired_at": run.fired_at.astimezone(zone).isoformat(),
        "drift": outcome.drift,
        "took": _took(outcome),
        "missed": run.missed,
        "task_id": run.task_id and str(run.task_id),
        "reason": run.reason,
    }
