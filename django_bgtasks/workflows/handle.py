"""A workflow as its enqueuer holds it: state, progress, results, cancel, retry."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import connections

from .. import transitions
from ..compat import task_backends
from ..db import operations_for
from ..dependencies import chunks
from ..exceptions import (
    TaskCancelled,
    TaskFailed,
    WaitInTransaction,
    WaitTimeout,
    WorkflowDoesNotExist,
    WrongState,
)
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.workflow import Node, Workflow, WorkflowStatus
from ..results import Commitment, DatabaseTaskResult, result_of
from ..states import FinalStatus, LiveStatus
from . import values
from .description import Description

#: Seconds between two looks of get(): it begins quick and gets patient.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
#: In the order in which a task goes through them.
STATES = (*LiveStatus.values, *FinalStatus.values)


@dataclass(slots=True)
class WorkflowResult:
    """
    A workflow: what enqueue() of a chain, group or graph returns.

    state is RUNNING until all its tasks are final; then SUCCESSFUL, FAILED if
    a task has that was not allowed to, CANCELLED if one was. Times are UTC.
    """

    id: str
    name: str
    backend: str
    database: str
    size: int
    enqueued_at: datetime
    state: str = WorkflowStatus.RUNNING.value
    finished_at: datetime | None = None
    reason: str = ""
    commitment: Commitment = field(
        default_factory=lambda: Commitment(done=False), repr=False, compare=False
    )

    def _row(self) -> Workflow:
        return _row(self.id, self.database)

    def refresh(self) -> None:
        """Read the state again. Raise WorkflowDoesNotExist if it was pruned."""
        row = self._row()
        self.state, self.size = str(row.status), row.size
        self.finished_at, self.reason = row.finished_at, row.reason

    async def arefresh(self) -> None:
        """See refresh()."""
        await sync_to_async(self.refresh, thread_sensitive=True)()

    @property
    def is_finished(self) -> bool:
        """Whether all its tasks are final, as refresh() saw it."""
        return self.state != WorkflowStatus.RUNNING

    @property
    def progress(self) -> dict[str, int]:
        """
        How far it is, read now: {"total", "done", and how many tasks are in each state}.
        """
        self._row()
        counts = dict.fromkeys(STATES, 0)
        members = Node.objects.using(self.database).filter(workflow_id=self.id)
        total = 0
        for some in chunks(members.values_list("pk", flat=True)):
            total += len(some)
            for model in (QueuedTask, FinishedTask):
                rows = model._default_manager.using(self.database).filter(pk__in=some)
                for status in rows.values_list("status", flat=True):
                    counts[status] += 1
        done = sum(counts[status] for status in FinalStatus.values)
        return {"total": total, "done": done, **counts}

    @property
    def done(self) -> int:
        """How many of its tasks are final, read now in one query; without one once all are."""
        if self.is_finished:
            return self.size
        members = Node.objects.using(self.database).filter(workflow_id=self.id)
        final = FinishedTask.objects.using(self.database)
        return final.filter(pk__in=members.values("pk")).count()

    @property
    def results(self) -> list[DatabaseTaskResult]:
        """The results of its tasks in the order in which they were written, read now."""
        members = Node.objects.using(self.database).filter(workflow_id=self.id)
        ids = list(members.order_by("number").values_list("pk", flat=True))
        rows: dict[UUID, Any] = {}
        # Live, finished, live again: a row that moves meanwhile is found.
        for model in (QueuedTask, FinishedTask, QueuedTask):
            for some in chunks(set(ids) - set(rows)):
                rows.update(model._default_manager.using(self.database).in_bulk(some))
        return [result_of(rows[pk]) for pk in ids if pk in rows]

    def result(self, name: str) -> DatabaseTaskResult:
        """Return the result of the task of this name. Raise KeyError unless there is just one."""
        members = Node.objects.using(self.database).filter(workflow_id=self.id, name=name)
        ids = list(members.values_list("pk", flat=True)[:2])
        if len(ids) != 1:
            raise KeyError(
                f"{'No task' if not ids else 'More than one task'} of workflow {self.name!r} is "
                f"called {name!r}. task.with_args(...).named({name!r}) gives one a name of its own."
            )
        from ..results import fetch_result

        return fetch_result(str(ids[0]), self.database)

    # Waiting

    def get(self, timeout: float | None = None) -> Any:
        """
        Wait until the workflow has finished; return the value of its last element.

        timeout is in seconds, None waits for ever. Raise TaskFailed or
        TaskCancelled, which say where it began, WaitTimeout, or
        WaitInTransaction where waiting can't end.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while not self._has_finished():
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise WaitTimeout(self._why_not(timeout))
            time.sleep(pause if remaining is None else min(pause, remaining))
            pause = min(pause * 1.3 * random.uniform(0.9, 1.1), _LONGEST_PAUSE)
        return self._value()

    async def aget(self, timeout: float | None = None) -> Any:
        """See get()."""
        import asyncio

        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while not await sync_to_async(self._has_finished, thread_sensitive=True)():
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise WaitTimeout(
                    await sync_to_async(self._why_not, thread_sensitive=True)(timeout)
                )
            await asyncio.sleep(pause if remaining is None else min(pause, remaining))
            pause = min(pause * 1.3, _LONGEST_PAUSE)
        return await sync_to_async(self._value, thread_sensitive=True)()

    def _has_finished(self) -> bool:
        waits_for_itself = not self.commitment.done and any(
            c.in_atomic_block for c in connections.all(initialized_only=True)
        )
        try:
            self.refresh()
        except WorkflowDoesNotExist:
            if not waits_for_itself:
                raise
        if waits_for_itself and not self.is_finished:
            raise WaitInTransaction(
                "This workflow was enqueued in the transaction that is still open, so no worker "
                "can see it. Wait after the block ends."
            )
        return self.is_finished

    def _value(self) -> Any:
        row = self._row()
        if self.state == WorkflowStatus.SUCCESSFUL:
            if row.value_of is None:
                return None
            conf = getattr(task_backends[row.backend], "conf", None)
            return values.value_of(
                self.database, conf, row.value_of, is_barrier=row.value_of_barrier, what=self.name
            )
        # What was allowed to fail is no cause of it.
        counted = Node.objects.using(self.database).filter(workflow_id=self.id, may_fail=False)
        blamed = {str(pk) for pk in counted.values_list("pk", flat=True)}
        mine = [one for one in self.failures if one["state"] == self.state]
        mine.sort(key=lambda one: one["id"] not in blamed)
        first = next(iter(mine), None)
        what = f"{first['name']} ({first['id']}): {first['error']}" if first else self.reason
        if self.state == WorkflowStatus.CANCELLED:
            raise TaskCancelled(f"Workflow {self.name!r} ({self.id}) was cancelled. {what}")
        raise TaskFailed(f"Workflow {self.name!r} ({self.id}) failed. {what}")

    @property
    def failures(self) -> list[dict[str, Any]]:
        """
        What failed or was cancelled, but for what followed from it, read now.

        Each is {"id", "task", "name", "state", "error"}.
        """
        row = self._row()
        end = values.Barrier.objects.using(self.database).get(workflow_id=row.pk, condition="end")
        return values.failures(self.database, self.id, end.pk)

    def _why_not(self, timeout: float | None) -> str:
        counts = self.progress
        states = ", ".join(f"{counts[s]} {s.lower()}" for s in LiveStatus.values if counts[s])
        text = (
            f"Gave up after {timeout:g} s: of {counts['total']} tasks of workflow {self.name!r} "
            f"{counts['done']} are done; {states or 'the others'}."
        )
        if connections[self.database].in_atomic_block:
            text += " This connection is in a transaction, which may keep workers from writing, "
            text += "and hides what they write: call get() after the block."
        return text

    # By hand

    def cancel(
        self, *, by: str = "", why: str = "", force: bool = False, finally_too: bool = False
    ) -> bool:
        """
        Cancel what has not finished; say whether all of it is final now.

        What runs is asked to end, as DatabaseTaskResult.cancel() says, and adds
        nothing any more. The tasks of finally_= still run, unless finally_too.
        """
        alias = self.database
        operations = operations_for(alias)
        nodes = Node.objects.using(alias).filter(workflow_id=self.id)
        if not finally_too:
            nodes = nodes.filter(is_final=False)
        reason = transitions.cancelled_by(by, why)

        def unit() -> None:
            with operations.step():
                # Locked: what runs adds its tasks before, and is seen, or not at all.
                Workflow.objects.using(alias).filter(
                    pk=self.id, status=WorkflowStatus.RUNNING
                ).update(reason=reason)
                live = self._live(nodes)
                if live:
                    moved = set(transitions.cancel(alias, live, by=by, why=why))
                    rest = [pk for pk in live if pk not in moved]
                    transitions.ask_to_end(alias, rest, by=by, why=why, force=force)

        self._row()
        if operations.connection.in_atomic_block:
            unit()
        else:
            operations.retrying(unit)
        self.refresh()
        return self.is_finished

    def _live(self, nodes: Any) -> list[str]:
        ids: list[str] = []
        for some in chunks(nodes.values_list("pk", flat=True)):
            rows = QueuedTask.objects.using(self.database).filter(pk__in=some)
            ids += [str(pk) for pk in rows.values_list("pk", flat=True)]
        return ids

    async def acancel(self, **options: Any) -> bool:
        """See cancel()."""
        return await sync_to_async(self.cancel, thread_sensitive=True)(**options)

    def retry(self, *, by: str = "") -> int:
        """
        Run again what has failed or was cancelled, and then what was skipped because of it.

        Return how many tasks are not final any more. Raise WrongState where
        nothing has failed.
        """
        alias = self.database
        nodes = Node.objects.using(alias).filter(workflow_id=self.id, skipped=False)
        ids: list[str] = []
        for some in chunks(nodes.values_list("pk", flat=True)):
            rows = FinishedTask.objects.using(alias).filter(pk__in=some)
            bad = rows.exclude(status=FinalStatus.SUCCESSFUL)
            ids += [str(pk) for pk in bad.values_list("pk", flat=True)]
        moved = transitions.retry(alias, ids, by=by) if ids else []
        self.refresh()
        if not moved:
            raise WrongState(
                f"Nothing of workflow {self.name!r} ({self.id}) has failed or was cancelled; it "
                f"is {self.state.lower()}."
            )
        return len(moved)

    async def aretry(self, *, by: str = "") -> int:
        """See retry()."""
        return await sync_to_async(self.retry, thread_sensitive=True)(by=by)

    # Seeing

    def describe(self) -> Description:
        """Return what it is made of and how far each part is: print it, .as_dict(), .svg()."""
        return Description.read(self._row(), self.database)

    @property
    def admin_url(self) -> str:
        """The address of the workflow in the admin."""
        from django.urls import reverse

        return reverse("admin:bgtasks_workflow_change", args=[self.id])


def _row(workflow_id: str, alias: str) -> Workflow:
    try:
        return Workflow.objects.using(alias).get(pk=workflow_id)
    except (Workflow.DoesNotExist, ValidationError, ValueError):
        raise WorkflowDoesNotExist(
            f"There is no workflow {workflow_id!r}: it was pruned, or the transaction that "
            "enqueued it was rolled back or is still open."
        ) from None


def handle_of(row: Workflow) -> WorkflowResult:
    """Return the handle of a row."""
    return WorkflowResult(
        id=str(row.pk),
        name=row.name,
        backend=row.backend,
        database=row._state.db or "default",
        size=row.size,
        enqueued_at=row.enqueued_at,
        state=str(row.status),
        finished_at=row.finished_at,
        reason=row.reason,
        commitment=Commitment(done=True),
    )


def get_workflow(workflow_id: str, *, backend: str = "default") -> WorkflowResult:
    """Return the handle of a workflow by its id. Raise WorkflowDoesNotExist."""
    made: Any = task_backends[backend]
    return handle_of(_row(str(workflow_id), made.database))
