"""
What workflows are built of: calls, chains, groups, graphs, and `previous`.

Nothing here touches a database. An element can stand in another one, and be
enqueued as often as one likes: each time it is planned anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from ..compat import Task
from ..definition import DatabaseTask
from ..exceptions import InvalidWorkflow

if TYPE_CHECKING:
    from .handle import WorkflowResult

#: What may stand where an element is asked for: an element, or a task without arguments.
Buildable = Any


@dataclass(frozen=True, slots=True)
class Previous:
    """
    Where the result of what ran before goes: previous, previous["user_id"], previous[0].

    After a group it is the list of its members' results, None for one that
    failed and was allowed to. `previous.failures` is a list of what failed,
    each a dictionary of "id", "task", "name", "state" and "error".
    """

    # None: what the task waits for; else a step of a graph.
    step: Step | None = None
    keys: tuple[Any, ...] = ()
    of_failures: bool = False

    def __getitem__(self, key: str | int) -> Previous:
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise TypeError(f"A key of previous is a string or a whole number, not {key!r}.")
        return replace(self, keys=(*self.keys, key))

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "previous is not known before the workflow runs, and can't be gone through. "
            "Pass it to a task that does."
        )

    @property
    def failures(self) -> Previous:
        """What failed before, for the tasks of on_failure= and finally_=."""
        if self.step is not None or self.keys:
            raise AttributeError("failures is asked of previous itself.")
        return replace(self, of_failures=True)

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is not known before the workflow runs, and can't be asked.")

    def __str__(self) -> str:
        raise TypeError(
            f"{self!r} is not known before the workflow runs, and can't be put into a text. Pass "
            "it as an argument of its own, and make the text in the task."
        )

    def __format__(self, spec: str) -> str:
        return str(self)

    def __repr__(self) -> str:
        if self.of_failures:
            return "previous.failures"
        name = "previous" if self.step is None else f"<{self.step.name}>"
        return name + "".join(f"[{key!r}]" for key in self.keys)


previous = Previous()


class Element:
    """Whatever can be enqueued as a workflow."""

    name: str

    def enqueue(self, *, name: str = "") -> WorkflowResult:
        """
        Write the whole workflow in the caller's transaction; return its handle.

        name is what the admin shows; the element's own without it. Raise
        InvalidWorkflow, InvalidArguments or DuplicateTask; nothing is written then.
        """
        from .enqueueing import enqueue

        return enqueue(self, name=name)

    def __or__(self, other: Any) -> Any:
        raise TypeError("Workflows are not piped: write chain(a, b) instead of a | b.")

    async def aenqueue(self, *, name: str = "") -> WorkflowResult:
        """See enqueue()."""
        return await sync_to_async(self.enqueue, thread_sensitive=True)(name=name)


@dataclass(frozen=True, slots=True, eq=False)
class Call(Element):
    """A task with its arguments: task.with_args(...)."""

    task: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def named(self, name: str) -> Call:
        """Return the same call under another name than its task's."""
        return replace(self, name=checked_name(name))

    def using(self, **options: Any) -> Call:
        """Return the same call of task.using(**options)."""
        return replace(self, task=self.task.using(**options))

    def __repr__(self) -> str:
        # No arguments: a repr ends up in logs.
        return f"<{self.label}>"

    @property
    def label(self) -> str:
        """The name, or the task's."""
        return self.name or self.task.func.__name__


@dataclass(frozen=True, slots=True, eq=False)
class Several(Element):
    """What chains and groups have in common."""

    elements: tuple[Element, ...]
    name: str = ""
    on_failure: Element | None = None
    finally_: Element | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Chain(Several):
    """Elements that run one after the other: chain(...)."""


@dataclass(frozen=True, slots=True, eq=False)
class Group(Several):
    """Elements that run at the same time: group(...)."""

    allow_failures: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Chunks(Element):
    """A task for each chunk of an iterable: map_chunks(...)."""

    task: Any
    items: Iterable[Any]
    size: int
    width: int | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    allow_failures: bool = False
    name: str = ""
    #: Not empty once items that can be gone through only once were.
    used: list[bool] = field(default_factory=list)


