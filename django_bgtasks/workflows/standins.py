"""Workflows of the immediate and the dummy backend: in memory, in the caller's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..compat import TaskResultStatus
from ..context import Place
from ..exceptions import InvalidWorkflow, TaskFailed, WaitTimeout
from ..models.workflow import Condition, Shape
from .elements import Buildable, Element, element
from .placing import looked_up, put
from .plan import Input, Plan, PlannedBarrier, PlannedNode

_STATE = {TaskResultStatus.SUCCESSFUL: "SUCCESSFUL", TaskResultStatus.FAILED: "FAILED"}


@dataclass(slots=True)
class _Planned:
    task: Any
    node: PlannedNode
    args: list[Any]
    kwargs: dict[str, Any]
    placed: Sequence[Any]


class _Calls:
    """What spool.Rows is for rows: the calls of a plan, checked."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.calls: list[_Planned] = []

    def add(
        self,
        task: Any,
        node: PlannedNode,
        args: list[Any],
        kwargs: dict[str, Any],
        placed: Sequence[Any],
    ) -> None:
        if task.backend != self._backend.alias:
            raise InvalidWorkflow("All tasks of a workflow are of one backend.")
        task.signature.bind(args, kwargs)
        task.signature.encode(args, kwargs, self._backend.conf.max_argument_size)
        self.calls.append(_Planned(task, node, args, kwargs, placed))

    def flush(self) -> None:
        """Nothing waits."""


class PlaceInMemory(Place):
    """The context.workflow of a task that the immediate backend runs."""

    def __init__(self, workflow: WorkflowInMemory) -> None:
        self._workflow = workflow
        self.added: list[tuple[Element, bool]] = []

    @property
    def id(self) -> str:
        return self._workflow.id

    def add(self, element_: Buildable) -> None:
        self.added.append((element(element_), False))

    def continue_with(self, element_: Buildable) -> None:
        self.added.append((element(element_), True))


@dataclass(slots=True)
class WorkflowInMemory:
    """What enqueue() of a chain, group or graph returns where no row is written."""

    id: str
    name: str
    backend: str
    size: int
    state: str = "RUNNING"
    results: list[Any] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    value: Any = field(default=None, repr=False)

    @property
    def is_finished(self) -> bool:
        """Whether it has run."""
        return self.state != "RUNNING"

    @property
    def progress(self) -> dict[str, int]:
        """How many of its tasks have run, or never will."""
        done = len(self.results) + self.skipped if self.is_finished else 0
        return {"total": self.size, "done": done}

    def refresh(self) -> None:
        """Nothing changes behind its back."""

    async def arefresh(self) -> None:
        """See refresh()."""

    def get(self, timeout: float | None = None) -> Any:
        """Return its value. Raise TaskFailed, or WaitTimeout if it never ran."""
        if not self.is_finished:
            raise WaitTimeout(f"The backend {self.backend!r} runs nothing.")
        if self.state == "FAILED":
            first = self.failures[0]
            raise TaskFailed(
                f"Workflow {self.name!r} failed. {first['name']} ({first['id']}): {first['error']}"
            )
        return self.value

    async def aget(self, timeout: float | None = None) -> Any:
        """See get()."""
        return self.get(timeout)


def plan_of(top: Element, backend: Any, **options: Any) -> tuple[Plan, list[_Planned]]:
    """Return a plan, checked as a real one, with its calls."""
    calls = _Calls(backend)
    return Plan(top, backend, rows=calls, **options), calls.calls


def enqueue_in_memory(backend: Any, top: Element, *, name: str = "", run: bool) -> WorkflowInMemory:
    """Check a workflow, and run it if run says so."""
    plan, calls = plan_of(top, backend)
    workflow = WorkflowInMemory(plan.workflow_id, name or plan.name, backend.alias, len(plan.nodes))
    if not run:
        for call in calls:
            workflow.results.append(backend.enqueue(call.task, call.args, call.kwargs))
        return workflow
    session = _Session(backend, workflow)
    session.run(plan, calls)
    workflow.value = session.value(plan.output)
    workflow.state = "FAILED" if session.has_failed else "SUCCESSFUL"
    return workflow


