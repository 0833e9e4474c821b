"""What workflows do when all goes well, and what their results are."""

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_bgtasks import chain, get_workflow, graph, group, map_chunks, previous
from django_bgtasks.exceptions import WaitInTransaction, WaitTimeout, WorkflowDoesNotExist
from django_bgtasks.models import Barrier, FinishedTask, Node, QueuedTask, Workflow
from tests.models import Effect

from . import tasks

pytestmark = pytest.mark.django_db

FLOWS = {
    "one task": (lambda: tasks.give.with_args(7), 7),
    "chain": (
        lambda: chain(tasks.give.with_args(1), tasks.add.with_args(previous, 10)),
        11,
    ),
    "chain that hands nothing on": (lambda: chain(tasks.give.with_args(1), tasks.give), None),
    "group": (lambda: group(tasks.give.with_args(n) for n in (3, 1, 2)), [3, 1, 2]),
    "group and what follows": (
        lambda: chain(
            group(tasks.give.with_args(n) for n in (3, 1, 2)), tasks.total.with_args(previous)
        ),
        6,
    ),
    "member of a group by its place": (
        lambda: chain(
            group(tasks.give.with_args(n) for n in (3, 1, 2)), tasks.add.with_args(previous[1], 0)
        ),
        1,
    ),
    "key of a result, as a keyword and within others": (
        lambda: chain(
            tasks.give.with_args({"user": {"id": 5}}),
            tasks.give.with_args({"ids": [previous["user"]["id"], 6], "all": previous}),
        ),
        {"ids": [5, 6], "all": {"user": {"id": 5}}},
    ),
    "group after group": (
        lambda: chain(
            group(tasks.give.with_args(n) for n in (1, 2)),
            group(tasks.total.with_args(previous), tasks.add.with_args(previous[0], b=100)),
            tasks.give.with_args(previous),
        ),
        [3, 101],
    ),
    "groups in groups": (
        lambda: group(
            group(tasks.give.with_args(1), tasks.give.with_args(2)),
            chain(tasks.give.with_args(3), tasks.add.with_args(previous)),
        ),
        [[1, 2], 4],
    ),
    "empty group in between": (
        lambda: chain(tasks.give.with_args(1), group([]), tasks.give.with_args(previous)),
        [],
    ),
    "empty group at the start": (lambda: chain(group([]), tasks.give.with_args(previous)), []),
    "many members": (
        lambda: chain(
            group(tasks.give.with_args(n) for n in range(333)), tasks.give.with_args(previous)
        ),
        list(range(333)),
    ),
    "many members after many": (
        lambda: chain(
            group(tasks.give.with_args(n) for n in range(150)),
            group(tasks.add.with_args(previous[n], n) for n in range(150)),
        ),
        [2 * n for n in range(150)],
    ),
    "chunks": (
        lambda: chain(
            map_chunks(tasks.count_chunk, (n for n in range(25)), size=10),
            tasks.give.with_args(previous),
        ),
        [10, 10, 5],
    ),
    "no chunks": (
        lambda: chain(map_chunks(tasks.count_chunk, []), tasks.total.with_args(previous)),
        0,
    ),
    "diamond by results": (lambda: diamond(), 9),
    "two ends": (lambda: two_ends(), [2, 3]),
    "graph within a chain": (
        lambda: chain(tasks.give.with_args(1), two_ends(), tasks.total.with_args(previous)),
        5,
    ),
    "chain within a graph": (lambda: chain_in_graph(), 111),
    "failure that is allowed": (
        lambda: chain(
            group(tasks.give.with_args(1), tasks.fail, allow_failures=True),
            tasks.give.with_args(previous),
        ),
        [1, None],
    ),
    "several after one another": (
        lambda: after_several(),
        [1, 2],
    ),
}


def diamond():
    flow = graph()
    start = flow.add(tasks.give.with_args({"n": 3}), name="start")
    left = flow.add(tasks.add.with_args(start["n"]))
    right = flow.add(tasks.add.with_args(start["n"], 2))
    flow.add(tasks.total.with_args([left, right]))
    return flow


