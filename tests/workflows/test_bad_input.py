"""What is refused when a workflow is built or enqueued, and that nothing is written then."""

import datetime

import pytest
from django.test import override_settings

from django_bgtasks import chain, graph, group, map_chunks, previous
from django_bgtasks.exceptions import (
    ArgumentsTooLarge,
    DuplicateTask,
    InvalidArguments,
    InvalidWorkflow,
    WorkflowTooLarge,
)
from django_bgtasks.models import Barrier, Edge, Node, QueuedTask, Workflow

from . import tasks

pytestmark = pytest.mark.django_db


def circle():
    flow = graph("round")
    first = flow.add(tasks.give, name="first")
    second = flow.add(tasks.give, after=first, name="second")
    third = flow.add(tasks.add.with_args(second.result), name="third")
    first.after(third)
    return flow


def contains_itself():
    flow = graph("snake")
    flow.add(chain(tasks.give, flow))
    return flow


def of_another_graph():
    other = graph("other").add(tasks.give, name="there")
    flow = graph("here")
    flow.add(tasks.add.with_args(other))
    return flow


def generator_that_is_too_long():
    return (n for n in range(10**9))


BUILT = {
    "argument that is missing": (
        lambda: tasks.add.with_args(),
        InvalidArguments,
        "add() missing 1 required argument: 'a'",
    ),
    "argument that isn't there": (
        lambda: tasks.add.with_args(1, c=2),
        InvalidArguments,
        "add() got an unexpected keyword argument 'c'",
    ),
    "signature as in Celery": (
        lambda: tasks.add.s(1),
        AttributeError,
        "'DatabaseTask' has no attribute 's'. Write add.with_args(...), with `previous` where the "
        "result of what runs before goes.",
    ),
    "delay as in Celery": (
        lambda: tasks.add.delay(1),
        AttributeError,
        "'DatabaseTask' has no attribute 'delay'. Write add.enqueue(...).",
    ),
    "pipe as in Celery": (
        lambda: tasks.add.with_args(1) | tasks.add.with_args(2),
        TypeError,
        "Workflows are not piped: write chain(a, b) instead of a | b.",
    ),
    "chain of nothing": (lambda: chain(), InvalidWorkflow, "chain() needs at least one task."),
    "function": (
        lambda: chain(tasks.give, len),
        InvalidWorkflow,
        "A workflow is made of tasks, such as task.with_args(...), not of <built-in function "
        "len>. Decorate it with @task.",
    ),
    "list within a chain": (
        lambda: chain(tasks.give, [tasks.give, tasks.give]),
        InvalidWorkflow,
        "Put what runs at the same time in group(...).",
    ),
    "result instead of a call": (
        lambda: chain(3),
        InvalidWorkflow,
        "A workflow is made of tasks, such as task.with_args(...), not of 3.",
    ),
    "key of previous": (
        lambda: previous[1.5],
        TypeError,
        "A key of previous is a string or a whole number, not 1.5.",
    ),
    "going through previous": (
        lambda: group(tasks.give.with_args(one) for one in previous),
        TypeError,
        "previous is not known before the workflow runs, and can't be gone through. Pass it to a "
        "task that does.",
    ),
    "name": (
        lambda: chain(tasks.give, name="a\nb"),
        InvalidWorkflow,
        "A name has 1 to 100 printable characters, not 'a\\nb'.",
    ),
    "chunks of no size": (
        lambda: map_chunks(tasks.count_chunk, [1], size=0),
        InvalidWorkflow,
        "map_chunks(): size must be at least 1, not 0.",
    ),
    "chunks of a text": (
        lambda: map_chunks(tasks.count_chunk, "text"),
        InvalidWorkflow,
        "map_chunks() goes through a list, a generator or a queryset, not 'text'.",
    ),
    "width beside a limit": (
        lambda: map_chunks(tasks.limited, [1], width=2),
        InvalidWorkflow,
        "limited() has a concurrency limit of its own; map_chunks(width=...) can't add another.",
    ),
    "step of another graph": (
        lambda: graph("a").add(tasks.give, after=graph("b").add(tasks.give)),
        InvalidWorkflow,
        "'give' can only run after steps of its own graph, not after <step give>.",
    ),
}

ENQUEUED = {
    "circle": (
        circle,
        InvalidWorkflow,
        "These steps wait for each other: ",
    ),
    "graph in itself": (
        contains_itself,
        InvalidWorkflow,
        "The graph 'snake' contains itself.",
    ),
    "result of another graph": (
        of_another_graph,
        InvalidWorkflow,
        "add(): argument 'a' is the result of 'there', a step of another graph.",
    ),
    "previous without a parent": (
        lambda: chain(tasks.add.with_args(previous), tasks.give),
        InvalidWorkflow,
        "add(): argument 'a' is previous, but nothing runs before it whose result that could be.",
    ),
    "previous by key without a parent": (
        lambda: group(tasks.give, tasks.add.with_args(1, b={"x": [previous["y"]]})),
        InvalidWorkflow,
        "add(): argument 'b' is previous['y'], but nothing runs before it",
    ),
    "key that isn't known yet": (
        lambda: chain(tasks.give, tasks.only_one_of.with_args(previous)),
        InvalidWorkflow,
        "only_one_of(): argument 'name' is previous, which isn't known yet, but "
        "unique='of:{name}' is made of it. Pass what the key needs itself.",
    ),
    "argument that JSON can't hold": (
        lambda: chain(tasks.give, tasks.add.with_args(datetime.date(2026, 1, 1))),
        InvalidArguments,
        "add(): argument 'a' is a date, which JSON can't hold. Pass a.isoformat().",
    ),
    "argument too large": (
        lambda: chain(tasks.give, tasks.give.with_args("x" * 70_000)),
        ArgumentsTooLarge,
        "give(): the arguments take 70,006 bytes as JSON; at most 65,536 are allowed",
    ),
    "chunk too large": (
        lambda: map_chunks(tasks.count_chunk, ["x" * 1000] * 100),
        ArgumentsTooLarge,
        "count_chunk(): the arguments take",
    ),
    "too many tasks": (
        lambda: group(tasks.give.with_args(n) for n in range(2001)),
        WorkflowTooLarge,
        "A workflow has at most 2,000 tasks (OPTIONS['MAX_WORKFLOW_SIZE']). Give each task more "
        "to do, as map_chunks() does with a larger size, or let tasks enqueue others.",
    ),
    "endless generator": (
        lambda: map_chunks(tasks.count_chunk, generator_that_is_too_long(), size=10),
        WorkflowTooLarge,
        "A workflow has at most 2,000 tasks",
    ),
    "unique key twice": (
        lambda: group(tasks.only_one, tasks.only_one),
        DuplicateTask,
        "only_one(): two tasks of this workflow have the unique key 'one'.",
    ),
    "no task at all": (
        lambda: group([]),
        InvalidWorkflow,
        "This workflow has no task at all, not even one that would follow an empty group.",
    ),
}


