"""One slot of a worker, in the thread of a test: the worker's own parts, one task at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

from asgiref.sync import async_to_sync
from django.db import DatabaseError, connections, transaction

from .. import limits, transitions
from ..backend import DatabaseBackend
from ..db import ClaimedTask, ClaimRequest, operations_for
from ..definition import unvalidated
from ..ids import new_id
from ..models import QueuedTask
from ..queues import backends, paused
from ..worker.execution import Execution
from ..worker.outcomes import write_other
from .recording import unseen

logger = logging.getLogger("django_bgtasks.testing")

#: What stands as worker_id in the rows.
NAME = "test"


class TestedExecution(Execution):
    """An Execution on connections that are the test's, and so are the transactions on them."""

    __slots__ = ()

    def leave_connections(self) -> None:
        pass


class Slot:
    """Claims, runs and finishes the tasks of one database."""

    def __init__(self, alias: str) -> None:
        refuse_own_transactions(alias)
        self.alias = alias
        self.backends: dict[str, DatabaseBackend] = {b.alias: b for b in backends(alias)}
        self._served = list(dict.fromkeys(q for b in self.backends.values() for q in b.queue_order))

    def claim(self) -> TestedExecution | None:
        """Claim what a worker of all queues would run next, None if nothing is READY."""
        while True:
            stopped = {row.name for row in paused(database=self.alias)}
            there = set(operations_for(self.alias).queue_names()) - stopped
            queues = [name for name in self._served if name in there]
            queues += sorted(there - set(queues))
            if not queues:
                return None
            execution = self._made(
                transitions.exchange(self.alias, [], self._request(queues)).claimed
            )
            if execution is None or self._admit(execution):
                return execution

    def claim_one(self, task_id: str) -> TestedExecution | None:
        """Claim a task, past queues and limits; None unless it is READY or waits at a limit."""
        request = self._request(["-"], [task_id])
        execution = self._made(transitions.exchange(self.alias, [], request).claimed)
        if execution is None:
            with operations_for(self.alias).write():
                execution = self._made(transitions.hand_over(self.alias, request))
        return execution

    def _request(
        self, queues: Sequence[str], candidates: Sequence[str] | None = None
    ) -> ClaimRequest:
        return ClaimRequest(
            queues=queues,
            limit=1,
            claim_id=new_id(),
            worker_id=NAME,
            lease=operations_for(self.alias).default_lease,
            candidates=candidates,
        )

    def _made(self, rows: Sequence[ClaimedTask]) -> TestedExecution | None:
        for row in rows:
            # A backend that is no more in the settings: its tasks run by what is there.
            backend = self.backends.get(row.backend) or next(iter(self.backends.values()))
            execution = TestedExecution(row, backend, 0)
            execution.resolve()
            return execution
        return None

    def _admit(self, execution: Execution) -> bool:
        """Ask the task's limits; say whether it may run. It waits there if not."""
        row = execution.row
        asking = limits.candidate(
            row.id, row.claim_id, row.queue_name, -row.priority, execution.options
        )
        return asking is None or row.id in limits.admit(self.alias, [asking]).starts

    def refill(self) -> bool:
        """Make READY what waits at limits that have room; say whether there was any."""
        found, after = set(), ""
        while True:
            queues, after = limits.sweep(self.alias, [], after, any_but=True)
            found |= queues
            if not after:
                return bool(found - {row.name for row in paused(database=self.alias)})

    def begin(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TestedExecution:
        """
        Enqueue a task, unseen by those who record what a test enqueues, and claim it.

        Past its queue, its limits and run_after. Raise RuntimeError if another
        task has its unique key.
        """
        with unseen():
            result = unvalidated(task, run_after=None).enqueue(*args, **kwargs)
        execution = self.claim_one(result.id) if result.created else None
        if execution is None:
            raise RuntimeError(
                f"{task.func.__name__}() was not enqueued: task {result.id}, which is "
                f"{result.state.lower()}, has its unique key."
            )
        return execution

    def run(self, execution: Execution, *, pauses: bool = True) -> bool:
        """
        Run a task and write what came of it; say whether that was ours to write.

        Without pauses another attempt may follow at once.
        """
        callbacks = Callbacks()
        self.call(execution)
        callbacks.run()
        return self.finish(execution, pauses=pauses)

    def call(
        self, execution: Execution, watching: AbstractContextManager[None] | None = None
    ) -> None:
        """
        Call the function of a task, and write nothing but what the task itself writes.

        watching is entered meanwhile: it sees the task's statements alone.
        """
        with as_in_autocommit(), watching or nullcontext():
            if execution.is_async:
                async_to_sync(execution.arun)()
            else:
                execution.run()
        if isinstance(execution.exception, KeyboardInterrupt):
            raise execution.exception  # Whoever pressed Ctrl+C means the tests.

    def finish(self, execution: Execution, *, pauses: bool = True) -> bool:
        """Write what came of a task that was called, and send its signal; see run()."""
        delay = execution.retry_delay
        if delay is not None and not pauses:
            execution.retry_delay = 0.0
        callbacks = Callbacks()
        ours = self._write(execution)
        callbacks.run()
        execution.retry_delay = delay
        if ours:
            execution.announce()
        return ours

    def _write(self, execution: Execution) -> bool:
        if execution.written or execution.superseded:
            return execution.written
        try:
            return self._write_once(execution)
        except DatabaseError as error:
            execution.fail_unstorable(error)
            return self._write_once(execution)

    def _write_once(self, execution: Execution) -> bool:
        if execution.ending is None:
            return write_other(self.alias, execution)
        ended = transitions.exchange(self.alias, [execution.ending], None).ended
        return execution.row.id in ended

    def lose(self, execution: Execution, why: str) -> None:
        """Do what a worker does when the process that runs a task has died; it runs again."""
        held = [(execution.row.id, execution.row.claim_id)]
        transitions.rescue(self.alias, held, why=why, max_lost=execution.row.lost_count + 2)

    def make_due(self, task_id: str) -> None:
        """Make a SCHEDULED task READY before its time, and what is due before it."""
        rows = QueuedTask.objects.using(self.alias).filter(pk=task_id, due_at__isnull=False)
        for due in rows.values_list("due_at", flat=True):
            while transitions.promote(self.alias, 1000, now=due):
                pass


def refuse_own_transactions(alias: str) -> None:
    """Raise RuntimeError in a block of transaction.atomic() that isn't the test case's own."""
    blocks: list[Any] = connections[alias].atomic_blocks
    if blocks and not blocks[-1]._from_testcase:
        raise RuntimeError(
            "Tasks can't be run within a block of transaction.atomic(): on a worker they begin "
            "after its commit. Run them after the block."
        )


def _open_in_test() -> list[Any]:
    """Return the connections with a transaction that is the test's."""
    return [c for c in connections.all(initialized_only=True) if c.in_atomic_block]


@contextmanager
def as_in_autocommit() -> Iterator[None]:
    """
    Have a task find the test's transactions as if there were none.

    What it does in a block of atomic() is undone when that fails, even in one
    without a savepoint. A statement that fails outside of one doesn't keep the
    test from going on; PostgreSQL takes nothing more after it, until all that
    the task did is undone.
    """
    marks = [(c, c.savepoint(), len(c.atomic_blocks)) for c in _open_in_test()]
    depths = {connection.alias: depth for connection, _, depth in marks}
    enter = transaction.Atomic.__enter__

    def enter_with_savepoint(block: Any) -> None:
        connection = transaction.get_connection(block.using)
        given = block.savepoint
        block.savepoint = given or len(connection.atomic_blocks) == depths.get(connection.alias)
        try:
            enter(block)
        finally:
            block.savepoint = given

    with mock.patch.object(transaction.Atomic, "__enter__", enter_with_savepoint):
        yield
    for connection, mark, _ in reversed(marks):
        connection.needs_rollback = False
        if mark is not None:
            try:
                connection.savepoint_commit(mark)
            except DatabaseError:
                connection.needs_rollback = False
                connection.savepoint_rollback(mark)


class Callbacks:
    """What is passed to on_commit() from now on: the test's transactions never commit."""

    def __init__(self) -> None:
        self._counts = [(c, len(c.run_on_commit)) for c in _open_in_test()]

    def run(self) -> None:
        """Call it, as a commit would."""
        for connection, count in self._counts:
            while len(connection.run_on_commit) > count:
                _, callback, robust = connection.run_on_commit.pop(count)
                try:
                    callback()
                except Exception:
                    if not robust:
                        raise
                    logger.exception("A callback of on_commit() failed.")

    def drop(self) -> None:
        """Forget it."""
        for connection, count in self._counts:
            del connection.run_on_commit[count:]