def two_ends():
    flow = graph()
    start = flow.add(tasks.give.with_args(1))
    flow.add(tasks.add.with_args(start))
    flow.add(tasks.add.with_args(start, 2))
    return flow


def chain_in_graph():
    flow = graph()
    first = flow.add(tasks.give.with_args(1))
    second = flow.add(chain(tasks.add.with_args(previous, 10), tasks.add.with_args(previous, 100)),
                      after=first)  # fmt: skip
    assert second.name == "chain"
    return flow


def after_several():
    flow = graph()
    one, two = flow.add(tasks.give.with_args(1)), flow.add(tasks.give.with_args(2))
    flow.add(tasks.give.with_args(previous), after=[one, two])
    return flow


@pytest.mark.parametrize("name", FLOWS)
def test_result(driver, name):
    build, expected = FLOWS[name]
    workflow = build().enqueue()
    assert workflow.state == "RUNNING"
    driver.drain()
    assert workflow.get(timeout=1) == expected
    assert workflow.state == "SUCCESSFUL"
    counts = workflow.progress
    assert counts["done"] == counts["total"] == workflow.size == len(workflow.results)
    assert not Barrier.objects.exclude(missing=0).exists()


def immediate(settings):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.ImmediateBackend"}}


@pytest.mark.parametrize("name", FLOWS)
def test_result_is_the_same_with_the_immediate_backend(settings, name):
    immediate(settings)
    build, expected = FLOWS[name]
    workflow = build().enqueue()
    assert workflow.is_finished
    assert workflow.get() == expected
    assert not QueuedTask.objects.exists()


def test_tasks_wait_until_their_parents_have_ended(driver):
    workflow = FLOWS["group after group"][0]().enqueue()
    states = [result.state for result in workflow.results]
    assert states == ["READY", "READY", "WAITING", "WAITING", "WAITING"]
    driver.step()
    assert [result.state for result in workflow.results][2:] == ["WAITING"] * 3
    driver.step()
    assert [result.state for result in workflow.results][2:] == ["READY", "READY", "WAITING"]


def test_child_is_ready_in_the_transaction_that_ends_its_last_parent(driver):
    chain(tasks.give, tasks.give).enqueue()
    (execution,) = driver.claim()
    execution.run()
    with CaptureQueriesContext(connection) as captured:
        driver.write(execution)
    statements = [query["sql"] for query in captured]
    opening = [i for i, sql in enumerate(statements) if "'READY'" in sql and "UPDATE" in sql]
    deleting = [i for i, sql in enumerate(statements) if sql.lstrip().startswith(("DELETE", "WITH"))
                or "DELETE FROM" in sql]  # fmt: skip
    assert opening
    assert deleting
    between = statements[deleting[0] : opening[0]]
    assert not any(sql.startswith(("COMMIT", "BEGIN", "ROLLBACK", "RELEASE")) for sql in between)


def test_single_tasks_pay_nothing(driver):
    """No statement of an ordinary task's way names a table of workflows."""
    with CaptureQueriesContext(connection) as captured:
        tasks.give.enqueue(1)
        driver.step()
    assert captured.captured_queries
    for query in captured:
        for table in ("bgtasks_workflow", "bgtasks_barrier", "bgtasks_node", "bgtasks_edge"):
            assert table not in query["sql"]


def test_workflow_is_written_with_the_callers_transaction_or_not_at_all():
    with transaction.atomic():
        chain(tasks.give, tasks.give).enqueue()
        assert QueuedTask.objects.count() == 2
        transaction.set_rollback(True)
    assert not QueuedTask.objects.exists()
    assert not Workflow.objects.exists()
    assert not Node.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_waiting_for_a_workflow_of_the_open_transaction_says_so():
    with transaction.atomic():
        workflow = chain(tasks.give, tasks.give).enqueue()
        with pytest.raises(WaitInTransaction):
            workflow.get(timeout=0.1)
    with pytest.raises(WaitTimeout) as raised:
        workflow.get(timeout=0.01)
    assert "of 2 tasks of workflow 'chain: give' 0 are done; 1 waiting, 1 ready." in str(
        raised.value
    )


