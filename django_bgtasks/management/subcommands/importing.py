"""manage.py bgtasks import: the plan of another library as schedules."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import ModuleType
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError
from django.utils import timezone

from django_bgtasks import registry
from django_bgtasks.backend import DatabaseBackend
from django_bgtasks.conf import suggestion
from django_bgtasks.db import operations_for
from django_bgtasks.exceptions import InvalidSchedule, UnknownTask
from django_bgtasks.management.commands.runworker import CONFIGURATION, our_backend
from django_bgtasks.management.imports import (
    Found,
    Unavailable,
    celery_beat,
    django_celery_beat,
    django_q2,
)
from django_bgtasks.models import Schedule
from django_bgtasks.models.schedule import Source
from django_bgtasks.observability.logs import safe
from django_bgtasks.schedules.specification import Specification
from django_bgtasks.schedules.sync import columns_of

from .explain import in_short
from .queues import _table
from .schedules.common import load_tasks, tables_needed

HELP = (
    "Import the plan of another library as schedules. Try it with --dry-run. Exit code 0: all is "
    "mapped, 1: something could not be mapped; the rest is imported."
)

SOURCES: dict[str, ModuleType] = {
    "celery-beat": celery_beat,
    "django-celery-beat": django_celery_beat,
    "django-q2": django_q2,
}

#: What becomes of a schedule, and how the summary says so: for one and more, before and after.
NEW, UPDATED, UNCHANGED = "new", "updated", "unchanged"
EXISTS, OVER, NOT_MAPPED = "exists", "over", "not mapped"


@dataclass(slots=True)
class Mapped:
    """One schedule of a source, and what becomes of it."""

    found: Found
    status: str
    specification: Specification | None = None
    reason: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def is_written(self) -> bool:
        return self.status in (NEW, UPDATED)

    @property
    def starts(self) -> bool:
        """Whether workers fire it from now on."""
        return self.status == NEW and self.specification is not None and self.specification.enabled


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        choices=list(SOURCES),
        help="; ".join(f"{name}: {module.TITLE}" for name, module in SOURCES.items()),
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="Show what becomes of each schedule, write nothing."
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="The path of the task that a name stands for. May be given several times.",
    )
    parser.add_argument(
        "--map-queue",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="The queue that a queue becomes. Without NEW: the task's own.",
    )
    parser.add_argument(
        "--app", metavar="MODULE:APP", help="celery-beat: the app of Celery that has the schedule."
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="Change schedules of the same name that were added by hand or imported.",
    )
    parser.add_argument("--disabled", action="store_true", help="Import new ones disabled.")
    parser.add_argument("--backend", help="Alias in TASKS. Without: default, or the first of ours.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")


def run(command: BaseCommand, **options: Any) -> None:
    with tables_needed():
        _run(command, options)


def _run(command: BaseCommand, options: dict[str, Any]) -> None:
    backend = our_backend(options["backend"])
    tasks = _pairs("--map", options["map"])
    queues = _pairs("--map-queue", options["map_queue"])
    if options["app"] and options["source"] != "celery-beat":
        raise CommandError("--app belongs to celery-beat only.", returncode=CONFIGURATION)
    load_tasks(backend)
    try:
        listed = SOURCES[options["source"]].read(options)
    except Unavailable as error:
        raise CommandError(safe(error), returncode=CONFIGURATION) from None
    plan = _Plan(backend, tasks, queues, update=options["update"], disabled=options["disabled"])
    mapped = [plan.mapped(found) for found in listed]
    if not options["dry_run"]:
        _write(backend, mapped)
    if options["json"]:
        command.stdout.write(json.dumps(_facts(mapped, options), indent=2, default=str))
    else:
        for line in _lines(mapped, dry_run=options["dry_run"]):
            command.stdout.write(line)
    for sentence in _unused(listed, tasks, queues):
        command.stderr.write(command.style.WARNING(safe(sentence)))
    if options["dry_run"]:
        command.stderr.write("A dry run: nothing is written.")
    elif any(item.starts for item in mapped):
        command.stderr.write("Stop the old scheduler: until then both enqueue.")
    if any(item.status == NOT_MAPPED for item in mapped):
        raise SystemExit(1)


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        old, sign, new = text.partition("=")
        if not sign or not old.strip() or (option == "--map" and not new.strip()):
            raise CommandError(
                safe(f"{option} is written OLD=NEW, not {text!r}."), returncode=CONFIGURATION
            )
        pairs[old.strip()] = new.strip()
    return pairs


def _unused(
    listed: list[Found], tasks: Mapping[str, str], queues: Mapping[str, str]
) -> Iterator[str]:
    """Yield a sentence for each --map that meets nothing: it may be misspelt."""
    for option, given, known in (
        ("--map", tasks, {found.task for found in listed}),
        ("--map-queue", queues, {str(found.options.get("queue_name")) for found in listed}),
    ):
        for old in given:
            if old not in known:
                yield f"{option} {old}: nothing has that name.{suggestion(old, known)}"


# Mapping


class _Plan:
    """Decides what becomes of each schedule."""

    def __init__(
        self,
        backend: DatabaseBackend,
        tasks: Mapping[str, str],
        queues: Mapping[str, str],
        *,
        update: bool,
        disabled: bool,
    ) -> None:
        self._backend = backend
        self._tasks = tasks
        self._queues = queues
        self._update = update
        self._disabled = disabled
        self._now = timezone.now()
        self._rows = {row.name: row for row in Schedule.objects.using(backend.database)}

    def mapped(self, found: Found) -> Mapped:
        """Return what becomes of one schedule."""
        if found.over:
            return Mapped(found, OVER, reason=found.over)
        if found.problem:
            return Mapped(found, NOT_MAPPED, reason=found.problem)
        try:
            specification = self._specification(found)
            specification.checked()
        except InvalidSchedule as error:
            return Mapped(found, NOT_MAPPED, reason=self._reason(found, error.problems))
        if specification.next_after(self._now) is None:
            return Mapped(found, OVER, specification, "Its last due time has passed.")
        return self._beside(Mapped(found, NEW, specification, notes=list(found.notes)))

    def _specification(self, found: Found) -> Specification:
        options = {**found.options, "backend": self._backend.alias}
        queue = str(options.get("queue_name"))
        if queue in self._queues:
            options["queue_name"] = self._queues[queue] or None
        if self._disabled:
            options["enabled"] = False
        path = self._tasks.get(found.task, found.task)
        return Specification.of(name=found.name, task=path, when=found.when, **options)

    def _beside(self, item: Mapped) -> Mapped:
        """Compare with a schedule that has the name."""
        row = self._rows.get(item.found.name)
        if row is None:
            return item
        assert item.specification is not None
        if not self._update:
            item.status = EXISTS
            item.reason = "There is a schedule of this name. --update would change it."
            if row.source != Source.ADMIN:
                item.reason = f"It is declared in {row.source_detail or row.source}."
        elif row.source != Source.ADMIN:
            item.status = NOT_MAPPED
            item.reason = f"A schedule in {row.source_detail or row.source} has the name."
        else:
            columns = columns_of(item.specification)
            same = all(getattr(row, key) == value for key, value in columns.items())
            item.status = UNCHANGED if same else UPDATED
        return item

    def _reason(self, found: Found, problems: Mapping[str, str]) -> str:
        texts = dict(problems)
        if "task" in texts:
            texts["task"] = self._unknown(found.task)
        queue = found.options.get("queue_name")
        if "queue_name" in texts and queue and queue not in self._queues:
            texts["queue_name"] += f" Add it to QUEUES, or: --map-queue {queue}=NEW"
        return " ".join(
            text if text.endswith((".", "?")) else f"{text}." for text in texts.values()
        )

    def _unknown(self, name: str) -> str:
        conf = self._backend.conf
        path = self._tasks.get(name, name)
        where = f"{path!r} (of --map)" if name in self._tasks else repr(path)
        try:
            registry.resolve(path, aliases=conf.aliases, modules=conf.task_modules)
        except UnknownTask as error:
            known = registry.known_paths(conf.task_modules)
            near = suggestion(path, known)
            if "no Task but" in str(error):
                return f"{where} is no task. Put @task above it, or name one: --map {name}=PATH"
            hint = "" if name in self._tasks else f" Name the task: --map {name}=PATH"
            return f"There is no task {where}.{near}{hint}"
        except Exception as error:  # Whatever its module raises while it is imported.
            return f"{where} can't be imported: {type(error).__name__}: {error}"
        return f"{where} is no task here."


# Writing


def _write(backend: DatabaseBackend, mapped: list[Mapped]) -> None:
    """Write all of them, or none."""
    operations = operations_for(backend.database)
    rows = Schedule.objects.using(backend.database)

    def unit() -> None:
        with operations.step():
            for item in mapped:
                if item.specification is None or not item.is_written:
                    continue
                columns = columns_of(item.specification)
                if item.status == NEW:
                    enabled = item.specification.enabled
                    made = Schedule(
                        name=item.found.name, enabled=enabled, source=Source.ADMIN, **columns
                    )
                    made.save(using=backend.database, force_insert=True)
                    continue
                # Whether it is enabled is up to those who run it, once it is here.
                row = rows.select_for_update().get(name=item.found.name, source=Source.ADMIN)
                for key, value in columns.items():
                    setattr(row, key, value)
                row.save(using=backend.database)

    try:
        if operations.connection.in_atomic_block:
            unit()
        else:
            operations.retrying(unit)
    except (IntegrityError, Schedule.DoesNotExist):
        raise CommandError(
            "Somebody else changes schedules at the same time. Nothing is written; try again.",
            returncode=1,
        ) from None


# Output


def _lines(mapped: list[Mapped], *, dry_run: bool) -> Iterator[str]:
    now = timezone.now()
    if mapped:
        table = [["schedule", "task", "was", "becomes", "next", "result"]]
        table += [_row(item, now) for item in mapped]
        yield from _table(table, numbers=set())
        yield ""
    for title, shown in (
        ("Not mapped:", [(i.found.name, i.reason) for i in mapped if i.status == NOT_MAPPED]),
        ("Left out:", [(i.found.name, i.reason) for i in mapped if i.status in (OVER, EXISTS)]),
        ("Notes:", [(i.found.name, " ".join(i.notes)) for i in mapped if i.is_written]),
    ):
        shown = [(name, text) for name, text in shown if text]
        if shown:
            yield title
            for name, text in shown:
                yield safe(f"  {name}: {text}")
            yield ""
    yield _summary(mapped, dry_run=dry_run)


def _row(item: Mapped, now: datetime) -> list[str]:
    found, specification = item.found, item.specification
    task, becomes, due = found.task, "-", None
    if specification is not None:
        if specification.task != found.task:
            task = f"{found.task} -> {specification.task}"
        becomes = f"{specification.when} ({specification.tz})"
        if not specification.timetable.is_local:
            becomes = specification.when
        if specification.max_runs is not None:
            becomes += f", at most {specification.max_runs:,} times"
        if not specification.enabled:
            becomes += ", disabled"
        due = specification.next_after(now)
    following = "-" if due is None or specification is None else in_short(due, specification.zone)
    cells = (found.name, task, found.was or "-", becomes, following, item.status)
    return [safe(text) for text in cells]


def _summary(mapped: list[Mapped], *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    parts = []
    for status, text in (
        (NEW, f"{would}added"),
        (UPDATED, f"{would}changed"),
        (UNCHANGED, "unchanged"),
        (EXISTS, "left as they are"),
        (OVER, "over"),
        (NOT_MAPPED, "not mapped"),
    ):
        number = sum(1 for item in mapped if item.status == status)
        if number:
            parts.append(f"{number:,} {text}")
    many = f"{len(mapped):,} schedule{'s' * (len(mapped) != 1)}"
    return f"{many}: {', '.join(parts)}." if parts else f"{many}: there is nothing to import."


def _facts(mapped: list[Mapped], options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "source": options["source"],
        "dry_run": options["dry_run"],
        "schedules": [_fact(item) for item in mapped],
    }


def _fact(item: Mapped) -> dict[str, Any]:
    found, specification = item.found, item.specification
    facts: dict[str, Any] = {
        "name": found.name,
        "status": item.status,
        "reason": item.reason,
        "notes": item.notes,
        "was": {"task": found.task, "when": found.was},
        "becomes": None,
    }
    if specification is not None:
        facts["becomes"] = columns_of(specification) | {"enabled": specification.enabled}
    return facts
