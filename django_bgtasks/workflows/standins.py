"""Workflows of the immediate and the dummy backend: in memory, in the caller's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone

from ..compat import TaskResultStatus
from ..context import Place
from ..exceptions import InvalidWorkflow, PreviousNotUsable, TaskFailed, WaitTimeout
from ..models.workflow import Condition, Shape
from .elements import Buildable, Element, element
from .growth import refuse_second
from .placing import looked_up, put
from .plan import Plan, PlannedBarrier, PlannedNode


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

    def __init__(self, session: _Session, node: PlannedNode) -> None:
        self._session = session
        self._node = node
        self.added: list[tuple[Plan, list[_Planned], bool]] = []

    @property
    def id(self) -> str:
        return self._session.workflow.id

    def add(self, element_: Buildable) -> None:
        self._plan(element_, in_place=False)

    def continue_with(self, element_: Buildable) -> None:
        refuse_second([in_place for _, _, in_place in self.added])
        self._plan(element_, in_place=True)

    def _plan(self, what: Buildable, *, in_place: bool) -> None:
        session = self._session
        there = session.workflow.size + sum(len(plan.nodes) for plan, _, _ in self.added)
        plan, calls = plan_of(
            element(what),
            session.backend,
            workflow_id=session.workflow.id,
            after=self._node.id,
            room=session.backend.conf.max_workflow_size - there,
        )
        for node in plan.nodes:
            node.may_fail = node.may_fail or self._node.may_fail
            node.is_final = node.is_final or self._node.is_final
        self.added.append((plan, calls, in_place))


@dataclass(slots=True)
class WorkflowInMemory:
    """What enqueue() of a chain, group or graph returns where no row is written."""

    id: str
    name: str
    backend: str
    size: int
    state: str = "RUNNING"
    reason: str = ""
    enqueued_at: datetime = field(default_factory=timezone.now)
    finished_at: datetime | None = None
    results: list[Any] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    value: Any = field(default=None, repr=False)
    names: dict[str, list[Any]] = field(default_factory=dict, repr=False)
    #: The failure for which it has failed.
    culprit: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def is_finished(self) -> bool:
        """Whether it has run."""
        return self.state != "RUNNING"

    @property
    def done(self) -> int:
        """How many of its tasks have run, or never will."""
        return len(self.results) + self.skipped if self.is_finished else 0

    @property
    def progress(self) -> dict[str, int]:
        """How far it is: {"total", "done"}."""
        return {"total": self.size, "done": self.done}

    def result(self, name: str) -> Any:
        """Return the result of the task of this name. Raise KeyError unless there is just one."""
        found = self.names.get(name, [])
        if len(found) != 1:
            raise KeyError(f"{len(found)} tasks of workflow {self.name!r} are called {name!r}.")
        return found[0]

    def refresh(self) -> None:
        """Nothing changes behind its back."""

    async def arefresh(self) -> None:
        """See refresh()."""

    def cancel(self, **options: Any) -> bool:
        """Nothing is left to cancel; say whether all of it is final."""
        return self.is_finished

    def get(self, timeout: float | None = None) -> Any:
        """Return its value. Raise TaskFailed, or WaitTimeout if it never ran."""
        if not self.is_finished:
            raise WaitTimeout(f"The backend {self.backend!r} runs nothing.")
        if self.culprit is not None:
            raise TaskFailed(
                f"Workflow {self.name!r} failed. {self.culprit['name']} ({self.culprit['id']}): "
                f"{self.culprit['error']}"
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
            result = backend.enqueue(call.task, call.args, call.kwargs)
            workflow.results.append(result)
            workflow.names.setdefault(call.node.name, []).append(result)
        return workflow
    session = _Session(backend, workflow)
    session.run(plan, calls)
    workflow.value = session.value(plan.output)
    workflow.state = "SUCCESSFUL" if workflow.culprit is None else "FAILED"
    workflow.finished_at = timezone.now()
    return workflow


Output = PlannedNode | PlannedBarrier


class _Session:
    """The results of a workflow while it runs."""

    def __init__(self, backend: Any, workflow: WorkflowInMemory) -> None:
        self.backend = backend
        self.workflow = workflow
        #: By the id of a node: whether it was successful, and its value.
        self._ended: dict[str, tuple[bool, Any]] = {}
        #: By the id of a node: what runs behind it, or in its place.
        self._growth: dict[str, list[tuple[Output, bool]]] = {}
        self._outputs: dict[str, Output] = {}
        #: By the id of a node: what has failed there, but for what followed from others.
        self._failed: dict[str, dict[str, Any]] = {}

    def run(self, plan: Plan, calls: Sequence[_Planned]) -> None:
        """Run what can be: parents are planned before their children."""
        self._outputs.update((call.node.id, call.node) for call in calls)
        self._outputs.update((barrier.id, barrier) for barrier in plan.barriers)
        for call in calls:
            barrier = call.node.barrier
            if barrier is not None and not self._is_open(barrier):
                self.workflow.skipped += 1
                self._ended[call.node.id] = (False, None)
            else:
                self._run_one(call)

    def _run_one(self, call: _Planned) -> None:
        node = call.node
        args, kwargs = list(call.args), dict(call.kwargs)
        place = PlaceInMemory(self, node)
        try:
            self._fill(call, args, kwargs)
        except PreviousNotUsable as error:
            # As on a worker, the attempt fails before the function is called.
            self._fails(call, "", "FAILED", f"{type(error).__name__}: {error}")
            return
        result = self.backend.run_member(call.task, args, kwargs, place)
        self.workflow.results.append(result)
        self.workflow.names.setdefault(node.name, []).append(result)
        if result.status != TaskResultStatus.SUCCESSFUL:
            text = result.errors[-1].traceback.strip().rpartition("\n")[2]
            self._fails(call, result.id, "FAILED", text)
            return
        self._ended[node.id] = (True, result.return_value)
        outputs: list[tuple[Output, bool]] = []
        for plan, calls, in_place in place.added:
            self.workflow.size += len(plan.nodes)
            self.run(plan, calls)
            outputs.append((plan.output, in_place))
        # Only now: what was added comes after the task, and not after what else was added.
        self._growth[node.id] = outputs

    def _fill(self, call: _Planned, args: list[Any], kwargs: dict[str, Any]) -> None:
        barrier = call.node.barrier
        for path, source, keys in call.placed:
            if source == "!":
                assert barrier is not None
                before = self._before(barrier, set())
                value: Any = [one for pk, one in self._failed.items() if pk in before]
            elif source:
                value = self.value(self._outputs[source[2:]])
            else:
                assert barrier is not None
                value = self.value(barrier)
            put(args, kwargs, path, looked_up(value, keys, f"{call.task.func.__name__}()"))

    def _fails(self, call: _Planned, result_id: str, state: str, error: str) -> None:
        failure = {
            "id": result_id,
            "task": call.task.module_path,
            "name": call.node.name,
            "state": state,
            "error": error,
        }
        self._ended[call.node.id] = (False, None)
        self._failed[call.node.id] = failure
        self.workflow.failures.append(failure)
        if not call.node.may_fail and self.workflow.culprit is None:
            self.workflow.culprit = failure

    def _before(self, barrier: PlannedBarrier, found: set[str]) -> set[str]:
        """Return the ids of all that comes before a barrier."""
        for one in barrier.inputs:
            if one.of.id in found:
                continue
            found.add(one.of.id)
            behind = one.of if isinstance(one.of, PlannedBarrier) else one.of.barrier
            if behind is not None:
                self._before(behind, found)
        return found

    def _ok(self, of: Output) -> bool:
        if isinstance(of, PlannedBarrier):
            return self._is_open(of)
        ok, _ = self._ended[of.id]
        return ok and all(self._ok(output) for output, _ in self._growth.get(of.id, ()))

    def _is_open(self, barrier: PlannedBarrier) -> bool:
        failed = sum(not one.lenient and not self._ok(one.of) for one in barrier.inputs)
        if barrier.condition == Condition.SUCCESS:
            return failed == 0
        return barrier.condition != Condition.FAILURE or failed > 0

    def value(self, of: Output) -> Any:
        """Return the value of an output."""
        if isinstance(of, PlannedNode):
            for output, in_place in self._growth.get(of.id, ()):
                if in_place:
                    return self.value(output)
            return self._ended[of.id][1]
        values: list[Any] = []
        for one in of.inputs:
            if one.position is None:
                continue
            value = self.value(one.of)
            if isinstance(one.of, PlannedBarrier) and one.of.shape == Shape.FLAT:
                values += value
            else:
                values.append(value)
        if of.shape == Shape.SINGLE:
            return values[0] if values else None
        return values