class Step:
    """
    An element's place in a graph: what graph.add() returns.

    Put it, or step["key"], among the arguments of another task: that waits for
    it then, and is given its result.
    """

    def __init__(self, graph: Graph, element: Element, name: str, *, allow_failures: bool) -> None:
        self.graph = graph
        self.element = element
        self.name = name
        self.allow_failures = allow_failures
        self.parents: list[Step] = []

    def after(self, *steps: Step) -> Step:
        """Have this run after other steps of the same graph, too; return this."""
        for step in steps:
            if not isinstance(step, Step) or step.graph is not self.graph:
                raise InvalidWorkflow(
                    f"{self.name!r} can only run after steps of its own graph, not after {step!r}."
                )
            if step not in self.parents:
                self.parents.append(step)
        return self

    @property
    def result(self) -> Previous:
        """Its result, to be put among the arguments of a task."""
        return Previous(self)

    def __getitem__(self, key: str | int) -> Previous:
        return self.result[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.result)

    def __str__(self) -> str:
        return str(self.result)

    def __format__(self, spec: str) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class Graph(Element):
    """Elements with an order of any kind: graph()."""

    def __init__(
        self,
        name: str = "",
        *,
        on_failure: Buildable = None,
        finally_: Buildable = None,
    ) -> None:
        self.name = checked_name(name, empty=True)
        self.on_failure = None if on_failure is None else element(on_failure)
        self.finally_ = None if finally_ is None else element(finally_)
        self.steps: list[Step] = []

    def add(
        self,
        what: Buildable,
        *,
        after: Step | Iterable[Step] = (),
        name: str = "",
        allow_failures: bool = False,
    ) -> Step:
        """
        Add an element that runs after others; return its place.

        previous is the result of after, a list if that is several. With
        allow_failures it runs however they end.
        """
        made = element(what)
        if name and isinstance(made, Call):
            made = made.named(name)
        step = Step(
            self,
            made,
            checked_name(name or made.name or getattr(made, "label", "") or _kind(made)),
            allow_failures=allow_failures,
        )
        step.after(*((after,) if isinstance(after, Step) else after))
        self.steps.append(step)
        return step


def chain(
    *elements: Buildable,
    name: str = "",
    on_failure: Buildable = None,
    finally_: Buildable = None,
) -> Chain:
    """
    Return a workflow whose elements run one after the other, each when the last was successful.

    on_failure runs once all are final and not all were successful; finally_ in any case.
    """
    if not elements:
        raise InvalidWorkflow("chain() needs at least one task.")
    return Chain(
        tuple(element(one) for one in elements),
        checked_name(name, empty=True),
        None if on_failure is None else element(on_failure),
        None if finally_ is None else element(finally_),
    )


def group(
    *elements: Buildable,
    name: str = "",
    on_failure: Buildable = None,
    finally_: Buildable = None,
    allow_failures: bool = False,
) -> Group:
    """
    Return a workflow whose elements run at the same time; its result is the list of theirs.

    Elements are arguments, or one iterable of them. With allow_failures what
    follows runs although some have failed, and is given None for these.
    """
    if len(elements) == 1 and not isinstance(elements[0], Element | Task):
        try:
            elements = tuple(elements[0])
        except TypeError:
            pass  # element() says it better.
    return Group(
        tuple(element(one) for one in elements),
        checked_name(name, empty=True),
        None if on_failure is None else element(on_failure),
        None if finally_ is None else element(finally_),
        allow_failures,
    )


def graph(name: str = "", *, on_failure: Buildable = None, finally_: Buildable = None) -> Graph:
    """Return an empty graph: add() puts elements in, and says after which others they run."""
    return Graph(name, on_failure=on_failure, finally_=finally_)


def map_chunks(
    task: Any,
    items: Iterable[Any],
    *args: Any,
    size: int = 1000,
    width: int | None = None,
    allow_failures: bool = False,
    **kwargs: Any,
) -> Chunks:
    """
    Return a group of one task for each size items: task(chunk, *args, **kwargs).

    items are gone through once, when the workflow is enqueued, and may be more
    than memory holds. At most width of the tasks run at once on all workers.
    """
    for option, value in (("size", size), ("width", width)):
        if value is None and option == "width":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidWorkflow(f"map_chunks(): {option} must be at least 1, not {value!r}.")
    call = element(task)
    if not isinstance(call, Call) or call.args or call.kwargs:
        raise InvalidWorkflow(
            f"map_chunks() takes a task without arguments, not {task!r}. They follow the items."
        )
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise InvalidWorkflow(
            f"map_chunks() goes through a list, a generator or a queryset, not {items!r:.80}."
        )
    if width is not None and getattr(call.task, "concurrency", None) is not None:
        raise InvalidWorkflow(
            f"{call.label}() has a concurrency limit of its own; map_chunks(width=...) can't "
            "add another."
        )
    return Chunks(call.task, items, size, width, args, kwargs, allow_failures)


def element(what: Buildable) -> Element:
    """Return what is given as an element. Raise InvalidWorkflow."""
    if isinstance(what, Element):
        return what
    if isinstance(what, Task):
        if not isinstance(what, DatabaseTask):
            raise InvalidWorkflow(
                f"{what.module_path} is a task of the backend {what.backend!r}, which knows no "
                "workflows."
            )
        return Call(what)
    hint = ""
    if isinstance(what, Step):
        hint = " A step is named in after=, or among the arguments."
    elif callable(what):
        hint = " Decorate it with @task."
    elif isinstance(what, Sequence):
        hint = " Put what runs at the same time in group(...)."
    raise InvalidWorkflow(
        f"A workflow is made of tasks, such as task.with_args(...), not of {what!r:.80}.{hint}"
    )


def checked_name(name: Any, *, empty: bool = False) -> str:
    """Return a name. Raise InvalidWorkflow unless it can be shown."""
    if empty and name == "":
        return name
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
        raise InvalidWorkflow(f"A name has 1 to 100 printable characters, not {name!r:.120}.")
    return name


def _kind(made: Element) -> str:
    return type(made).__name__.lower()