class _Session:
    """The results of a workflow while it runs."""

    def __init__(self, backend: Any, workflow: WorkflowInMemory) -> None:
        self._backend = backend
        self._workflow = workflow
        #: By the id of a node: whether it was successful, and its value.
        self.ended: dict[str, tuple[bool, Any]] = {}
        #: By the id of a node: what runs behind it, or in its place.
        self.growth: dict[str, list[tuple[PlannedNode | PlannedBarrier, bool]]] = {}
        self.has_failed = False
        self._outputs: dict[str, PlannedNode | PlannedBarrier] = {}

    def run(self, plan: Plan, calls: Sequence[_Planned]) -> None:
        """Run what can be: parents are planned before their children."""
        self._outputs.update((call.node.id, call.node) for call in calls)
        self._outputs.update((barrier.id, barrier) for barrier in plan.barriers)
        for call in calls:
            barrier = call.node.barrier
            if barrier is not None and not self._is_open(barrier):
                self._workflow.skipped += 1
                self.ended[call.node.id] = (False, None)
            else:
                self._run_one(call)

    def _run_one(self, call: _Planned) -> None:
        node = call.node
        args, kwargs = list(call.args), dict(call.kwargs)
        for path, source, keys in call.placed:
            if source == "!":
                value: Any = list(self._workflow.failures)
            elif source:
                value = self.value(self._outputs[source[2:]])
            else:
                assert node.barrier is not None
                value = self.value(node.barrier)
            put(args, kwargs, path, looked_up(value, keys, f"{call.task.func.__name__}()"))
        place = PlaceInMemory(self._workflow)
        result = self._backend.run_member(call.task, args, kwargs, place)
        self._workflow.results.append(result)
        ok = result.status == TaskResultStatus.SUCCESSFUL
        self.ended[node.id] = (ok, result.return_value if ok else None)
        if not ok:
            error = result.errors[-1]
            self.has_failed = self.has_failed or not node.may_fail
            self._workflow.failures.append(
                {
                    "id": result.id,
                    "task": call.task.module_path,
                    "name": node.name,
                    "state": _STATE[result.status],
                    "error": error.traceback.strip().rpartition("\n")[2],
                }
            )
            return
        for added, in_place in place.added:
            plan, calls = plan_of(
                added, self._backend, workflow_id=self._workflow.id, after=node.id
            )
            self._workflow.size += len(plan.nodes)
            self.run(plan, calls)
            self.growth.setdefault(node.id, []).append((plan.output, in_place))

    def _ok(self, of: PlannedNode | PlannedBarrier) -> bool:
        if isinstance(of, PlannedBarrier):
            return self._is_open(of)
        ok, _ = self.ended[of.id]
        return ok and all(self._ok(output) for output, _ in self.growth.get(of.id, ()))

    def _is_open(self, barrier: PlannedBarrier) -> bool:
        failed = sum(not one.lenient and not self._ok(one.of) for one in barrier.inputs)
        if barrier.condition == Condition.SUCCESS:
            return failed == 0
        return barrier.condition != Condition.FAILURE or failed > 0

    def value(self, of: PlannedNode | PlannedBarrier) -> Any:
        """Return the value of an output."""
        if isinstance(of, PlannedNode):
            for output, in_place in self.growth.get(of.id, ()):
                if in_place:
                    return self.value(output)
            return self.ended[of.id][1]
        values: list[Any] = []
        for one in self._with_value(of):
            value = self.value(one.of)
            if isinstance(one.of, PlannedBarrier) and one.of.shape == Shape.FLAT:
                values += value
            else:
                values.append(value)
        if of.shape == Shape.SINGLE:
            return values[0] if values else None
        return values

    @staticmethod
    def _with_value(barrier: PlannedBarrier) -> list[Input]:
        return [one for one in barrier.inputs if one.position is not None]
