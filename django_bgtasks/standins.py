"""
Django's immediate and dummy backends for test settings.

They refuse at the call what DatabaseBackend refuses, and take the options of
its tasks: Django's own raise TypeError when a module with
@task(max_attempts=5) is imported on Django 6.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from asgiref.sync import sync_to_async

from . import compat, conf
from .arguments import Signature
from .context import DatabaseTaskContext, Place, Run, enter, leave
from .definition import Call, DatabaseTask, args_and_kwargs
from .exceptions import NotInWorkflow

_place: ContextVar[Place | None] = ContextVar("django_bgtasks_place", default=None)


class _Contract:
    """What both share: the task class, the options, the checks of the arguments."""

    task_class = DatabaseTask
    supports_defer = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)  # type: ignore[call-arg]
        self.conf = conf.Options(params.get("OPTIONS", {}))

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Check the arguments as DatabaseBackend does, and do what Django's backend does."""
        return self._enqueue(task, [(args, kwargs)])[0]

    def enqueue_many(self, task: Any, calls: Iterable[Call]) -> list[Any]:
        """Enqueue a task for each of calls, all or none."""
        return self._enqueue(task, [args_and_kwargs(call) for call in calls])

    async def aenqueue_many(self, task: Any, calls: Iterable[Call]) -> list[Any]:
        """See enqueue_many()."""
        return await sync_to_async(self.enqueue_many, thread_sensitive=True)(task, calls)

    def _enqueue(
        self, task: Any, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]
    ) -> list[Any]:
        self.validate_task(task)  # type: ignore[attr-defined]
        signature = Signature(task.func, takes_context=task.takes_context)
        checked = []
        for args, kwargs in calls:
            signature.bind(args, kwargs)
            own_args, own_kwargs, *_ = signature.encode(args, kwargs, self.conf.max_argument_size)
            checked.append((own_args, own_kwargs))
        return [super(_Contract, self).enqueue(task, *call) for call in checked]  # type: ignore[misc]

    #: Whether a workflow is run, or kept as it is.
    runs_workflows = True

    def enqueue_workflow(self, top: Any, *, name: str = "") -> Any:
        """Check a chain, group or graph, and run its tasks in their order."""
        from .workflows.standins import enqueue_in_memory

        return enqueue_in_memory(self, top, name=name, run=self.runs_workflows)


class ImmediateBackend(_Contract, compat.ImmediateBackend):  # type: ignore[misc]
    """
    Runs each task at once, in the thread that enqueues it; run_after is not waited for.

    The context of a task keeps nothing: steps are called, progress goes nowhere.
    """

    def run_member(
        self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], place: Place
    ) -> Any:
        """Run a task that belongs to a workflow, where it has this place."""
        token = _place.set(place)
        try:
            return self.enqueue(task, args, kwargs)
        finally:
            _place.reset(token)

    def _execute_task(self, task_result: Any) -> None:
        # What the task enqueues itself has no part in its workflow.
        token = enter(_Running(task_result, _place.get()))
        _place.set(None)
        try:
            super()._execute_task(task_result)  # type: ignore[misc]
        finally:
            leave(token)


class _Member(Run):
    """The run of a task that belongs to a workflow."""

    __slots__ = ("_workflow",)

    def __init__(self, workflow: Place) -> None:
        self._workflow = workflow

    @property
    def workflow(self) -> Place:
        return self._workflow


class _Alone(Run):
    """The run of a task that belongs to no workflow: as on a worker, it can't add to one."""

    @property
    def workflow(self) -> Place:
        raise NotInWorkflow(NotInWorkflow.ADVICE)


class _Running:
    """What current() asks for the context of the task that runs."""

    def __init__(self, task_result: Any, place: Place | None) -> None:
        self._task_result = task_result
        self._run = _Alone() if place is None else _Member(place)

    def context(self) -> DatabaseTaskContext:
        return DatabaseTaskContext(task_result=self._task_result, run=self._run)


class DummyBackend(_Contract, compat.DummyBackend):  # type: ignore[misc]
    """Runs nothing; keeps the results of what was enqueued in .results."""

    runs_workflows = False
