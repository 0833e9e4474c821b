"""
manage.py bgtasks bench: how fast this database runs tasks.

Each figure stands beside the limit that plain SQL reaches on the same database
in the same run, since machines differ and drift.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils import timezone
from django.utils.autoreload import get_child_arguments

from django_bgtasks.backend import DatabaseBackend
from django_bgtasks.db import ClaimRequest, Ending, operations_for
from django_bgtasks.definition import unchecked, unvalidated
from django_bgtasks.ids import new_id
from django_bgtasks.management.commands.runworker import our_backend, positive
from django_bgtasks.models import FinishedTask, Queue, QueuedTask

HELP = "Measure enqueue, throughput and latency on this database; cleans up behind itself."

#: The queue of the benchmark's tasks: no worker of the project serves it.
QUEUE = "bgtasks_bench"
#: Tasks of one claim of the plain SQL.
BATCH = 100


def no_op() -> None:
    """Do nothing."""


#: What is enqueued. Not made by @task, which would ask the project's backends about it.
nothing = unchecked(no_op)
no_op.__qualname__ = "nothing"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--backend", default="default", help="Alias in TASKS.")
    parser.add_argument("--tasks", type=positive, default=10_000, help="Tasks to run.")
    parser.add_argument("--singles", type=positive, default=1_000, help="Enqueues one by one.")
    parser.add_argument("--latency", type=positive, default=100, help="Tasks to wait for.")
    parser.add_argument("-p", "--processes", type=positive, default=2, help="Child processes.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")


def run(command: BaseCommand, **options: Any) -> None:
    configured = our_backend(options["backend"])
    bench = Bench(configured, options, quiet=options["json"], out=command.stdout)
    try:
        figures = bench.run()
    finally:
        bench.clean_up()
    if options["json"]:
        command.stdout.write(json.dumps(figures))


class Bench:
    """One run of the benchmark."""

    def __init__(
        self, configured: DatabaseBackend, options: dict[str, Any], *, quiet: bool, out: Any
    ) -> None:
        self.backend = DatabaseBackend(
            configured.alias, {"QUEUES": [QUEUE], "OPTIONS": configured.options}
        )
        self.alias = self.backend.database
        self.options = options
        self.quiet = quiet
        self.out = out
        self.task = unvalidated(nothing, queue_name=QUEUE, backend=configured.alias)
        self.figures: dict[str, Any] = {"database": connections[self.alias].display_name}

    def say(self, name: str, value: float, text: str) -> None:
        """Keep a figure and show it."""
        self.figures[name] = round(value, 4)
        if not self.quiet:
            self.out.write(text)
            self.out.flush()

    def run(self) -> dict[str, Any]:
        """Measure everything; return the figures."""
        self.clean_up()
        if not self.quiet:
            self.out.write(
                f"{self.figures['database']}, {self.options['processes']} child processes, "
                f"{os.cpu_count()} CPUs"
            )
        self._enqueue()
        self._plain_sql()
        self._drain()
        with self._worker() as worker:
            self._latency()
            self._idle(worker.pid)
        return self.figures

    def clean_up(self) -> None:
        """Delete the tasks, results and the queue of the benchmark."""
        for model in (QueuedTask, FinishedTask):
            rows = model._default_manager.using(self.alias).filter(queue_name=QUEUE)
            rows._raw_delete(self.alias)
        Queue.objects.using(self.alias).filter(name=QUEUE).delete()

    # Enqueue

    def _enqueue(self) -> None:
        count = self.options["singles"]
        operations = operations_for(self.alias)
        sql = operations.insert_one
        connection = connections[self.alias]
        now = operations.time_to_db(timezone.now())
        fixed = (self.task.module_path, QUEUE, 0, 0, "default", "READY", now, None, None, None)

        def bare() -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql, (operations.id_to_db(new_id()), *fixed, "[]", "{}"))

        def ours() -> None:
            self.backend.enqueue(self.task, (), {})

        # In turns, so that whatever else the machine does hits both.
        spent = {bare: 0.0, ours: 0.0}
        for _ in range(20):
            for call in (bare, ours):
                began = time.perf_counter()
                for _ in range(count // 20 or 1):
                    call()
                spent[call] += time.perf_counter() - began
        done = 20 * (count // 20 or 1)
        self.say("insert", done / spent[bare], f"cursor INSERT     {done / spent[bare]:>10,.0f}/s")
        share = spent[bare] / spent[ours]
        self.say(
            "enqueue",
            done / spent[ours],
            f"enqueue           {done / spent[ours]:>10,.0f}/s   {share:.0%} of the INSERT",
        )
        self.clean_up()
        calls: list[Any] = [()] * self.options["tasks"]
        rate = self._rate(lambda: self.backend.enqueue_many(self.task, calls), len(calls))
        self.say("enqueue_many", rate, f"enqueue_many      {rate:>10,.0f}/s")

    @staticmethod
    def _rate(action: Callable[[], Any], count: int) -> float:
        began = time.perf_counter()
        action()
        return count / (time.perf_counter() - began)

    # Claim and finish

    def _plain_sql(self) -> None:
        """Claim and finish all in one process with nothing run: what the SQL alone allows."""
        operations = operations_for(self.alias)

        def drain() -> None:
            endings: list[Ending] = []
            while True:
                request = ClaimRequest([QUEUE], BATCH, new_id(), "bench", 60.0)
                claimed = operations.exchange(endings, request).claimed
                now = timezone.now()
                endings = [Ending(t.id, t.claim_id, "SUCCESSFUL", now, began=now) for t in claimed]
                if not endings:
                    return

        rate = self._rate(drain, self.options["tasks"])
        self.say(
            "claim_and_finish", rate, f"claim and finish  {rate:>10,.0f}/s   SQL alone, one process"
        )

    @contextmanager
    def _worker(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        command = _manage()
        process = subprocess.Popen(
            [
                *command,
                "bgtasks",
                "worker",
                QUEUE,
                "--any-queue",
                f"--backend={self.backend.alias}",
                f"--processes={self.options['processes']}",
                "--threads=1",
                "--verbosity=0",
                "--no-reload",
                *arguments,
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            self._until_ready(process)
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until each child has run something."""
        for _ in range(self.options["processes"]):
            result = self.backend.enqueue(self.task, (), {})
            while process.poll() is None and not result.is_finished:
                time.sleep(0.01)
                result.refresh()
            if process.poll() is not None:
                raise CommandError("The worker ended before it ran a task.")
        time.sleep(0.5)

    def _drain(self) -> None:
        count = self.options["tasks"]
        with self._worker() as worker:
            memory = proportional_memory(worker.pid)
            # Written in one transaction: the workers see all of it at once.
            self.backend.enqueue_many(self.task, [()] * count)
            began = time.perf_counter()
            live = QueuedTask.objects.using(self.alias).filter(queue_name=QUEUE)
            while live.exists():
                time.sleep(0.02)
            rate = count / (time.perf_counter() - began)
            memory = max(memory, proportional_memory(worker.pid))
        self.say("drain", rate, f"executed          {rate:>10,.0f}/s   results stored")
        if memory:
            self.say(
                "memory",
                memory,
                f"memory            {memory / 2**20:>10,.0f} MiB  of the whole worker",
            )

    # Latency

    def _latency(self) -> None:
        waits = []
        for _ in range(self.options["latency"]):
            time.sleep(random.uniform(0.03, 0.25))
            result = self.backend.enqueue(self.task, (), {})
            while not result.is_finished:
                time.sleep(0.002)
                result.refresh()
            assert result.last_attempted_at is not None
            assert result.enqueued_at is not None
            waits.append((result.last_attempted_at - result.enqueued_at).total_seconds() * 1000)
        waits.sort()
        p50, p99 = statistics.median(waits), waits[int(len(waits) * 0.99) - 1]
        self.figures["latency_p99"] = round(p99, 3)
        self.say("latency_p50", p50, f"idle to start     {p50:>10.1f} ms   p99 {p99:.1f} ms")

    def _idle(self, pid: int) -> None:
        seconds = 5.0
        time.sleep(6)
        before = cpu_seconds(pid)
        if before is None:
            return
        time.sleep(seconds)
        after = cpu_seconds(pid)
        if after is not None:
            share = (after - before) / seconds
            self.say("idle_cpu", share, f"idle worker       {share:>10.2%} of a CPU")


def _manage() -> list[str]:
    """Return how this command was started, without its arguments."""
    return [*get_child_arguments()[: -len(sys.argv) + 1]]


def _tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += parents.get(found[-1], [])
    return found


def proportional_memory(pid: int) -> int:
    """Return the memory of a process and its descendants, shared pages split, in bytes."""
    total = 0
    try:
        for one in _tree(pid):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return total


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of a process and its descendants, None where it can't be told."""
    try:
        total = 0
        for one in _tree(pid):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None
