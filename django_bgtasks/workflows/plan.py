"""
From elements to nodes and barriers: checked as a whole, before anything is written.

A plan holds the shape of a workflow in memory, and its rows in a Spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import count, islice
from typing import Any

from ..exceptions import InvalidArguments, InvalidWorkflow, WorkflowTooLarge
from ..ids import new_id
from ..models.workflow import Condition, Shape
from .elements import Call, Chain, Chunks, Element, Graph, Group, Previous, Several, Step
from .placing import Path, taken_out
from .spool import Rows

#: Inputs of one barrier; more of them meet at several first.
WIDTH = 100
#: Chunks of map_chunks() that are in memory at once.
AT_ONCE = 100


@dataclass(slots=True, eq=False)
class PlannedNode:
    """A task that is to be written; a number below 0 stands for one that is there already."""

    id: str
    number: int
    name: str
    part: str = ""
    barrier: PlannedBarrier | None = None
    may_fail: bool = False
    is_final: bool = False

    @property
    def waits(self) -> bool:
        """Whether it can't run at once."""
        return self.barrier is not None and self.barrier.missing > 0


@dataclass(slots=True, eq=False)
class Input:
    """What a barrier waits for; position is None where its value isn't asked for."""

    of: PlannedNode | PlannedBarrier
    position: int | None
    lenient: bool = False


@dataclass(slots=True, eq=False)
class PlannedBarrier:
    """A barrier that is to be written."""

    condition: Condition
    shape: Shape
    inputs: list[Input]
    #: Whether `previous` says something behind it.
    has_value: bool = True
    id: str = field(default_factory=new_id)
    missing: int = 0

    def __post_init__(self) -> None:
        self.missing = sum(
            isinstance(one.of, PlannedNode) or one.of.missing > 0 for one in self.inputs
        )


Output = PlannedNode | PlannedBarrier


@dataclass(slots=True)
class _Surroundings:
    """What an element inherits from those around it."""

    part: str = ""
    may_fail: bool = False
    is_final: bool = False
    #: Graphs around it: one can't contain itself.
    graphs: tuple[Graph, ...] = ()
    outputs: dict[Step, Output] = field(default_factory=dict)

    def within(self, **changes: Any) -> _Surroundings:
        values = {
            "part": self.part,
            "may_fail": self.may_fail,
            "is_final": self.is_final,
            "graphs": self.graphs,
            "outputs": self.outputs,
        }
        return _Surroundings(**{**values, **changes})

    def named(self, name: str) -> _Surroundings:
        """Return the same within a chain, group or graph of this name."""
        if not name:
            return self
        return self.within(part=f"{self.part} / {name}"[:255] if self.part else name)