def test_handle_is_found_again_by_its_id(driver):
    workflow = chain(tasks.give.with_args(1), tasks.add.with_args(previous)).enqueue(name="twice")
    again = get_workflow(workflow.id)
    assert (again.name, again.state, again.size) == ("twice", "RUNNING", 2)
    driver.drain()
    assert again.get(timeout=1) == 2
    with pytest.raises(WorkflowDoesNotExist):
        get_workflow("nonsense")


def test_names(driver):
    flow = chain(tasks.give.with_args(1).named("first"), tasks.give, name="nightly")
    workflow = flow.enqueue()
    assert workflow.name == "nightly"
    assert workflow.result("first").args == [1]
    with pytest.raises(KeyError, match="No task of workflow 'nightly' is called 'second'"):
        workflow.result("second")
    again = flow.enqueue(name="by hand")
    assert (again.name, again.id != workflow.id) == ("by hand", True)
    assert set(Node.objects.values_list("part", flat=True)) == {""}
    chain(flow, tasks.give).enqueue()
    assert Node.objects.filter(part="nightly").count() == 2


def test_options_of_the_tasks_hold_in_a_workflow(driver):
    late = tasks.give.using(delay=3600)
    workflow = chain(
        tasks.quick.with_args(1), late.with_args(2), tasks.give.using(priority=5).with_args(3)
    ).enqueue()
    first, second, third = workflow.results
    assert first.task.queue_name == "emails"
    assert third.task.priority == 5
    driver.step()
    second.refresh()
    assert (second.state, third.state) == ("SCHEDULED", "WAITING")


def test_time_to_expire_begins_when_the_parents_have_ended(driver):
    workflow = chain(tasks.give, tasks.perishable).enqueue()
    row = QueuedTask.objects.get(status="WAITING")
    assert "expires_at" not in row.options
    driver.step()
    (execution,) = driver.claim()
    opened_at = Barrier.objects.get(pk=Node.objects.get(pk=row.pk).barrier_id).opened_at
    execution.began = opened_at
    assert (execution._expires_at() - opened_at).total_seconds() == 5
    driver.run(execution)
    assert workflow.get(timeout=1) == "fresh"


def test_secrets_that_parents_return_are_masked(driver):
    workflow = chain(
        tasks.give.with_args("hunter2hunter2"), tasks.whisper.with_args(previous)
    ).enqueue()
    driver.drain()
    (failure,) = workflow.failures
    assert "hunter2" not in failure["error"]
    assert "••••" in failure["error"]


def test_results_of_parents_are_not_copied(driver):
    chain(tasks.give.with_args("x" * 1000), group(tasks.give.with_args(previous) for _ in "123"))\
        .enqueue()  # fmt: skip
    driver.step()
    for row in QueuedTask.objects.all():
        assert row.args == [None]
        assert "xxx" not in str(row.options)


def test_atomic_member_and_what_follows_commit_together(driver):
    workflow = chain(tasks.note_atomic.with_args("x", 3), tasks.add.with_args(previous)).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == 4
    assert Effect.objects.filter(name="x").count() == 1


def test_chunks_are_of_bounded_width(driver):
    map_chunks(tasks.count_chunk, range(100), size=10, width=3).enqueue()
    marks = [row.options["marks"]["concurrency"] for row in QueuedTask.objects.all()]
    assert len({digest for digest, _, _ in marks}) == 1
    assert {most for _, _, most in marks} == {3}


def test_chunks_of_a_queryset_and_further_arguments(driver):
    Effect.objects.bulk_create(Effect(name="item", number=n) for n in range(5))
    pks = Effect.objects.filter(name="item").order_by("pk").values_list("pk", flat=True)
    workflow = map_chunks(tasks.count_chunk, pks, size=2, word="s").enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == [2, 2, 1]
    assert Effect.objects.filter(name="chunks").count() == 3


def test_finished_tasks_of_a_workflow_have_one_attempt_each(driver):
    FLOWS["many members after many"][0]().enqueue()
    driver.drain()
    assert set(FinishedTask.objects.values_list("attempt", flat=True)) == {1}
