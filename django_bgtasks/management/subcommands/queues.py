"""manage.py bgtasks queues."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand

from django_bgtasks import queues
from django_bgtasks.db import operations_for
from django_bgtasks.management.commands.runworker import our_backend
from django_bgtasks.models import Queue, QueuedTask
from django_bgtasks.observability.logs import safe
from django_bgtasks.states import LiveStatus

HELP = "Show the queues: which are paused, and how many tasks each holds."

#: Tasks of a queue are counted up to here.
MOST = 10_000
_COUNTED = (LiveStatus.READY, LiveStatus.SCHEDULED, LiveStatus.WAITING, LiveStatus.RUNNING)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--backend", help="Alias in TASKS. Without: all of ours.")
    parser.add_argument("--json", action="store_true", help="Print one JSON list.")


def run(command: BaseCommand, **options: Any) -> None:
    aliases = (
        [our_backend(options["backend"]).database] if options["backend"] else queues.databases()
    )
    found = [facts for alias in aliases for facts in _queues_of(alias)]
    if options["json"]:
        command.stdout.write(json.dumps(found, indent=2))
        return
    if not found:
        command.stdout.write("There are no queues yet.")
        return
    counted = [status.lower() for status in _COUNTED]
    heads = ["queue", *counted, "paused"]
    rows = [
        [safe(facts["name"]), *(_count(facts, name) for name in counted), _pause(facts)]
        for facts in found
    ]
    if len(aliases) > 1:
        heads.insert(0, "database")
        for row, facts in zip(rows, found, strict=True):
            row.insert(0, facts["database"])
    for line in _table([heads, *rows], numbers={*counted}):
        command.stdout.write(line)


def _queues_of(alias: str) -> Iterator[dict[str, Any]]:
    """Yield what is known of each queue: of the settings, the table and the tasks."""
    rows = {row.name: row for row in Queue.objects.using(alias).order_by("name")}
    names = [
        *(name for backend in queues.backends(alias) for name in backend.queue_order),
        *rows,
        *operations_for(alias).queue_names(),
    ]
    for name in dict.fromkeys(names):
        row = rows.get(name) or Queue(name=name)
        facts: dict[str, Any] = {
            "database": alias,
            "name": name,
            "paused_at": row.paused_at and row.paused_at.isoformat(),
            "paused_by": row.paused_by,
            "reason": row.reason,
        }
        tasks = QueuedTask.objects.using(alias).filter(queue_name=name).order_by()
        capped = []
        for status in _COUNTED:
            # Of at most so many entries of an index: a backlog of millions is not read.
            count = tasks.filter(status=status)[: MOST + 1].count()
            facts[status.lower()] = min(count, MOST)
            if count > MOST:
                capped.append(status.lower())
        # Counts that are larger than they are given.
        facts["capped"] = capped
        yield facts


def _count(facts: dict[str, Any], name: str) -> str:
    return f"{facts[name]:,}{'+' * (name in facts['capped'])}"


def _pause(facts: dict[str, Any]) -> str:
    if facts["paused_at"] is None:
        return ""
    text = f"since {facts['paused_at'][:16].replace('T', ' ')} UTC"
    if facts["paused_by"]:
        text += f" by {facts['paused_by']}"
    return safe(f"{text}: {facts['reason']}" if facts["reason"] else text)


def _table(rows: Sequence[Sequence[str]], numbers: set[str]) -> Iterator[str]:
    """Yield the lines of a table whose first row has the heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if head in numbers else cell.ljust(width)
            for cell, width, head in zip(row, widths, rows[0], strict=True)
        ]
        yield "  ".join(cells).rstrip()
