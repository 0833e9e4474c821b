"""manage.py bgtasks stop."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_bgtasks import workers
from django_bgtasks.management.commands.runworker import CONFIGURATION
from django_bgtasks.models import Worker, WorkerRequest
from django_bgtasks.observability.logs import safe

from .pause import database_of, operator

HELP = "Ask a worker to finish what it runs, and to exit."


def add_arguments(parser: ArgumentParser) -> None:
    add_worker(parser)


def run(command: BaseCommand, **options: Any) -> None:
    answer(command, WorkerRequest.STOP, _in_words, options)


def _in_words(worker: Worker, changed: bool) -> str:
    name = safe(worker.name)
    if not changed:
        return f"Worker {name!r} is stopping already, or soon.{asked_before(worker)}"
    count = worker.running
    sentences = [f"Worker {name!r} is asked to stop; it obeys within seconds."]
    if count:
        sentences.append(
            f"It finishes {count:,} task{'s' * (count != 1)}; what takes longer than its "
            "--shutdown-timeout is given back."
        )
    alone = workers.only_served_by([worker], workers.known(worker._state.db or "default"))
    if alone:
        named = ", ".join(safe(queue) for queue in alone)
        sentences.append(f"No other worker takes from {named}.")
    return " ".join(sentences)


def add_worker(parser: ArgumentParser) -> None:
    """Add the arguments of a command about one worker."""
    parser.add_argument(
        "worker", metavar="NAME", help="The worker's name, its id, or the id's last 6 digits."
    )
    parser.add_argument("--backend", help="Alias in TASKS. Without: all of ours.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")


def answer(
    command: BaseCommand,
    request: WorkerRequest,
    in_words: Callable[[Worker, bool], str],
    options: dict[str, Any],
) -> None:
    """Ask the worker that is meant, and say what came of it."""
    try:
        worker = workers.find(options["worker"], database=database_of(options))
        changed = workers.ask(worker, request, by=operator())
    except workers.UnknownWorker as error:
        raise CommandError(safe(str(error)), returncode=CONFIGURATION) from None
    except workers.CannotObey as error:
        raise CommandError(safe(str(error)), returncode=1) from None
    worker.refresh_from_db(fields=["state", "request", "requested_at", "requested_by"])
    if options["json"]:
        command.stdout.write(json.dumps({**workers.facts(worker), "changed": changed}, indent=2))
    else:
        command.stdout.write(in_words(worker, changed))


def asked_before(worker: Worker) -> str:
    """Return a sentence about who asked before, "" if nobody did."""
    if worker.requested_at is None:
        return ""
    by = f" by {safe(worker.requested_by)}" if worker.requested_by else ""
    return f" It was asked{by} at {worker.requested_at:%Y-%m-%d %H:%M:%S} UTC."
