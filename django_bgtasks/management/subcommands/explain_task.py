"""manage.py bgtasks explain-task: why isn't it running?"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_bgtasks.explaining import explain
from django_bgtasks.management.commands.runworker import CONFIGURATION, our_backend
from django_bgtasks.models import FinishedTask, QueuedTask
from django_bgtasks.observability.logs import safe
from django_bgtasks.searching import matches

HELP = "Say in one sentence why a task isn't running."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "id", metavar="ID", help="The task's id, a start of it, or its last 6 or more digits."
    )
    parser.add_argument("--backend", default="default", help="Alias in TASKS.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")


def run(command: BaseCommand, **options: Any) -> None:
    row = _found(options["id"], our_backend(options["backend"]).database)
    sentence = explain(row)
    state = str(row.status)
    if options["json"]:
        command.stdout.write(
            json.dumps(
                {"id": str(row.pk), "task": row.task_path, "state": state, "why": sentence},
                indent=2,
            )
        )
        return
    command.stdout.write(f"{safe(row.task_path)} {row.pk} is {state}.")
    command.stdout.write(safe(sentence))


def _found(term: str, alias: str) -> QueuedTask | FinishedTask:
    rows: list[QueuedTask | FinishedTask] = []
    for model in (QueuedTask, FinishedTask):
        ids = matches(term, model._default_manager.using(alias).all())
        if ids is None:
            raise CommandError(
                f"{safe(term)!r} is no id. Give one, its first 13 characters, or its last 6 or "
                "more digits.",
                returncode=CONFIGURATION,
            )
        rows += model._default_manager.using(alias).filter(pk__in=ids[:10])
    if not rows:
        raise CommandError(
            f"There is no task {safe(term)!r}. It may have been pruned.", returncode=CONFIGURATION
        )
    if len(rows) > 1:
        found = ", ".join(f"{safe(row.task_name)} {row.pk}" for row in rows[:5])
        raise CommandError(
            f"{safe(term)!r} is the id of several tasks: {found}.", returncode=CONFIGURATION
        )
    return rows[0]