class Plan:
    """
    A workflow, or what is added to one, that is ready to be written.

    room is how many tasks it may have. after is the id of a task of workflow_id
    that is there already, and behind which all of it runs. rows takes the calls
    where they don't become rows.
    """

    def __init__(
        self,
        top: Element,
        backend: Any,
        *,
        workflow_id: str = "",
        room: int | None = None,
        after: str | None = None,
        first: int = 0,
        rows: Any = None,
    ) -> None:
        self.workflow_id = workflow_id or new_id()
        self.backend = backend
        self.nodes: list[PlannedNode] = []
        self.barriers: list[PlannedBarrier] = []
        self.rows = Rows(backend, self.workflow_id) if rows is None else rows
        #: What the end waits for besides the output: on_failure and finally_.
        self.loose: list[Output] = []
        self._room = backend.conf.max_workflow_size if room is None else room
        self._numbers = count(first)
        self._behind: dict[PlannedNode, PlannedBarrier] = {}
        self._top = top
        #: The members of the groups that allow failures, as they were planned last.
        self._allowed: dict[Group, list[Output]] = {}
        start = None
        if after is not None:
            start = PlannedNode(after, -1, "")
        self.output = self._element(top, start, _Surroundings())
        self.rows.flush()

    @property
    def name(self) -> str:
        """What the workflow is called, unless enqueue() says otherwise."""
        if self._top.name:
            return self._top.name
        names = list(dict.fromkeys(node.name for node in self.nodes))
        if isinstance(self._top, Call):
            return names[0]
        kind = "map_chunks" if isinstance(self._top, Chunks) else type(self._top).__name__.lower()
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        return f"{kind}: {shown}"[:255] if names else f"empty {kind}"

    # Elements

    def _element(self, element: Element, after: Output | None, around: _Surroundings) -> Output:
        """Plan an element behind an output; return its own."""
        if isinstance(element, Call):
            return self._call(element, after, around)
        if isinstance(element, Chunks):
            return self._chunks(element, after, around)
        if isinstance(element, Graph):
            return self._handled(element, self._graph(element, after, around), around)
        assert isinstance(element, Several)
        if element is not self._top:
            around = around.named(element.name)
        if isinstance(element, Chain):
            output = after
            for one in element.elements:
                output = self._element(one, output, around)
            assert output is not None
        else:
            output = self._group(element, after, around)
        return self._handled(element, output, around)

    def _group(self, group: Several, after: Output | None, around: _Surroundings) -> PlannedBarrier:
        lenient = isinstance(group, Group) and group.allow_failures
        within = around.within(may_fail=around.may_fail or lenient)
        outputs = [self._element(one, after, within) for one in group.elements]
        if isinstance(group, Group) and lenient:
            self._allowed[group] = outputs
        return self._gathered(outputs, after, lenient=lenient)

    def _gathered(
        self, outputs: Sequence[Output], after: Output | None, *, lenient: bool
    ) -> PlannedBarrier:
        """Return the barrier behind the members of a group; without any it still comes after."""
        inputs = [Input(of, position, lenient) for position, of in enumerate(outputs)]
        if not inputs and after is not None:
            inputs = [Input(after, None)]
        return self._barrier(Condition.SUCCESS, Shape.LIST, inputs)

    def _handled(self, element: Several | Graph, output: Output, around: _Surroundings) -> Output:
        """Plan what runs once an element has failed, or is final."""
        over = isinstance(output, PlannedBarrier) and not output.missing
        handlers: list[Output] = []
        if element.on_failure is not None and not over:
            # Those that may fail don't show in what their group has come to.
            members = self._allowed.get(element, ()) if isinstance(element, Group) else ()
            watched = [Input(output, 0), *(Input(member, None) for member in members)]
            failed = self._barrier(Condition.FAILURE, Shape.SINGLE, watched)
            handlers.append(self._element(element.on_failure, failed, around))
        if element.finally_ is not None:
            inputs = [Input(output, 0, lenient=True)]
            inputs += [Input(one, None, lenient=True) for one in handlers]
            final = self._barrier(Condition.FINISHED, Shape.SINGLE, inputs)
            handlers.append(self._element(element.finally_, final, around.within(is_final=True)))
        self.loose += handlers
        return output

    def _call(self, call: Call, after: Output | None, around: _Surroundings) -> PlannedNode:
        node = self._node(call.label, after, around)
        own_args, own_kwargs, found = taken_out(call.args, call.kwargs)
        placed = [self._placed(call, node, around, *one) for one in found]
        try:
            self.rows.add(call.task, node, own_args, own_kwargs, placed)
        except InvalidArguments as error:
            if placed or node.barrier is None or "missing" not in str(error):
                raise
            raise InvalidArguments(
                f"{error}. In a workflow results are not passed by themselves: write "
                f"{call.label}.with_args(previous)."
            ) from None
        return node

    def _node(self, name: str, after: Output | None, around: _Surroundings) -> PlannedNode:
        self._room -= 1
        if self._room < 0:
            raise too_large(self.backend.conf.max_workflow_size)
        node = PlannedNode(
            new_id(),
            next(self._numbers),
            name,
            around.part,
            self._behind_of(after),
            around.may_fail,
            around.is_final,
        )
        self.nodes.append(node)
        return node

    def _placed(
        self, call: Call, node: PlannedNode, around: _Surroundings, path: Path, given: Previous
    ) -> list[Any]:
        """Return where a result goes, and which: [path, source, keys]."""
        argument = path[0]
        if isinstance(argument, int):
            positional = call.task.signature.positional
            argument = positional[argument] if argument < len(positional) else f"*args[{argument}]"
        where = f"{call.label}(): argument {argument!r}"
        for option, key in self._keys(call.task):
            if argument in key.names:
                raise InvalidWorkflow(
                    f"{where} is {given!r}, which isn't known yet, but {option}={key.text!r} "
                    "is made of it. Pass what the key needs itself."
                )
        if given.step is not None:
            output = around.outputs.get(given.step)
            if output is None:
                raise InvalidWorkflow(
                    f"{where} is the result of {given.step.name!r}, a step of another graph."
                )
            # By a barrier: another task may take this one's place while it runs.
            barrier = self._behind_of(output)
            assert barrier is not None
            return [path, f"b:{barrier.id}", list(given.keys)]
        if node.barrier is None or not node.barrier.has_value:
            raise InvalidWorkflow(
                f"{where} is {given!r}, but nothing runs before it whose result that could be."
            )
        return [path, "!" if given.of_failures else "", list(given.keys)]

    @staticmethod
    def _keys(task: Any) -> Iterator[tuple[str, Any]]:
        marks = task.marks
        for option in ("unique", "fair"):
            if (key := getattr(marks, option)) is not None:
                yield option, key
        for option in ("concurrency", "rate"):
            if (limit := getattr(marks, option)) is not None:
                yield option, limit.key

    def _chunks(self, chunks: Chunks, after: Output | None, around: _Surroundings) -> Output:
        task = chunks.task
        if chunks.width is not None:
            task = task.using(concurrency=(f"map_chunks {new_id()}", chunks.width))
        within = around.within(may_fail=around.may_fail or chunks.allow_failures)
        outputs: list[Output] = []
        if iter(chunks.items) is chunks.items:
            if chunks.used:
                raise InvalidWorkflow(
                    "The items of map_chunks() are a generator that was gone through before. Pass "
                    "a list or a queryset, or make the flow anew."
                )
            chunks.used.append(True)
        for chunk in _in_lists(_all_of(chunks.items), chunks.size):
            # One by one through the same checks; the spool keeps them from memory.
            call = Call(task, (chunk, *chunks.args), chunks.kwargs)
            outputs.append(self._call(call, after, within))
            if len(outputs) % AT_ONCE == 0:
                self.rows.flush()
        return self._gathered(outputs, after, lenient=chunks.allow_failures)

    # Graphs

    def _graph(self, graph: Graph, after: Output | None, around: _Surroundings) -> Output:
        if graph in around.graphs:
            raise InvalidWorkflow(f"The graph {graph.name!r} contains itself.")
        if graph is not self._top:
            around = around.named(graph.name)
        around = around.within(graphs=(*around.graphs, graph), outputs=dict(around.outputs))
        uses = {
            step: [s for s in steps_in(step.element) if s.graph is graph] for step in graph.steps
        }
        before = {step: [*step.parents, *uses[step]] for step in graph.steps}
        try:
            order = list(TopologicalSorter(before).static_order())
        except CycleError as error:
            circle = " → ".join(step.name for step in reversed(error.args[1]))
            raise InvalidWorkflow(f"These steps wait for each other: {circle}.") from None
        for step in order:
            behind = self._before_step(step, uses[step], after, around)
            around.outputs[step] = self._element(step.element, behind, around)
        inner = {parent for parents in before.values() for parent in parents}
        last = [around.outputs[step] for step in graph.steps if step not in inner]
        return last[0] if len(last) == 1 else self._gathered(last, after, lenient=False)

    def _before_step(
        self, step: Step, uses: Sequence[Step], after: Output | None, around: _Surroundings
    ) -> Output | None:
        """Return what a step waits for."""
        parents = [around.outputs[parent] for parent in step.parents]
        used = [around.outputs[u] for u in dict.fromkeys(uses) if u not in step.parents]
        if not parents and not used:
            return after
        if len(parents) == 1 and not used and not step.allow_failures:
            return parents[0]
        lenient = step.allow_failures
        inputs = [Input(of, position, lenient) for position, of in enumerate(parents)]
        inputs += [Input(of, None, lenient) for of in used]
        shape = Shape.SINGLE if len(parents) == 1 else Shape.LIST
        barrier = self._barrier(Condition.SUCCESS, shape, inputs)
        barrier.has_value = bool(parents)
        return barrier

    # Barriers

    def _behind_of(self, output: Output | None) -> PlannedBarrier | None:
        """Return the barrier that waits for an output, one for all that do."""
        if output is None or isinstance(output, PlannedBarrier):
            return output
        barrier = self._behind.get(output)
        if barrier is None:
            barrier = self._barrier(Condition.SUCCESS, Shape.SINGLE, [Input(output, 0)])
            self._behind[output] = barrier
        return barrier

    def _barrier(
        self, condition: Condition, shape: Shape, inputs: Sequence[Input]
    ) -> PlannedBarrier:
        inputs = list(inputs)
        while len(inputs) > WIDTH:
            meeting = [
                PlannedBarrier(Condition.SUCCESS, Shape.FLAT, some)
                for some in _in_lists(inputs, WIDTH)
            ]
            self.barriers += meeting
            lenient = condition in (Condition.FINISHED, Condition.END)
            inputs = [Input(of, position, lenient) for position, of in enumerate(meeting)]
        barrier = PlannedBarrier(condition, shape, inputs)
        self.barriers.append(barrier)
        return barrier

    def end(self) -> PlannedBarrier:
        """Return the barrier behind which the workflow is over."""
        inputs = [Input(of, None, lenient=True) for of in (self.output, *self.loose)]
        return self._barrier(Condition.END, Shape.LIST, inputs)


