"""What a running task adds to its own workflow."""

from __future__ import annotations

from typing import Any

from ..context import Place
from ..exceptions import InvalidWorkflow
from ..models.workflow import Node, Workflow
from .elements import Buildable, element
from .enqueueing import join
from .plan import Plan


class Growth(Place):
    """The context.workflow of a task that a worker runs."""

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
        if any(in_place for _, in_place in self.plans):
            raise InvalidWorkflow(
                "continue_with() was called before: only one result can take the task's place. "
                "Put both in a group(...)."
            )
        self._plan(element, in_place=True)

    def _plan(self, what: Buildable, *, in_place: bool) -> None:
        alias, conf = self._backend.database, self._backend.conf
        workflow = Workflow.objects.using(alias).get(pk=self._workflow_id)
        added = sum(len(plan.nodes) for plan, _ in self.plans)
        place = Node.objects.using(alias).get(pk=self._task_id)
        plan = Plan(
            element(what),
            self._backend,
            workflow_id=self._workflow_id,
            room=conf.max_workflow_size - workflow.size - added,
            after=self._task_id,
            first=workflow.size + added,
        )
        for node in plan.nodes:
            node.may_fail = node.may_fail or place.may_fail
            node.is_final = node.is_final or place.is_final
        self.plans.append((plan, in_place))

    def write(self) -> None:
        """Write it down, in the transaction of the task's success."""
        for plan, in_place in self.plans:
            join(plan, self._backend.database, self._task_id, in_place=in_place)
