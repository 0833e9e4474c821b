"""manage.py bgtasks SUBCOMMAND: each is a module of django_bgtasks.management.subcommands."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from django_bgtasks.management.commands import runworker
from django_bgtasks.management.subcommands import SUBCOMMANDS


class Command(BaseCommand):
    help = "Look at background tasks and at what runs them."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(
            dest="subcommand",
            required=True,
            metavar="COMMAND",
            parser_class=CommandParser,
        )
        worker: ArgumentParser = commands.add_parser("worker", help="The same as runworker.")
        self.worker = runworker.Command()
        self.worker.add_arguments(worker)
        worker.set_defaults(run=self._run_worker)
        _add_common(worker)
        for name, module in SUBCOMMANDS.items():
            subparser = commands.add_parser(name, help=module.HELP, description=module.HELP)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
            _add_common(subparser)

    def _run_worker(self, command: BaseCommand, **options: Any) -> None:
        self.worker.stdout, self.worker.stderr = self.stdout, self.stderr
        self.worker.style = self.style
        self.worker.handle(**options)

    def handle(self, *args: Any, **options: Any) -> None:
        options.pop("run")(self, **options)


def _add_common(parser: ArgumentParser) -> None:
    """Take the options that people write at the end there, too."""
    parser.add_argument(
        "-v", "--verbosity", type=int, choices=[0, 1, 2, 3], default=SUPPRESS, help=SUPPRESS
    )
    for name in ("--no-color", "--force-color", "--traceback"):
        parser.add_argument(name, action="store_true", default=SUPPRESS, help=SUPPRESS)
