"""manage.py bgtasks quiet."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from django_bgtasks.models import Worker, WorkerRequest, WorkerState
from django_bgtasks.observability.logs import safe

from .stop import add_worker, answer, asked_before

HELP = "Ask a worker to take no more tasks. What it runs, it finishes; it stays alive."


def add_arguments(parser: ArgumentParser) -> None:
    add_worker(parser)


def run(command: BaseCommand, **options: Any) -> None:
    answer(command, WorkerRequest.QUIET, _in_words, options)


def _in_words(worker: Worker, changed: bool) -> str:
    name = safe(worker.name)
    if changed:
        return (
            f"Worker {name!r} is asked to take no more tasks; it obeys within seconds, and can't "
            f"be made to take any again. To stop it, type: manage.py bgtasks stop {name}"
        )
    if worker.state == WorkerState.STOPPING or worker.request == WorkerRequest.STOP:
        return f"Worker {name!r} is stopping already.{asked_before(worker)}"
    return f"Worker {name!r} is quiet already, or soon.{asked_before(worker)}"
