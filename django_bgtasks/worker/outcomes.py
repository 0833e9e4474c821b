"""What came of the tasks of a child: written in batches, then told."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.db import connections

from ..db import Ending
from ..models import FinishedTask
from ..signals import claim_lost
from ..statistics.tally import TRACEBACK_PAUSE, Tally, minute_of
from ..transitions import exchange, is_member, note, put_off, requests_are_done, retry_later
from .connections import reset_connection
from .execution import Execution

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

logger = logging.getLogger("django_bgtasks.worker")

#: Outcomes are written when there are so many, or when the oldest is so old in seconds.
FLUSH_COUNT = 100
FLUSH_SECONDS = 0.025
#: Seconds between two notes of a task's progress.
PROGRESS_SECONDS = 0.5


def write_other(alias: str, execution: Execution) -> bool:
    """Write an outcome that is no ending; say whether the task was ours still."""
    held = (execution.row.id, execution.row.claim_id)
    if execution.retry_delay is not None:
        assert execution.errors is not None
        return bool(
            retry_later(
                alias,
                held,
                delay=execution.retry_delay,
                failures=execution.failures,
                errors=execution.errors,
                reason=execution.reason,
                notes=execution.notes(),
            )
        )
    if execution.put_off_delay is not None:
        return bool(
            put_off(
                alias,
                held,
                delay=execution.put_off_delay,
                reason=execution.reason,
                notes=execution.notes(),
            )
        )
    return True


class Outcomes:
    """Executions that have run: written by the dispatcher, with its claims."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._database = dispatcher.plan.database
        self.unwritten: list[Execution] = []
        self.ran = 0
        self.counts = {"successful": 0, "failed": 0, "cancelled": 0, "retried": 0}
        #: What the supervisor hasn't been told yet.
        self.tally = Tally()
        self._tracebacks_at: dict[str, float] = {}
        self._noted_at = 0.0

    def are_due(self, held: int) -> bool:
        """Say whether to write now."""
        unwritten = self.unwritten
        if not unwritten:
            return False
        if len(unwritten) >= FLUSH_COUNT or len(unwritten) == held:
            return True
        if any(execution.holds_a_place for execution in unwritten):
            return True  # Others wait for it.
        ended = unwritten[0].began
        assert ended is not None
        return time.time() - ended.timestamp() - unwritten[0].seconds >= FLUSH_SECONDS

    def endings(self) -> list[Ending]:
        """Return the endings that are to be written."""
        return [
            e.ending
            for e in self.unwritten
            if e.ending is not None and not e.written and not e.superseded
        ]

    def write_others(self) -> None:
        """Write what is neither success nor final failure, once."""
        for execution in self.unwritten:
            if execution.ending is None and not execution.superseded:
                self._write_other(execution)

    def _write_other(self, execution: Execution) -> None:
        if not write_other(self._database, execution) and not execution.noted:
            self._drop([execution])
        execution.noted = True

    def written(self, executions: list[Execution], ended: set[str]) -> None:
        """Let go of what was written; announce it."""
        lost = [
            e
            for e in executions
            if e.ending is not None and not e.written and e.row.id not in ended
        ]
        if lost:
            self._drop(self._not_arrived(lost))
        seconds = 0.0
        asked = []
        minute = minute_of(time.time())
        for execution in executions:
            self._dispatcher.let_go(execution)
            seconds += execution.seconds
            if execution.cancelled:
                asked.append(execution.row.id)
            if execution.superseded:
                continue
            if execution.retry_delay is not None:
                self._count(execution, "retried", minute)
            elif execution.ending is not None:
                self._count(execution, execution.ending.status.lower(), minute)
            self._dispatcher.child.announcer.announce(execution)
        self.ran += len(executions)
        self._dispatcher.slots.learn(seconds, len(executions))
        self._dispatcher.gate.ended(executions)
        self.unwritten = []
        if asked:
            try:
                requests_are_done(self._database, asked)
            except Exception as error:
                # The outcomes are written; what is left of the requests is pruned.
                self._dispatcher.failed(error)

    def _count(self, execution: Execution, outcome: str, minute: int) -> None:
        self.counts[outcome] += 1
        row, waited = execution.row, None
        # Later attempts waited for a pause, and members of workflows for others.
        if row.attempt <= 1 and execution.began is not None and not is_member(execution.options):
            since = (
                row.enqueued_at if row.run_after is None else max(row.enqueued_at, row.run_after)
            )
            waited = (execution.began - since).total_seconds()
        self.tally.add(
            (minute, row.queue_name, row.task_path),
            outcome,
            waited=waited,
            # What was not worth starting any more did not run.
            ran=execution.seconds or None,
        )
        ending = execution.ending
        if ending is not None and ending.fingerprint:
            self._count_failure(execution, ending.fingerprint)

    def _count_failure(self, execution: Execution, fingerprint: str) -> None:
        now = time.monotonic()
        last = json.loads(execution.errors or "[{}]")[-1]
        traceback = ""
        if now - self._tracebacks_at.get(fingerprint, -TRACEBACK_PAUSE) >= TRACEBACK_PAUSE:
            if len(self._tracebacks_at) > 1_000:
                self._tracebacks_at.clear()
            self._tracebacks_at[fingerprint] = now
            traceback = last.get("traceback", "")
        self.tally.add_failure(
            fingerprint,
            execution.row.task_path,
            execution.row.id,
            exception_class=last.get("exception_class_path", ""),
            message=execution.reason.partition(": ")[2],
            traceback=traceback,
        )

    def _not_arrived(self, executions: list[Execution]) -> list[Execution]:
        """
        Return those of executions whose outcome did not arrive.

        One may have: by a commit that was made and not acknowledged.
        """
        arrived = {
            (str(pk), str(claim))
            for pk, claim in FinishedTask.objects.using(self._database)
            .filter(pk__in=[e.row.id for e in executions])
            .values_list("pk", "claim_id")
        }
        return [e for e in executions if (e.row.id, e.row.claim_id) not in arrived]

    def _drop(self, lost: list[Execution]) -> None:
        """Give up outcomes of tasks that others have taken over."""
        for execution in lost:
            execution.superseded = True
            logger.warning(
                "The outcome of %s is dropped: others have taken the task over.",
                execution.row.id,
                extra={"task_id": execution.row.id, "task_path": execution.row.task_path},
            )
        if lost:
            claim_lost.send_robust(
                type(self._dispatcher.child.backend), task_ids=[e.row.id for e in lost]
            )

    def isolate(self) -> None:
        """Write outcomes one by one, after one of them was refused for what it holds."""
        for execution in list(self.unwritten):
            ended: set[str] = set()
            for _ in range(2):
                try:
                    if execution.written or execution.superseded:
                        pass
                    elif execution.ending is None:
                        self._write_other(execution)
                    else:
                        ended = exchange(self._database, [execution.ending], None).ended
                    break
                except Exception as error:
                    reset_connection(connections[self._database])
                    execution.fail_unstorable(error)
            rest = [e for e in self.unwritten if e is not execution]
            self.written([execution], ended)
            self.unwritten = rest

    def write_progress(self, running: Mapping[str, Execution]) -> None:
        """Note what running tasks have said of their progress, at most twice a second."""
        now = time.monotonic()
        if not running or now - self._noted_at < PROGRESS_SECONDS:
            return
        self._noted_at = now
        for execution in list(running.values()):
            if not execution.progress_is_new:
                continue
            execution.progress_is_new = False
            notes = execution.notes()
            assert notes is not None
            try:
                note(self._database, (execution.row.id, execution.row.claim_id), notes)
            except Exception as error:
                self._dispatcher.failed(error)
                return
