"""A planned workflow becomes rows, all in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.db.models import F
from django.utils import timezone

from .. import dependencies, transitions, uniqueness, wakeups
from ..compat import task_backends
from ..db import operations_for
from ..exceptions import DuplicateTask, InvalidWorkflow
from ..models.workflow import Barrier, Edge, Node, Workflow
from ..results import fetch_result
from ..signals import task_committed
from .elements import Call, Chunks, Element, Graph, Several, checked_name
from .plan import Input, Plan, PlannedBarrier

if TYPE_CHECKING:
    from .handle import WorkflowResult

#: Rows of one INSERT.
BATCH = 1000


def enqueue(top: Element, *, name: str = "") -> WorkflowResult:
    """Plan a workflow and write it: see Element.enqueue()."""
    from .handle import WorkflowResult

    if name:
        checked_name(name)
    backend = backend_of(top)
    if not hasattr(backend, "deliver"):
        return backend.enqueue_workflow(top, name=name)
    plan = Plan(top, backend)
    handle = WorkflowResult(
        id=plan.workflow_id,
        name=name or plan.name,
        backend=backend.alias,
        database=backend.database,
        size=len(plan.nodes),
        enqueued_at=timezone.now(),
    )

    def committed() -> None:
        handle.commitment.done = True
        for result in plan.rows.results:
            result.commitment.done = True
            if task_committed.receivers:
                task_committed.send_robust(type(backend), task_result=result)
        wakeups.wake(backend.database, *sorted(plan.rows.queues))

    backend.deliver(lambda: _write(plan, handle), committed, lambda: plan.rows.results)
    return handle


def backend_of(top: Element) -> Any:
    """Return the backend of the tasks of an element. Raise InvalidWorkflow."""
    task = next(_tasks(top, set()), None)
    if task is None:
        raise InvalidWorkflow(
            "This workflow has no task at all, not even one that would follow an empty group."
        )
    backend = task_backends[task.backend]
    if not hasattr(backend, "deliver") and not hasattr(backend, "enqueue_workflow"):
        raise InvalidWorkflow(
            f"{task.func.__name__}() is a task of the backend {task.backend!r}, which knows no "
            "workflows: it is none of django_bgtasks."
        )
    return backend


def _tasks(element: Element, seen: set[int]) -> Iterator[Any]:
    if id(element) in seen:
        return
    seen.add(id(element))
    inner: list[Element | None] = []
    if isinstance(element, Call | Chunks):
        yield element.task
    elif isinstance(element, Several):
        inner = [*element.elements, element.on_failure, element.finally_]
    elif isinstance(element, Graph):
        inner = [*(s.element for s in element.steps), element.on_failure, element.finally_]
    for one in inner:
        if one is not None:
            yield from _tasks(one, seen)


def _write(plan: Plan, handle: WorkflowResult) -> None:
    alias = plan.backend.database
    end = plan.end()

    def unit() -> None:
        with operations_for(alias).step():
            Workflow.objects.using(alias).create(
                id=plan.workflow_id,
                name=handle.name,
                backend=plan.backend.alias,
                size=len(plan.nodes),
                enqueued_at=handle.enqueued_at,
                value_of=plan.output.id,
                value_of_barrier=isinstance(plan.output, PlannedBarrier),
            )
            write_parts(plan, alias)
            if not end.missing:
                dependencies.conclude(alias, [end.id])  # type: ignore[list-item]

    if operations_for(alias).connection.in_atomic_block:
        unit()
    else:
        operations_for(alias).retrying(unit)


def write_parts(plan: Plan, alias: str) -> None:
    """Write the barriers, edges, nodes and tasks of a plan, in the caller's transaction."""
    _take_keys(plan, alias)
    barriers = Barrier.objects.using(alias)
    barriers.bulk_create(
        (
            Barrier(
                id=one.id,
                workflow_id=plan.workflow_id,
                condition=one.condition,
                shape=one.shape,
                missing=one.missing,
                opened_at=None if one.missing else timezone.now(),
            )
            for one in plan.barriers
        ),
        batch_size=BATCH,
    )
    Edge.objects.using(alias).bulk_create(edges_of(plan.barriers), batch_size=BATCH)
    Node.objects.using(alias).bulk_create(
        (
            Node(
                task_id=node.id,
                workflow_id=plan.workflow_id,
                number=node.number,
                name=node.name,
                part=node.part,
                barrier_id=None if node.barrier is None else node.barrier.id,
                may_fail=node.may_fail,
                is_final=node.is_final,
            )
            for node in plan.nodes
        ),
        batch_size=BATCH,
    )
    for keyed, rows in plan.rows.written():
        transitions.enqueue(alias, rows, keyed=keyed)


def edges_of(barriers: Iterable[PlannedBarrier]) -> Iterator[Edge]:
    """Yield the inputs of barriers as rows."""
    for barrier in barriers:
        for one in barrier.inputs:
            yield edge(one, barrier.id)


def edge(one: Input, barrier_id: Any) -> Edge:
    """Return the row of an input."""
    return Edge(
        source=one.of.id,
        from_barrier=isinstance(one.of, PlannedBarrier),
        barrier_id=barrier_id,
        position=one.position,
        lenient=one.lenient,
    )


def _take_keys(plan: Plan, alias: str) -> None:
    """Take the unique keys of a plan's tasks. Raise DuplicateTask: no other can take the place."""
    taken: set[str] = set()
    for claim, text, name in plan.rows.claims:
        holder = uniqueness.take(alias, claim, earlier=taken)
        taken.add(claim.task_id)
        if holder is not None:
            if holder in taken:
                raise DuplicateTask(
                    f"{name}(): two tasks of this workflow have the unique key {text!r}.", None
                )
            found = fetch_result(holder, alias)
            raise DuplicateTask(
                f"{name}(): task {holder} has the unique key {text!r} and is "
                f"{found.state.lower()}. Another task can't take its place in a workflow.",
                found,
            )


def join(plan: Plan, alias: str, task_id: str, leading: Iterable[Edge], *, in_place: bool) -> None:
    """
    Write what a running task adds behind itself, in the transaction of its success.

    What waits for the task by the edges leading waits for that, too; with
    in_place it is given its value and not the task's.
    """
    write_parts(plan, alias)
    edges = Edge.objects.using(alias)
    new = []
    held: dict[Any, int] = {}
    for old in leading:
        position = old.position if in_place else None
        new.append(edge(Input(plan.output, position, old.lenient), old.barrier_id))
        held[old.barrier_id] = held.get(old.barrier_id, 0) + 1
        if in_place:
            edges.filter(pk=old.pk).update(position=None)
    end = Barrier.objects.using(alias).get(workflow_id=plan.workflow_id, condition="end")
    for loose in plan.loose:
        new.append(edge(Input(loose, None, lenient=True), end.pk))
        held[end.pk] = held.get(end.pk, 0) + 1
    edges.bulk_create(new, batch_size=BATCH)
    for barrier, more in sorted(held.items()):
        Barrier.objects.using(alias).filter(pk=barrier).update(missing=F("missing") + more)
    changes: dict[str, Any] = {"size": F("size") + len(plan.nodes)}
    workflows = Workflow.objects.using(alias).filter(pk=plan.workflow_id)
    if in_place:
        workflows.filter(value_of=task_id).update(
            value_of=plan.output.id, value_of_barrier=isinstance(plan.output, PlannedBarrier)
        )
    workflows.update(**changes)
