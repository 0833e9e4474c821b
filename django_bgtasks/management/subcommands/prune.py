"""manage.py bgtasks prune."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import Exists, OuterRef, Sum

from django_bgtasks.db import operations_for
from django_bgtasks.management.commands.runworker import our_backend, seconds
from django_bgtasks.models import FinishedTask, Node, Workflow
from django_bgtasks.states import FinalStatus
from django_bgtasks.worker.maintenance import prune

HELP = "Delete old results. Workers do so by themselves."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--backend", default="default", help="Alias in TASKS.")
    parser.add_argument(
        "--successful", type=seconds, help="Older than this, such as 7d. OPTIONS if not given."
    )
    parser.add_argument(
        "--failed", type=seconds, help="The same for failed and cancelled ones, such as 30d."
    )
    parser.add_argument("--dry-run", action="store_true", help="Say how many, delete none.")


def run(command: BaseCommand, **options: Any) -> None:
    backend = our_backend(options["backend"])
    ages = {
        name: backend.conf.__dict__[f"retain_{name}"] if options[name] is None else options[name]
        for name in ("successful", "failed")
    }
    if options["dry_run"]:
        count = _count(backend.database, ages)
        command.stdout.write(f"{count:,} result{'s' * (count != 1)} would be pruned.")
        return
    began = time.monotonic()
    count = prune(backend.database, **ages, limit=sys.maxsize)
    command.stdout.write(
        f"Pruned {count:,} result{'s' * (count != 1)} in {time.monotonic() - began:.1f} s."
    )


def _count(alias: str, ages: dict[str, float | None]) -> int:
    now = operations_for(alias).now()
    total = 0
    for name, statuses in (
        ("successful", [FinalStatus.SUCCESSFUL]),
        ("failed", [FinalStatus.FAILED, FinalStatus.CANCELLED]),
    ):
        age = ages[name]
        if age is not None:
            old = {"status__in": statuses, "finished_at__lt": now - timedelta(seconds=age)}
            member = Node.objects.using(alias).filter(pk=OuterRef("pk"))
            tasks = FinishedTask.objects.using(alias).filter(~Exists(member), **old)
            workflows = Workflow.objects.using(alias).filter(**old)
            total += tasks.count() + (workflows.aggregate(size=Sum("size"))["size"] or 0)
    return total
