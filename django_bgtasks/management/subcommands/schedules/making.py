"""Schedules that are made by hand: add, remove."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError
from django.utils import timezone

from django_bgtasks import queues
from django_bgtasks.db import operations_for
from django_bgtasks.exceptions import InvalidSchedule
from django_bgtasks.management.commands.runworker import CONFIGURATION, our_backend
from django_bgtasks.models import Schedule
from django_bgtasks.models.schedule import Source
from django_bgtasks.observability.logs import safe
from django_bgtasks.schedules.specification import Specification
from django_bgtasks.schedules.sync import columns_of
from django_bgtasks.schedules.words import describe
from django_bgtasks.timetables import TimetableError, zone_of

from ..explain import at_length
from .common import confirm, find, json_of, load_tasks, moment_of, print_json, zone_of_row
from .listing import facts_of


def add(command: BaseCommand, options: dict[str, Any]) -> None:
    backend = our_backend(options["backend"])
    load_tasks(backend)
    name = options["name"]
    given = {
        "tz": options["tz"],
        "backend": backend.alias,
        "args": json_of("--args", options["args_json"]),
        "kwargs": json_of("--kwargs", options["kwargs_json"]),
        "queue_name": options["queue"],
        "enabled": not options["disabled"],
        **{
            key: options[key]
            for key in (
                "priority", "missed", "overlap", "max_runs", "jitter", "expires", "success_within",
            )
        },
    }  # fmt: skip
    try:
        if options["start"] or options["end"]:
            zone = zone_of(options["tz"] or settings.TIME_ZONE)
            for key, last in (("start", False), ("end", True)):
                if options[key]:
                    given[key] = moment_of(f"--{key}", options[key], zone, last=last)
        specification = Specification.of(
            name=name, task=options["task"], when=options["when"], **given
        ).checked(now=timezone.now())
    except TimetableError as error:
        raise _refused(name, {"tz": str(error)}) from None
    except InvalidSchedule as error:
        raise _refused(name, error.problems) from None
    row = Schedule(
        name=name,
        enabled=specification.enabled,
        source=Source.ADMIN,
        **columns_of(specification),
    )
    alias = backend.database
    with operations_for(alias).step():
        there = Schedule.objects.using(alias).filter(name=name).first()
        if there is not None:
            where = f" in {there.source_detail}" if there.source_detail else ""
            raise _refused(name, {"name": f"There is one of this name already{where}."})
        try:
            row.save(using=alias, force_insert=True)
        except IntegrityError:
            raise _refused(name, {"name": "There is one of this name already."}) from None
    if options["json"]:
        print_json(command, facts_of(row, alias, None))
        return
    due = row.next_due_at
    text = f"Schedule {name!r} is added: {describe(row.expression)}."
    if due:
        text += f" Next run: {at_length(due, zone_of_row(row))}."
    command.stdout.write(safe(text if row.enabled else f"{text} It is disabled."))


_OPTION_OF = {"name": "NAME", "queue_name": "--queue"}


def _refused(name: str, problems: dict[str, str]) -> CommandError:
    """Return the answer to a schedule that can't be right: a line for each wrong option."""
    lines = [f"Schedule {name!r} is not added."]
    for key, text in problems.items():
        option = _OPTION_OF.get(key) or f"--{key.replace('_', '-')}"
        lines.append(f"  {option}: {text}")
    return CommandError("\n".join(map(safe, lines)), returncode=CONFIGURATION)


def remove(command: BaseCommand, options: dict[str, Any]) -> None:
    row, alias = find(options)
    # What belongs to no backend any more is declared by none.
    if row.source != Source.ADMIN and row.backend in [b.alias for b in queues.backends()]:
        raise CommandError(
            safe(
                f"Schedule {row.name!r} is declared in {row.source_detail or row.source}. Remove "
                f"it there, or type: manage.py bgtasks schedules disable {row.name}"
            ),
            returncode=CONFIGURATION,
        )
    confirm(f"Schedule {safe(row.name)!r} and the record of its runs will be deleted.", options)
    with operations_for(alias).step():
        Schedule.objects.using(alias).filter(pk=row.pk, source=row.source).delete()
    command.stdout.write(safe(f"Schedule {row.name!r} is removed. What it has enqueued stays."))
