"""manage.py bgtasks check: what would go wrong with the tasks that there are."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from django_bgtasks import checks, queues, registry
from django_bgtasks.arguments import Signature
from django_bgtasks.backend import DatabaseBackend
from django_bgtasks.compat import InvalidTaskBackend
from django_bgtasks.conf import suggestion
from django_bgtasks.encryption import Undecipherable, opened
from django_bgtasks.exceptions import InvalidArguments, UnknownTask
from django_bgtasks.models import QueuedTask
from django_bgtasks.observability.logs import safe

HELP = (
    "Before a deploy: check the settings, the database, and whether this code can run each task "
    "that is queued. Run it with the new code on the old data. Exit code 0: all is well, "
    "1: something was found. Findings of the settings count unless SILENCED_SYSTEM_CHECKS has them."
)

#: Rows that are read at once.
CHUNK = 1000
#: Ids that are named of each finding.
EXAMPLES = 3
#: Findings of one cause; from there on they are counted together.
MOST = 100

_TITLES = {
    "settings": "Settings",
    "database": "Database",
    "task": "Tasks that this code doesn't have",
    "arguments": "Arguments that no longer fit",
    "encryption": "Arguments that can't be decrypted",
    "queue": "Queues that no backend serves",
}


@dataclass
class Finding:
    """What is wrong with something, and with how many tasks because of it."""

    cause: str
    database: str | None
    #: What it is about: the id of a check, the path of a task, the name of a queue.
    subject: str
    text: str
    hint: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")


def run(command: BaseCommand, **options: Any) -> None:
    report = Report()
    report.look()
    findings = list(report.findings.values())
    if options["json"]:
        command.stdout.write(
            json.dumps(
                {
                    "ok": not findings,
                    "tasks": report.tasks,
                    "findings": [asdict(finding) for finding in findings],
                },
                indent=2,
            )
        )
    else:
        for line in _lines(report.tasks, findings):
            command.stdout.write(line)
    if findings:
        raise SystemExit(1)


def _lines(tasks: int, findings: list[Finding]) -> Iterator[str]:
    for cause, title in _TITLES.items():
        listed = [finding for finding in findings if finding.cause == cause]
        if not listed:
            continue
        yield f"{title}:"
        for finding in listed:
            where = f" (database {finding.database!r})" if finding.database else ""
            affected = _tasks(finding.count)
            yield f"  {safe(finding.text)}{f' {affected}{where}.' if finding.count else ''}"
            if finding.examples:
                more = ", ..." if finding.count > len(finding.examples) else ""
                yield f"      for example {', '.join(finding.examples)}{more}"
            if finding.hint:
                yield f"      {safe(finding.hint)}"
    read = f"{_tasks(tasks)} looked at."
    if findings:
        yield f"{len(findings):,} finding{'s' * (len(findings) != 1)}, {read}"
    else:
        yield f"All is well: {read}"


def _tasks(count: int) -> str:
    return f"{count:,} task{'s' * (count != 1)}"


class Report:
    """Everything that is found, by cause, database and subject."""

    def __init__(self) -> None:
        self.findings: dict[tuple[str, str | None, str], Finding] = {}
        self.tasks = 0
        self._many: dict[str, int] = {}

    def look(self) -> None:
        """Look at all that there is; nothing that is found ends it."""
        try:
            backends = queues.backends()
        except (InvalidTaskBackend, ImproperlyConfigured) as error:
            self._add("settings", None, "TASKS", str(error))
            return
        if not backends:
            self._add("settings", None, "TASKS", "No backend in TASKS is DatabaseBackend.")
            return
        for backend in backends:
            self._load(backend)
        good = [backend for backend in backends if self._check_settings(backend)]
        for message in [*checks.check_aliases(), *checks.check_commands()]:
            self._add_message(message)
        for alias in dict.fromkeys(backend.database for backend in good):
            ours = [backend for backend in good if backend.database == alias]
            try:
                if self._check_database(alias):
                    self._check_rows(alias, ours)
            except DatabaseError as error:
                self._add("database", alias, alias, f"Database {alias!r} can't be read: {error}")

    # Findings

    def _add(
        self,
        cause: str,
        database: str | None,
        subject: str,
        text: str,
        *,
        hint: str = "",
        example: str | None = None,
    ) -> None:
        key = (cause, database, subject)
        finding = self.findings.get(key)
        if finding is None and example is not None:
            # Whatever the rows hold, this takes no more memory than so many findings.
            if self._many.get(cause, 0) >= MOST:
                key = (cause, database, "")
                subject, text, hint = "", f"More than {MOST} others of this kind:", ""
                finding = self.findings.get(key)
            else:
                self._many[cause] = self._many.get(cause, 0) + 1
        if finding is None:
            finding = self.findings[key] = Finding(cause, database, subject, text, hint)
        if example is not None:
            finding.count += 1
            if len(finding.examples) < EXAMPLES:
                finding.examples.append(example)

    def _add_message(self, message: Any) -> None:
        if not message.is_silenced():
            subject = f"{message.id} {message.msg}"
            self._add(
                "settings", None, subject, f"{message.id}: {message.msg}", hint=message.hint or ""
            )

    # What is looked at

    def _load(self, backend: DatabaseBackend) -> None:
        try:
            registry.load_task_modules(backend.conf.task_modules)
        except Exception as error:
            self._add(
                "settings",
                None,
                "modules",
                f"The tasks could not be loaded: {type(error).__name__}: {error}",
                hint="No worker starts with this code.",
            )

    def _check_settings(self, backend: DatabaseBackend) -> bool:
        """Check the settings of a backend; return whether its database can be asked."""
        for message in checks.check_backend(backend):
            self._add_message(message)
        return backend.database in connections.settings

    def _check_database(self, alias: str) -> bool:
        """Check that a database can be reached and is migrated; return whether it has tasks."""
        connection = connections[alias]
        try:
            connection.ensure_connection()
        except DatabaseError as error:
            self._add("database", alias, alias, f"Database {alias!r} can't be reached: {error}")
            return False
        for message in checks.ask_database(alias):
            self._add_message(message)
        option = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
        hint = f"Type: python manage.py migrate bgtasks{option}"
        if checks.unapplied_tables(alias):
            text = f"The bgtasks tables do not exist in database {alias!r}."
            self._add("database", alias, "tables", text, hint=hint)
            return False
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes("bgtasks"))
        missing = [migration.name for migration, _ in plan if migration.app_label == "bgtasks"]
        if missing:
            text = f"Database {alias!r} lacks migrations of bgtasks: {', '.join(missing)}."
            self._add("database", alias, "migrations", text, hint=hint)
        return True

    def _check_rows(self, alias: str, backends: list[DatabaseBackend]) -> None:
        """
        Check each live task; rows are read in chunks, by the primary key.

        A cursor over all of them would be held in memory by some drivers, and
        would keep a transaction open in others.
        """
        rows = QueuedTask.objects.using(alias).order_by("pk")
        columns = ("pk", "task_path", "queue_name", "backend", "args", "kwargs")
        last = None
        while True:
            chunk = rows if last is None else rows.filter(pk__gt=last)
            read = 0
            for row in chunk.values_list(*columns)[:CHUNK].iterator(chunk_size=CHUNK):
                read += 1
                last = row[0]
                self._check_row(alias, backends, *row)
            self.tasks += read
            if read < CHUNK:
                return

    def _check_row(
        self,
        alias: str,
        backends: list[DatabaseBackend],
        pk: Any,
        path: str,
        queue: str,
        backend_alias: str,
        args: Any,
        kwargs: Any,
    ) -> None:
        example = str(pk)
        serving = [b for b in backends if not b.queues or queue in b.queues]
        if not serving:
            names = list(dict.fromkeys(name for b in backends for name in b.queue_order))
            self._add(
                "queue",
                alias,
                queue,
                f"No worker takes from queue {queue!r}, which is not in QUEUES."
                f"{suggestion(queue, names)}",
                hint=f"Add it to QUEUES until it is empty, or type: "
                f"python manage.py runworker {queue} --any-queue",
                example=example,
            )
        # Without a worker for its queue its own backend says what it means, or any.
        own = [b for b in backends if b.alias == backend_alias]
        conf = [*serving, *own, *backends][0].conf
        try:
            args, kwargs = opened(args, conf), opened(kwargs, conf)
            readable = True
        except (Undecipherable, ImproperlyConfigured) as error:
            self._add(
                "encryption",
                alias,
                path,
                f"{path}: {error}",
                hint="Put the old key at the end of OPTIONS['ENCRYPTION_KEYS'].",
                example=example,
            )
            readable = False
        try:
            task = registry.resolve(path, aliases=conf.aliases, modules=conf.task_modules)
        except UnknownTask as error:
            self._add("task", alias, path, str(error), example=example)
            return
        except Exception as error:  # Whatever its module raises while it is imported.
            text = f"{path} can't be imported: {type(error).__name__}: {error}"
            self._add("task", alias, path, text, example=example)
            return
        if readable:
            try:
                _bind(task, args, kwargs)
            except InvalidArguments as error:
                self._add("arguments", alias, path, f"{path}: {error}.", example=example)


def _bind(task: Any, args: Any, kwargs: Any) -> None:
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise InvalidArguments("what is stored are no arguments")
    signature = getattr(task, "signature", None)
    if signature is None:  # A task of django.tasks.task.
        signature = Signature(task.func, takes_context=task.takes_context)
    signature.bind(args, kwargs)
