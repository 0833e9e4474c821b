"""The rows of a workflow between their check and their writing: in memory, or in a file."""

from __future__ import annotations

import pickle
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from .. import uniqueness
from ..batch import Batch
from ..compat import task_enqueued
from ..definition import DatabaseTask
from ..exceptions import InvalidWorkflow
from ..signals import task_committed
from ..states import LiveStatus

if TYPE_CHECKING:
    from .plan import PlannedNode

#: Rows take so many bytes of memory before they go to a file.
IN_MEMORY = 8 * 1024 * 1024
#: Rows that are made together.
AT_ONCE = 1000
#: So many of one task and status are inserted by the statement for many of one kind.
ALIKE = 50


class Rows:
    """
    Rows of QueuedTask, checked.

    add() takes one task after the other; written() gives back what is to be
    inserted, as often as it is asked.
    """

    def __init__(self, backend: Any, workflow_id: str) -> None:
        self._backend = backend
        self._workflow = workflow_id
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._frames = 0
        self._adding: dict[tuple[int, str], list[Any]] = defaultdict(list)
        self._added = 0
        self._tasks: dict[int, Any] = {}
        self._now = timezone.now()
        #: Queues that have work as soon as this is committed.
        self.queues: set[str] = set()
        #: Keys that must be free, with their texts and the names of their tasks.
        self.claims: list[tuple[uniqueness.Claim, str, str]] = []
        #: What signals are given: kept only if somebody listens.
        self.results: list[Any] = []
        self._is_listened_to = bool(
            task_committed.receivers or task_enqueued.has_listeners(type(backend))
        )

    def add(
        self,
        task: Any,
        node: PlannedNode,
        args: list[Any],
        kwargs: dict[str, Any],
        placed: Sequence[Any],
    ) -> None:
        """Check a call. Raise InvalidWorkflow or InvalidArguments."""
        self._check(task)
        origin: dict[str, Any] = {"id": self._workflow}
        status = ""
        if node.barrier is not None:
            origin["barrier"] = node.barrier.id
        if placed:
            origin["previous"] = placed
        if node.waits:
            status = LiveStatus.WAITING.value
            if task.expires is not None:
                origin["expires_in"] = task.expires
        elif task.run_after is None or task.run_after <= self._now:
            self.queues.add(task.queue_name)
        # Signatures are checked at once, so that the culprit is named before others are seen.
        task.signature.bind(args, kwargs)
        self._tasks[id(task)] = task
        self._adding[id(task), status].append((args, kwargs, (node.id, {"workflow": origin})))
        self._added += 1
        if self._added >= AT_ONCE:
            self.flush()

    def _check(self, task: Any) -> None:
        if id(task) in self._tasks:
            return
        if task.backend != self._backend.alias or not isinstance(task, DatabaseTask):
            raise InvalidWorkflow(
                f"{task.func.__name__}() is a task of the backend {task.backend!r}, the workflow "
                f"is one of {self._backend.alias!r}. All tasks of a workflow are of one backend."
            )
        self._backend.check_queue(task)

    def flush(self) -> None:
        """Make rows of what was added. Raise InvalidArguments."""
        mixed: list[Sequence[Any]] = []
        for (key, status), calls in self._adding.items():
            task = self._tasks[key]
            batch = Batch(
                task,
                [(args, kwargs) for args, kwargs, _ in calls],
                alias=self._backend.alias,
                database=self._backend.database,
                conf=self._backend.conf,
                members=[member for _, _, member in calls],
                status=status or None,
            )
            if self._is_listened_to:
                self.results += batch.created
            if task.unique is not None:
                self.claims += batch.claims()
            if len(batch.rows) >= ALIKE and not batch.keyed:
                self._keep(batch.rows, keyed=False)
            else:
                mixed += batch.rows if batch.keyed else [(*row, "", "") for row in batch.rows]
        if mixed:
            self._keep(mixed, keyed=True)
        self._adding.clear()
        self._added = 0

    def _keep(self, rows: Sequence[Sequence[Any]], *, keyed: bool) -> None:
        pickle.dump((keyed, list(rows)), self._file, pickle.HIGHEST_PROTOCOL)
        self._frames += 1

    def written(self) -> Iterator[tuple[bool, list[Sequence[Any]]]]:
        """Yield rows that are inserted together, and whether they are of KEYED_COLUMNS."""
        self._file.seek(0)
        for _ in range(self._frames):
            # Our own file, deleted before it had a name for others.
            yield pickle.load(self._file)
