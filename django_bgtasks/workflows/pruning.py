"""Old workflows go as a whole: while one may be retried, it needs what its tasks returned."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from ..db import operations_for
from ..dependencies import chunks
from ..models.finished import FinishedTask
from ..models.step import Step
from ..models.workflow import Barrier, Edge, Node, Workflow, WorkflowStatus

#: Workflows of one transaction at most.
BATCH = 50


def prune(alias: str, *, successful: float | None, failed: float | None, limit: int) -> int:
    """
    Delete workflows, with their tasks, that ended longer ago than their retention in seconds.

    None keeps all. About limit tasks at most; return how many.
    """
    now = operations_for(alias).now()
    total = 0
    for seconds, statuses in (
        (successful, [WorkflowStatus.SUCCESSFUL]),
        (failed, [WorkflowStatus.FAILED, WorkflowStatus.CANCELLED]),
    ):
        if seconds is None:
            continue
        before = now - timedelta(seconds=seconds)
        for status in statuses:
            while total < limit:
                old = Workflow.objects.using(alias).filter(status=status, finished_at__lt=before)
                rows = list(old.order_by("finished_at").values_list("pk", "size")[:BATCH])
                some: list[UUID] = []
                tasks = 0
                for pk, size in rows:
                    if some and total + tasks + size > limit:
                        break
                    some.append(pk)
                    tasks += size
                if not some:
                    break
                forget(alias, some, statuses=[status])
                operations_for(alias).pause()
                total += tasks
    return total


def forget(alias: str, workflows: Iterable[object], *, statuses: Iterable[str]) -> None:
    """Delete workflows that have one of these statuses still, and all that belongs to them."""
    operations = operations_for(alias)

    def unit() -> None:
        with operations.write():
            locked = Workflow.objects.using(alias).select_for_update()
            ids = list(
                locked.filter(pk__in=list(workflows), status__in=list(statuses))
                .order_by("pk")
                .values_list("pk", flat=True)
            )
            nodes = Node.objects.using(alias).filter(workflow_id__in=ids)
            for some in chunks(nodes.values_list("pk", flat=True)):
                Step.objects.using(alias).filter(task_id__in=some)._raw_delete(alias)
                FinishedTask.objects.using(alias).filter(pk__in=some)._raw_delete(alias)
            nodes._raw_delete(alias)
            barriers = Barrier.objects.using(alias).filter(workflow_id__in=ids)
            for some in chunks(barriers.values_list("pk", flat=True)):
                Edge.objects.using(alias).filter(barrier_id__in=some)._raw_delete(alias)
            barriers._raw_delete(alias)
            Workflow.objects.using(alias).filter(pk__in=ids)._raw_delete(alias)

    operations.retrying(unit)
