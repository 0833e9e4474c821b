"""System checks. docs/reference/checks.md has a heading for each id; ids are not reused."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.management import get_commands
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import DatabaseError

from . import conf, encryption
from .compat import HAS_DJANGO_TASKS, task_backends
from .definition import DatabaseTask, former_paths

if TYPE_CHECKING:
    from .backend import DatabaseBackend


def register() -> None:
    """Register the checks that belong to no single backend."""
    checks.register(check_commands)
    checks.register(check_aliases)
    checks.register(check_databases, checks.Tags.database)


def _our_backends() -> list[DatabaseBackend]:
    from .backend import DatabaseBackend

    return [b for b in task_backends.all() if isinstance(b, DatabaseBackend)]


def check_backend(backend: DatabaseBackend) -> list[checks.CheckMessage]:
    """Check the settings of one backend, without asking the database."""
    where = f"TASKS[{backend.alias!r}]"
    if not apps.is_installed("django_bgtasks"):
        return [
            checks.Error(
                f"{where} uses django_bgtasks, but the app is not installed.",
                hint='Add "django_bgtasks" to INSTALLED_APPS.',
                id="bgtasks.E001",
            )
        ]
    found: list[checks.CheckMessage] = [
        checks.Error(problem, hint="docs/reference/settings.md lists them.", id="bgtasks.E002")
        for problem in conf.problems(backend.alias, backend.options)
    ]
    if not HAS_DJANGO_TASKS and not apps.is_installed("django_tasks"):
        found.append(
            checks.Warning(
                "Django 5.2 has no django.tasks, and its backport is not installed as an app.",
                hint='Add "django_tasks" to INSTALLED_APPS.',
                id="bgtasks.W006",
            )
        )
    if not settings.USE_TZ:
        found.append(
            checks.Error(
                "django_bgtasks keeps times in UTC and needs USE_TZ = True.",
                hint="Set USE_TZ = True.",
                id="bgtasks.E003",
            )
        )
    long = [name for name in backend.queue_order if not isinstance(name, str) or len(name) > 100]
    if long:
        found.append(
            checks.Error(
                f"{where}['QUEUES'] has names that aren't strings of at most 100 characters: "
                f"{', '.join(map(repr, long))}.",
                id="bgtasks.E004",
            )
        )
    if any(message.id == "bgtasks.E002" for message in found):
        return found
    found += _check_keys(backend)
    found += _shared_queues(backend)
    found += _check_alias(backend.database)
    return found


def _shared_queues(backend: DatabaseBackend) -> Iterable[checks.CheckMessage]:
    for other in _our_backends():
        if other.alias <= backend.alias or other.database != backend.database:
            continue
        shared = backend.queues & other.queues
        if shared or not backend.queues or not other.queues:
            yield checks.Error(
                f"TASKS[{backend.alias!r}] and TASKS[{other.alias!r}] share database "
                f"{backend.database!r} and queues ({', '.join(sorted(shared)) or 'any'}): "
                "a worker of one would run tasks of the other.",
                hint="Give each backend queue names of its own.",
                id="bgtasks.E005",
            )


def _check_keys(backend: DatabaseBackend) -> Iterable[checks.CheckMessage]:
    """Check ENCRYPTION_KEYS; keys are told by their places, never shown."""
    keys = backend.conf.encryption_keys
    where = f"TASKS[{backend.alias!r}]['OPTIONS']['ENCRYPTION_KEYS']"
    if keys and not encryption.is_available():
        yield checks.Error(
            f"{where} needs the package cryptography, which is not installed.",
            hint=f"Type: {encryption.INSTALL}",
            id="bgtasks.E008",
        )
    for place in encryption.bad_keys(keys):
        yield checks.Error(
            f"{where}[{place}] is no Fernet key, which is 32 bytes in URL-safe base64.",
            hint=f"To make one, type: {encryption.MAKE_A_KEY} "
            "(It needs the extra django-bgtasks[encryption].)",
            id="bgtasks.E008",
        )


def _check_alias(alias: str) -> Iterable[checks.CheckMessage]:
    """Check what DATABASES says of the database of the tasks."""
    config = connections.settings[alias]
    options = config.get("OPTIONS", {})
    where = f"DATABASES[{alias!r}]"
    engine = config["ENGINE"]
    if engine.endswith("sqlite3"):
        if str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
            yield checks.Warning(
                f"Tasks are stored in SQLite database {alias!r} without immediate transactions.",
                hint=f"Set {where}['OPTIONS']['transaction_mode'] to 'IMMEDIATE'; otherwise "
                'views that read and then write fail with "database is locked".',
                id="bgtasks.W001",
            )
        if float(options.get("timeout", 5)) < 20:
            yield checks.Warning(
                f"SQLite database {alias!r} waits less than 20 s for a lock.",
                hint=f"Set {where}['OPTIONS']['timeout'] to 20.",
                id="bgtasks.W002",
            )
        if config.get("ATOMIC_REQUESTS"):
            yield checks.Warning(
                f"ATOMIC_REQUESTS makes each request take the write lock of SQLite database "
                f"{alias!r}, which workers wait for.",
                hint="Keep the tasks in a database of their own, or take ATOMIC_REQUESTS away.",
                id="bgtasks.W004",
            )
    elif engine.endswith("mysql"):
        isolation = str(options.get("isolation_level", "read committed")).lower()
        if isolation != "read committed":
            yield checks.Warning(
                f"{where} runs at isolation level {isolation!r}: claims block enqueues.",
                hint=f"Set {where}['OPTIONS']['isolation_level'] to 'read committed'.",
                id="bgtasks.W005",
            )


def check_databases(
    *, databases: Iterable[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Ask the databases themselves: check --database, migrate and runworker do."""
    if not databases:
        return []
    found: list[checks.CheckMessage] = []
    for alias in sorted({backend.database for backend in _our_backends()} & set(databases)):
        found += list(ask_database(alias))
        # migrate asks, too, and is about to make them.
        if "migrate" not in sys.argv[1:2] and unapplied_tables(alias):
            option = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
            found.append(
                checks.Warning(
                    f"The bgtasks tables do not exist in database {alias!r}.",
                    hint=f"Run: python manage.py migrate{option}",
                    id="bgtasks.W008",
                )
            )
    return found


