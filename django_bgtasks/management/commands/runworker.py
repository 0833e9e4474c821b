"""Arguments -> WorkerPlan -> Supervisor."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import no_style
from django.db import DatabaseError, connections

from django_bgtasks import __version__, registry
from django_bgtasks.backend import DatabaseBackend
from django_bgtasks.checks import ask_database, check_aliases, unapplied_tables
from django_bgtasks.compat import InvalidTaskBackend, task_backends
from django_bgtasks.conf import suggestion
from django_bgtasks.db import operations_for
from django_bgtasks.worker.plan import WorkerPlan

CONFIGURATION, NO_DATABASE = 2, 3
LOG_FORMATS = ("auto", "pretty", "text", "json")

EXAMPLES = """
examples:
  one machine:          manage.py runworker
  more at once:         manage.py runworker emails reports --processes 2 --threads 8
  in a container:       manage.py runworker --health-file /tmp/alive --log-format json
  from cron:            manage.py runworker --burst
"""


def seconds(text: str) -> float:
    """Return 90, 90s, 15m, 1h or 1d in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match:
        raise ArgumentTypeError(f"{text!r} is no duration. Write 90, 90s, 15m, 1h or 1d.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


def size(text: str) -> int:
    """Return 512M, 2G, 800K or 1000000 in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise ArgumentTypeError(f"{text!r} is no size. Write 512M, 2G or a number of bytes.")
    return int(float(match[1]) * 1024 ** ["", "K", "M", "G"].index(match[2].upper()))


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number of at least 1.")
    return int(text)


def our_backend(alias: str | None) -> DatabaseBackend:
    """
    Return a backend of ours by its alias; without one "default", or the first of ours.

    Raise CommandError with the exit code of a wrong configuration.
    """
    try:
        if alias is None:
            ours = [b for b in task_backends.all() if isinstance(b, DatabaseBackend)]
            default = next((b for b in ours if b.alias == "default"), None)
            backend: Any = default or (ours[0] if ours else None)
        else:
            backend = task_backends[alias]
    except (InvalidTaskBackend, ImproperlyConfigured) as error:
        known = ", ".join(getattr(settings, "TASKS", {}))
        raise CommandError(
            f"{error} Aliases in TASKS: {known}.", returncode=CONFIGURATION
        ) from None
    if not isinstance(backend, DatabaseBackend):
        what = f"TASKS[{alias!r}] is not" if alias else "No backend in TASKS is"
        raise CommandError(f"{what} django_bgtasks.DatabaseBackend.", returncode=CONFIGURATION)
    return backend


# name, short, type, name in OPTIONS, help. The variable is BGTASKS_ and the name.
_VALUES: tuple[tuple[str, str | None, Callable[[str], Any], str | None, str], ...] = (
    ("processes", "-p", positive, "processes", "child processes; one a CPU, at most 4"),
    ("threads", "-t", positive, "threads", "tasks at once in each child"),
    (
        "async-concurrency",
        None,
        positive,
        "async_concurrency",
        "async def tasks at once in each child",
    ),
    ("max-tasks", None, positive, None, "finish and exit 0 after so many tasks"),
    ("max-runtime", None, seconds, None, "finish and exit 0 after so long, such as 1h"),
    ("max-memory", None, size, None, "finish and exit 0 above so much memory, such as 512M"),
    ("recycle-tasks", None, positive, "recycle_tasks", "replace a child after so many tasks"),
    ("recycle-after", None, seconds, "recycle_after", "replace a child of this age"),
    ("recycle-memory", None, size, "recycle_memory", "replace a child above so much memory"),
    ("poll-interval", None, seconds, "poll_interval", "how often to look when idle"),
    (
        "shutdown-timeout",
        None,
        seconds,
        "shutdown_timeout",
        "how long to wait for running tasks, then hand them back",
    ),
    ("lease", None, seconds, "lease", "after this time without news others take over"),
    ("name", None, str, None, "the name shown in the admin; host-pid"),
    ("health-file", None, str, None, "a file that is written on every beat"),
    ("health-port", None, positive, None, "a port that answers 200 or 503"),
    ("wait-for-db", None, seconds, None, "wait so long for the database at start"),
)


class Command(BaseCommand):
    help = "Run background tasks until told to stop."
    # Checked in handle(), after the exit codes are known.
    requires_system_checks: list[str] = []
    stealth_options = ("argv",)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        parser = super().create_parser(prog_name, subcommand, epilog=EXAMPLES, **kwargs)

        class Formatter(parser.formatter_class, RawDescriptionHelpFormatter):  # type: ignore[name-defined]
            """Django's order of arguments, and the line breaks of the examples."""

        parser.formatter_class = Formatter
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "queues",
            nargs="*",
            metavar="QUEUE",
            help="Queues to serve, in order of preference. Without: all of the backend's, "
            "in the order of the tasks' priorities.",
        )
        parser.add_argument(
            "-x", "--exclude", action="append", default=[], metavar="QUEUE", help="All but this."
        )
        parser.add_argument(
            "--any-queue", action="store_true", help="Serve names that aren't in QUEUES, too."
        )
        parser.add_argument("--backend", help="Alias in TASKS. Variable: BGTASKS_BACKEND.")
        for name, short, kind, option, text in _VALUES:
            variable = f"BGTASKS_{name.upper().replace('-', '_')}"
            where = f", OPTIONS[{option.upper()!r}]" if option else ""
            parser.add_argument(
                *([short] if short else []),
                f"--{name}",
                type=kind,
                help=f"{text[0].upper()}{text[1:]}. Variable: {variable}{where}.",
            )
        parser.add_argument("--burst", action="store_true", help="Run what is ready, then exit.")
        parser.add_argument(
            "--no-maintenance",
            action="store_true",
            help="Leave due tasks, rescue and pruning to other workers.",
        )
        parser.add_argument(
            "--no-scheduler",
            action="store_true",
            help="Leave schedules to other workers.",
        )
        parser.add_argument(
            "--reload",
            action="store_true",
            default=None,
            help="Restart when the code changes; with DEBUG the default.",
        )
        parser.add_argument("--no-reload", action="store_false", dest="reload", help="Don't.")
        parser.add_argument(
            "--log-format",
            choices=LOG_FORMATS,
            help="auto: pretty on a terminal, else text. Variable: BGTASKS_LOG_FORMAT.",
        )
        parser.add_argument(
            "--check", action="store_true", help="Check settings, database and queues, then exit."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        backend = our_backend(options["backend"] or os.environ.get("BGTASKS_BACKEND"))
        patience = self._value("wait-for-db", options, None) or 0.0
        if backend.database in connections.settings:
            # First: on MariaDB and MySQL Django's own checks ask the database.
            self._wait_for_database(backend, patience)
        self._check_settings()
        try:
            known = registry.load_task_modules(backend.conf.task_modules)
        except Exception as error:
            raise CommandError(
                f"The tasks could not be loaded: {type(error).__name__}: {error}", returncode=1
            ) from error
        for wrong in check_aliases():
            # Only now are all of them known.
            raise CommandError(f"{wrong.id}: {wrong.msg}", returncode=2)
        plan = self._plan(backend, options)
        if options["check"]:
            served = ", ".join(plan.queues) or "any queue"
            self.stdout.write(f"All is well: {known} tasks known, queues {served}.")
            return
        sys.exit(self._run(plan, backend, known))

    # Options

    def _value(self, name: str, options: dict[str, Any], conf: Any) -> Any:
        """Return an option: as given, from its variable, from OPTIONS, in this order."""
        key = name.replace("-", "_")
        if options.get(key) is not None:
            return options[key]
        for value, _, kind, option, _ in _VALUES:
            if value != name:
                continue
            variable = f"BGTASKS_{key.upper()}"
            if os.environ.get(variable):
                try:
                    return kind(os.environ[variable])
                except ArgumentTypeError as error:
                    raise CommandError(f"{variable}: {error}", returncode=CONFIGURATION) from None
            return getattr(conf, option) if option and conf else None
        raise KeyError(name)

    def _check_settings(self) -> None:
        from django.core.management.base import SystemCheckError

        try:
            self.check(display_num_errors=False)
        except SystemCheckError as error:
            raise CommandError(str(error), returncode=CONFIGURATION) from None

    def _wait_for_database(self, backend: DatabaseBackend, patience: float) -> None:
        alias = backend.database
        deadline = time.monotonic() + patience
        while True:
            try:
                connections[alias].ensure_connection()
                if not unapplied_tables(alias):
                    break
                problem = (
                    f"The bgtasks tables do not exist in database {alias!r}. "
                    "Run: python manage.py migrate"
                )
            except DatabaseError as error:
                problem = f"Database {alias!r} can't be reached: {error}".strip()
            connections[alias].close()
            if time.monotonic() >= deadline:
                raise CommandError(problem, returncode=NO_DATABASE)
            time.sleep(0.5)
        for message in ask_database(alias):
            self.stderr.write(self.style.WARNING(str(message)))
            if message.is_serious():
                raise CommandError("See above.", returncode=CONFIGURATION)
        connection: Any = connections[alias]
        if connection.vendor == "sqlite" and connection.is_in_memory_db():
            raise CommandError(
                f"Database {alias!r} is in memory: the worker's processes can't share it. "
                f"Set DATABASES[{alias!r}]['NAME'] to a file.",
                returncode=CONFIGURATION,
            )

    def _plan(self, backend: DatabaseBackend, options: dict[str, Any]) -> WorkerPlan:
        conf = backend.conf
        configured = backend.queue_order
        named = list(dict.fromkeys(options["queues"]))
        if not options["any_queue"] and configured:
            for name in [*named, *options["exclude"]]:
                if name not in configured:
                    raise CommandError(
                        f"Unknown queue {name!r}.{suggestion(name, configured)} Configured: "
                        f"{', '.join(configured)}. (Use --any-queue to serve names not in QUEUES.)",
                        returncode=CONFIGURATION,
                    )
        queues = [n for n in named or configured if n not in options["exclude"]]
        any_queue = not named and (options["any_queue"] or not configured)
        if not queues and not any_queue:
            raise CommandError("No queue is left to serve.", returncode=CONFIGURATION)

        def value(name: str) -> Any:
            return self._value(name, options, conf)

        lease = value("lease") or operations_for(backend.database).default_lease
        style = options["log_format"] or os.environ.get("BGTASKS_LOG_FORMAT") or "auto"
        if style not in LOG_FORMATS:
            raise CommandError(
                f"BGTASKS_LOG_FORMAT: {style!r} is none of {', '.join(LOG_FORMATS)}.",
                returncode=CONFIGURATION,
            )
        terminal = sys.stdout.isatty()
        if style == "auto":
            style = "pretty" if terminal else "text"
        encoding = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "")
        reload = options["reload"]
        return WorkerPlan(
            backend=backend.alias,
            database=backend.database,
            name=(value("name") or f"{socket.gethostname()}-{os.getpid()}")[:100],
            queues=() if any_queue else tuple(queues),
            by_priority=not named,
            any_queue=any_queue,
            excluded=tuple(options["exclude"]),
            processes=value("processes") or min(4, os.cpu_count() or 1),
            threads=value("threads"),
            async_concurrency=value("async-concurrency"),
            lease=float(lease),
            poll_interval=value("poll-interval"),
            shutdown_timeout=value("shutdown-timeout"),
            burst=options["burst"],
            maintenance=not options["no_maintenance"],
            scheduler=not options["no_scheduler"],
            max_tasks=value("max-tasks"),
            max_runtime=value("max-runtime"),
            max_memory=value("max-memory"),
            recycle_tasks=value("recycle-tasks"),
            recycle_after=value("recycle-after"),
            recycle_memory=value("recycle-memory"),
            reload=(settings.DEBUG if reload is None else reload) and not options["burst"],
            health_file=value("health-file"),
            health_port=value("health-port"),
            log_format=style,
            verbosity=options["verbosity"],
            color=self._color(options, terminal),
            ascii=encoding not in ("utf8", "utf_8"),
        )

    @staticmethod
    def _color(options: dict[str, Any], terminal: bool) -> bool:
        if options["no_color"] or os.environ.get("NO_COLOR"):
            return False
        return bool(terminal or options["force_color"] or os.environ.get("FORCE_COLOR"))

    # Running

    def _run(self, plan: WorkerPlan, backend: DatabaseBackend, known: int) -> int:
        from django_bgtasks.observability import logs
        from django_bgtasks.worker import reloading
        from django_bgtasks.worker.supervisor import RELOAD, Supervisor

        if plan.reload and not os.environ.get(reloading.CHILD_VARIABLE):
            return reloading.run_with_restarts(RELOAD)
        logs.configure(plan)
        if plan.verbosity >= 1 and plan.log_format == "pretty":
            self._banner(plan, known)
        # What was opened by the checks must not be shared with children.
        connections.close_all()
        supervisor = Supervisor(plan, backend)
        if plan.health_port:
            from django_bgtasks.observability.endpoint import serve_health

            try:
                serve_health(plan.health_port, lambda: supervisor.contact.silence() < plan.lease)
            except (OSError, OverflowError) as error:
                raise CommandError(
                    f"--health-port {plan.health_port}: {error}", returncode=CONFIGURATION
                ) from None
        began = time.monotonic()
        code = supervisor.run()
        if plan.verbosity >= 1 and code != RELOAD:
            counts = supervisor.totals()
            parts = [f"{counts['successful']} successful", f"{counts['failed']} failed"]
            if counts["cancelled"]:
                parts.append(f"{counts['cancelled']} cancelled")
            if counts["retried"]:
                parts.append(f"{counts['retried']} will retry")
            line = f"Stopped after {logs.duration(time.monotonic() - began)}: {', '.join(parts)}."
            logs.logging.getLogger("django_bgtasks.worker").info(line)
        return code

    def _banner(self, plan: WorkerPlan, known: int) -> None:
        vendor = connections[plan.database].display_name
        slots = plan.processes * plan.threads
        detail = f"{plan.processes} process{'es' * (plan.processes != 1)} x {plan.threads} "
        detail += f"thread{'s' * (plan.threads != 1)}"
        dot = "-" if plan.ascii else "·"
        style = self.style if plan.color else no_style()
        self.stdout.write(
            style.MIGRATE_HEADING(
                f"django_bgtasks {__version__} {dot} worker {plan.name} {dot} "
                f"backend {plan.backend} on {vendor}"
            )
        )
        served = ", ".join(plan.queues) or "any"
        self.stdout.write(f"  queues    {served:<22} slots {slots} ({detail})")
        self.stdout.write(f"  tasks     {known} known")
        reload = f"reload on {dot} " if plan.reload else ""
        self.stdout.write(f"  {reload}Ctrl+C to finish and stop")
        self.stdout.flush()
