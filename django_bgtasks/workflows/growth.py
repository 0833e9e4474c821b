"""What a running task adds to its own workflow."""

from __future__ import annotations

from typing import Any

from .. import wakeups
from ..compat import task_enqueued
from ..context import Place
from ..exceptions import InvalidWorkflow
from ..models.workflow import Edge, Node, Workflow
from ..signals import task_committed
from .elements import Buildable, element
from .enqueueing import join
from .plan import Plan, too_large


class Growth(Place):
    """
    The context.workflow of a task that a worker runs.

    Planning asks no database, so that async tasks can add, too.
    """

    def __init__(self, backend: Any, task_id: str, workflow_id: str) -> None:
        self._backend = backend
        self._task_id = task_id
        self._workflow_id = workflow_id
        #: With each whether it takes the task's place.
        self.plans: list[tuple[Plan, bool]] = []

    @property
    def id(self) -> str:
        return self._workflow_id

    def add(self, element: Buildable) -> None:
        self._plan(element, in_place=False)

    def continue_with(self, element: Buildable) -> None:
        refuse_second([in_place for _, in_place in self.plans])
        self._plan(element, in_place=True)

    def _plan(self, what: Buildable, *, in_place: bool) -> None:
        added = sum(len(plan.nodes) for plan, _ in self.plans)
        plan = Plan(
            element(what),
            self._backend,
            workflow_id=self._workflow_id,
            room=self._backend.conf.max_workflow_size - added,
            after=self._task_id,
        )
        self.plans.append((plan, in_place))

    def write(self) -> None:
        """
        Write it down, in the transaction of the task's success.

        Nothing is written in a workflow that was cancelled meanwhile. Raise
        WorkflowTooLarge, or DuplicateTask.
        """
        alias, conf = self._backend.database, self._backend.conf
        # One task adds after the other, and none while somebody cancels.
        workflow = Workflow.objects.using(alias).select_for_update().get(pk=self._workflow_id)
        place = Node.objects.using(alias).get(pk=self._task_id)
        if workflow.is_cancelled and not place.is_final:
            return
        leading = list(Edge.objects.using(alias).filter(source=self._task_id).order_by("pk"))
        size = workflow.size
        for plan, in_place in self.plans:
            if size + len(plan.nodes) > conf.max_workflow_size:
                raise too_large(conf.max_workflow_size)
            for number, node in enumerate(plan.nodes, size):
                node.number = number
                node.may_fail = node.may_fail or place.may_fail
                node.is_final = node.is_final or place.is_final
            size += len(plan.nodes)
            join(plan, alias, self._task_id, leading, in_place=in_place)
        wakeups.on_commit(alias, self._announce)

    def _announce(self) -> None:
        sender = type(self._backend)
        for plan, _ in self.plans:
            for result in plan.rows.results:
                result.commitment.done = True
                task_enqueued.send_robust(sender, task_result=result)
                task_committed.send_robust(sender, task_result=result)


def refuse_second(in_place: list[bool]) -> None:
    """Raise InvalidWorkflow if another result takes the task's place already."""
    if any(in_place):
        raise InvalidWorkflow(
            "continue_with() was called before: only one result can take the task's place. "
            "Put both in a group(...)."
        )