def ask_database(alias: str) -> Iterable[checks.CheckMessage]:
    """Yield what a database itself says is wrong for tasks."""
    connection = connections[alias]
    if connection.vendor == "sqlite":
        version = sqlite3.sqlite_version_info
        if version < (3, 35):
            yield checks.Error(
                f"SQLite {'.'.join(map(str, version))} knows no UPDATE ... RETURNING, which "
                "claims are made with.",
                hint="Use SQLite 3.35 or later: a newer Python brings one.",
                id="bgtasks.E007",
            )
        name = str(connection.settings_dict["NAME"])
        if connection.is_in_memory_db():  # type: ignore[attr-defined]
            return
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode = cursor.fetchone()[0]
        if mode != "wal":
            yield checks.Warning(
                f"SQLite database {alias!r} ({name}) is not in WAL mode: its readers and its "
                "writer wait for each other.",
                hint=f"Set DATABASES[{alias!r}]['OPTIONS']['init_command'] to "
                "'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;'.",
                id="bgtasks.W003",
            )
    elif not connection.features.has_select_for_update_skip_locked:
        yield checks.Error(
            f"Database {alias!r} ({connection.display_name}) knows no SKIP LOCKED.",
            hint="Use MariaDB 10.6, MySQL 8.0.11, PostgreSQL 14, or later.",
            id="bgtasks.E006",
        )


def check_aliases(**kwargs: Any) -> list[checks.CheckMessage]:
    """
    Say where @task(aliases=...) leaves open, or takes away, what a path means.

    Looks at the modules that are imported; bgtasks check imports all of them first.
    """
    if not former_paths:
        return []
    tasks = _loaded_tasks()
    claims: dict[str, list[str]] = {}
    for path in sorted(tasks):
        for alias in dict.fromkeys(tasks[path].aliases):
            claims.setdefault(alias, []).append(path)
    found: list[checks.CheckMessage] = []
    for alias, claimants in sorted(claims.items()):
        if len(claimants) > 1:
            found.append(
                checks.Error(
                    f"{', '.join(claimants)} each have {alias!r} in aliases: tasks that were "
                    "enqueued under that path would run whichever was imported last.",
                    hint="Keep the alias with the task that it belongs to.",
                    id="bgtasks.E009",
                )
            )
        if alias in tasks:
            found.append(
                checks.Error(
                    f"{claimants[0]} has {alias!r} in aliases, but that task exists: it would "
                    f"never run, {claimants[0]} would instead.",
                    hint="Take the alias away, or rename the task that exists.",
                    id="bgtasks.E009",
                )
            )
    return found


def _loaded_tasks() -> dict[str, DatabaseTask]:
    """Return the tasks in the modules that are imported by the paths that lead to them."""
    tasks: dict[str, DatabaseTask] = {}
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            # type(), since isinstance() would have lazy objects evaluate themselves.
            if issubclass(type(value), DatabaseTask):
                home = sys.modules.get(value.func.__module__)
                # What .using() made is no task of its own.
                own = getattr(home, value.func.__name__, value)
                tasks[value.module_path] = own if isinstance(own, DatabaseTask) else value
    return tasks


def check_commands(**kwargs: Any) -> list[checks.CheckMessage]:
    """Say when another app's runworker hides ours, or ours another's."""
    owner = get_commands().get("runworker")
    others = [
        config.name
        for config in apps.get_app_configs()
        if config.name != "django_bgtasks" and _has_runworker(config.name)
    ]
    if not others:
        return []
    winner = owner if isinstance(owner, str) else "another app"
    return [
        checks.Warning(
            f"django_bgtasks and {', '.join(others)} both have a command runworker; "
            f"{winner}'s is the one that runs.",
            hint='Say "manage.py bgtasks worker" for the worker of django_bgtasks, or put '
            '"django_bgtasks" before the other in INSTALLED_APPS.',
            id="bgtasks.W007",
        )
    ]


def _has_runworker(app: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(f"{app}.management.commands.runworker") is not None
    except ModuleNotFoundError:
        return False


def unapplied_tables(alias: str) -> bool:
    """Say whether the tables are missing in a database."""
    from .models import QueuedTask

    try:
        QueuedTask.objects.using(alias).exists()
    except DatabaseError as error:
        return import_module("django_bgtasks.db").is_missing_table(error)
    return False