def too_large(most: int) -> WorkflowTooLarge:
    """Return the error about a workflow of more than most tasks."""
    return WorkflowTooLarge(
        f"A workflow has at most {most:,} tasks (OPTIONS['MAX_WORKFLOW_SIZE']). Give each task "
        "more to do, as map_chunks() does with a larger size, or let tasks enqueue others."
    )


def steps_in(element: Element, within: tuple[Graph, ...] = ()) -> Iterator[Step]:
    """Yield the steps whose results are asked for within an element."""
    if isinstance(element, Call | Chunks):
        for _, given in taken_out(element.args, element.kwargs)[2]:
            if given.step is not None:
                yield given.step
        return
    inner: list[Element | None] = []
    if isinstance(element, Several):
        inner = list(element.elements)
    elif isinstance(element, Graph):
        if element in within:
            return  # It contains itself: planning says so.
        within = (*within, element)
        inner = [step.element for step in element.steps]
    assert isinstance(element, Several | Graph)
    for one in (*inner, element.on_failure, element.finally_):
        if one is not None:
            yield from steps_in(one, within)


def _all_of(items: Iterable[Any]) -> Iterator[Any]:
    """Go through items; a queryset by its iterator(), which doesn't keep them."""
    chunked = getattr(items, "iterator", None)
    if chunked is not None and hasattr(items, "query"):
        return iter(chunked(chunk_size=2000))
    return iter(items)


def _in_lists(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield items in lists of size."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