def nothing_is_written():
    return not any(model.objects.exists() for model in (QueuedTask, Workflow, Node, Barrier, Edge))


@pytest.mark.parametrize("case", BUILT)
def test_what_is_refused_at_the_line_that_says_it(case):
    build, error, text = BUILT[case]
    with pytest.raises(error) as raised:
        build()
    assert text in str(raised.value)


@pytest.mark.parametrize("case", ENQUEUED)
def test_what_is_refused_before_anything_is_written(case, settings):
    settings.TASKS = {
        "default": {
            **settings.TASKS["default"],
            "OPTIONS": {**settings.TASKS["default"].get("OPTIONS", {}), "MAX_WORKFLOW_SIZE": 2000},
        }
    }
    build, error, text = ENQUEUED[case]
    with pytest.raises(error) as raised:
        build().enqueue()
    assert text in str(raised.value)
    assert nothing_is_written()


def test_circle_names_the_steps_in_the_order_in_which_they_wait():
    with pytest.raises(InvalidWorkflow) as raised:
        circle().enqueue()
    names = str(raised.value).removeprefix("These steps wait for each other: ").rstrip(".")
    steps = names.split(" → ")
    assert steps[0] == steps[-1]
    assert set(steps) == {"first", "second", "third"}


def test_key_that_another_task_has_refuses_the_whole_workflow():
    holder = tasks.only_one.enqueue()
    with pytest.raises(DuplicateTask) as raised:
        chain(tasks.give, tasks.only_one).enqueue()
    assert f"only_one(): task {holder.id} has the unique key 'one' and is ready." in str(
        raised.value
    )
    assert raised.value.result.id == holder.id
    assert not Workflow.objects.exists()
    assert QueuedTask.objects.count() == 1


def test_tasks_of_two_backends_make_no_workflow(settings):
    from tests.tasks import nothing

    other = nothing.using(backend="other") if "other" in settings.TASKS else None
    if other is None:
        settings.TASKS = {**settings.TASKS, "other": settings.TASKS["default"]}
        other = nothing.using(backend="other")
    with pytest.raises(InvalidWorkflow, match="All tasks of a workflow are of one"):
        chain(tasks.give, other).enqueue()
    assert nothing_is_written()


@pytest.mark.usefixtures("driver")
class TestAtTheRun:
    def failed_with(self, flow, driver):
        workflow = flow.enqueue()
        driver.drain()
        workflow.refresh()
        assert workflow.state == "FAILED"
        (failure,) = workflow.failures
        return failure["error"]

    def test_result_without_the_key_says_what_it_has(self, driver):
        flow = chain(
            tasks.give.with_args({"id": 1, "name": "x"}), tasks.add.with_args(previous["user_id"])
        )
        assert self.failed_with(flow, driver) == (
            "django_bgtasks.exceptions.PreviousNotUsable: add(): there is no "
            "previous['user_id']: it is a dictionary with 'id', 'name'."
        )

    def test_result_that_is_too_large_is_refused_before_it_is_stored(self, driver):
        flow = chain(tasks.show.with_args("x" * 1000, 2000), tasks.give.with_args(previous))
        assert "show() returned 2,006,001 bytes of JSON; at most 1,048,576 are stored" in (
            self.failed_with(flow, driver)
        )

    def test_results_that_are_too_large_together(self, driver):
        options = {**driver.backend.conf.__dict__}
        driver.backend.conf.max_previous_size = 10_000
        try:
            flow = chain(
                group(tasks.show.with_args("x" * 1000, 6) for _ in range(2)),
                tasks.give.with_args(previous),
            )
            error = self.failed_with(flow, driver)
        finally:
            driver.backend.conf.max_previous_size = options["max_previous_size"]
        assert error == (
            "django_bgtasks.exceptions.PreviousNotUsable: give(): the results of its 2 parents "
            "take more than 10,000 bytes as JSON (OPTIONS['MAX_PREVIOUS_SIZE']). Have them store "
            "the data and return its ids."
        )


@override_settings(TASKS={"default": {"BACKEND": "django_bgtasks.ImmediateBackend"}})
def test_stand_ins_refuse_the_same():
    with pytest.raises(InvalidWorkflow, match="nothing runs before it"):
        chain(tasks.add.with_args(previous)).enqueue()
