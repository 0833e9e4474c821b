"""What went wrong once, and where several things meet."""

import asyncio
import contextlib
import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, connections, transaction
from django.utils import timezone

from django_bgtasks import (
    chain,
    dependencies,
    graph,
    group,
    limits,
    map_chunks,
    previous,
    transitions,
)
from django_bgtasks.db import operations_for
from django_bgtasks.exceptions import InvalidArguments, InvalidWorkflow, TaskFailed
from django_bgtasks.models import Barrier, QueuedTask, Workflow
from django_bgtasks.models.limit import LimitKey, LimitWait
from django_bgtasks.worker import maintenance
from tests.models import Effect

from . import tasks
from .driver import Driver

pytestmark = pytest.mark.django_db


def immediate(settings):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.ImmediateBackend"}}


# Growth


def test_addition_that_is_refused_when_it_is_written_fails_its_task(driver):
    tasks.only_one.enqueue()
    QueuedTask.objects.update(queue_name="reports")
    workflow = chain(tasks.grows.with_args("only_one"), tasks.give).enqueue()
    other = tasks.give.enqueue(1)
    Driver(queues=["default"]).drain()
    workflow.refresh()
    (failure,) = workflow.failures
    assert (workflow.state, failure["name"]) == ("FAILED", "grows")
    assert failure["error"].startswith("django_bgtasks.exceptions.DuplicateTask: only_one(): task")
    other.refresh()
    assert other.state == "SUCCESSFUL"


def test_two_additions_do_not_wait_for_each_other(driver):
    chain(tasks.grows.with_args("fail", "give")).enqueue()
    driver.step()
    assert QueuedTask.objects.filter(status="READY").count() == 2


@pytest.mark.parametrize("backend", ["database", "immediate"])
def test_addition_is_given_the_tasks_own_result_beside_one_that_replaces_it(
    driver, settings, backend
):
    if backend == "immediate":
        immediate(settings)
    workflow = chain(tasks.adds_and_continues, tasks.show.with_args(previous)).enqueue()
    if backend == "database":
        driver.drain()
    assert workflow.get(timeout=1) == ["replacement"]
    assert list(Effect.objects.values_list("name", flat=True)) == ["own"]


def test_atomic_task_that_is_called_again_adds_once(driver, monkeypatch):
    tasks.script.clear()
    operations = type(operations_for("default"))

    @contextlib.contextmanager
    def write(self):
        # The transaction of the test is open, and "durable" would refuse that.
        with transaction.atomic():
            yield

    workflow = chain(tasks.adds_in_its_transaction).enqueue()
    monkeypatch.setattr(operations, "write", write)
    monkeypatch.setattr(
        operations, "is_conflict", lambda self, error: isinstance(error, OperationalError)
    )
    driver.drain()
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"
    assert len(tasks.script["calls"]) == 2
    assert Effect.objects.filter(name="added").count() == 1


def test_step_whose_place_is_taken_gives_the_new_result(driver):
    flow = graph()
    step = flow.add(tasks.factorial.with_args(4))
    flow.add(tasks.give.with_args(step))
    workflow = flow.enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == 24


def test_task_of_a_cancelled_workflow_adds_nothing_any_more(driver):
    workflow = chain(tasks.page.with_args(1, 3)).enqueue()
    (execution,) = driver.claim()
    workflow.cancel()
    driver.run(execution)
    assert not QueuedTask.objects.exists()
    workflow.refresh()
    assert workflow.is_finished


@pytest.mark.django_db(transaction=True)
def test_async_task_adds():
    workflow = chain(tasks.adds_async).enqueue()
    driver = Driver()
    (execution,) = driver.claim()
    asyncio.run(execution.arun())
    assert execution.exception is None
    driver.write(execution)
    driver.drain()
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"
    assert Effect.objects.filter(name="added").count() == 1


# Retry and cancel


@pytest.mark.django_db(transaction=True)
def test_retry_while_a_sibling_ends_leaves_nothing_skipped(monkeypatch):
    workflow = group(
        chain(
            group(tasks.fail_once.with_args("x"), tasks.give.with_args().named("a")),
            tasks.give.with_args(previous).named("b"),
        ),
        tasks.give.with_args().named("other"),
    ).enqueue()
    driver = Driver()
    driver.step()
    sibling, other = driver.claim(2)
    read, go = threading.Event(), threading.Event()
    real = dependencies._Graph.__init__

    def slow(self, *args):
        real(self, *args)
        if threading.current_thread().name == "retrier":
            read.set()
            go.wait(3)

    monkeypatch.setattr(dependencies._Graph, "__init__", slow)
    failed = workflow.result("fail_once").id

    def closing(act):
        def run():
            try:
                act()
            finally:
                connections.close_all()

        return run

    retrier = threading.Thread(
        target=closing(lambda: transitions.retry("default", [failed])), name="retrier"
    )
    retrier.start()
    assert read.wait(5)
    finisher = threading.Thread(target=closing(lambda: driver.run(sibling)))
    finisher.start()
    finisher.join(1)
    go.set()
    retrier.join(20)
    finisher.join(20)
    Effect.objects.create(name="x")
    driver.run(other)
    driver.drain()
    assert workflow.get(timeout=1) == [["x", None], None]


def test_workflow_waits_for_a_task_that_is_retried_while_what_follows_runs(driver):
    workflow = chain(
        group(tasks.fail_once.with_args("x"), allow_failures=True), tasks.give
    ).enqueue()
    driver.step()
    (execution,) = driver.claim()
    workflow.result("fail_once").retry()
    driver.run(execution)
    workflow.refresh()
    assert workflow.state == "RUNNING"
    driver.drain()
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"


def test_task_that_fails_again_after_what_followed_has_run_is_not_overlooked(driver):
    flow = graph()
    failing = flow.add(tasks.fail)
    flow.add(tasks.give, after=failing, allow_failures=True)
    workflow = flow.enqueue()
    driver.step()
    (execution,) = driver.claim()
    workflow.retry()
    driver.run(execution)
    driver.drain()
    workflow.refresh()
    assert workflow.state == "FAILED"


def test_task_that_waited_at_a_limit_and_is_retried_waits_for_its_parents(driver):
    workflow = chain(group(tasks.fail, allow_failures=True), tasks.limited.with_args([1])).enqueue()
    driver.step()
    row = QueuedTask.objects.get()
    LimitKey.objects.create(digest=row.limit_key, text="limited", used_at=timezone.now())
    wait = LimitWait(task_id=row.pk, digest=row.limit_key, queue_name=row.queue_name, rank=row.rank)
    transitions.park_ready("default", [wait], reason="waits")
    workflow.cancel()
    workflow.retry()
    limits.set_free("default", [row.limit_key], ["default"])
    assert QueuedTask.objects.get(pk=row.pk).status == "WAITING"


def test_skipped_task_whose_key_another_one_has_keeps_its_workflow_from_a_retry(driver):
    workflow = chain(tasks.fail, tasks.only_one).enqueue()
    driver.drain()
    tasks.only_one.enqueue()
    assert transitions.retry("default", [workflow.result("fail").id]) == []
    assert QueuedTask.objects.filter(task_path__endswith="only_one").count() == 1
    assert Workflow.objects.get().status == "FAILED"


def test_expired_task_that_is_retried_runs(driver):
    workflow = chain(tasks.give, tasks.perishable).enqueue()
    driver.step()
    long_ago = timezone.now() - timedelta(minutes=1)
    Barrier.objects.filter(opened_at__isnull=False).update(opened_at=long_ago)
    driver.drain()
    assert workflow.result("perishable").reason.startswith("Expired")
    workflow.retry()
    driver.drain()
    assert workflow.get(timeout=1) == "fresh"


def test_workflow_of_tasks_that_may_fail_is_cancelled_as_a_whole(driver):
    workflow = map_chunks(tasks.count_chunk, range(3), size=1, allow_failures=True).enqueue()
    assert workflow.cancel()
    assert workflow.state == "CANCELLED"


def test_get_looks_again_after_a_retry(driver):
    workflow = chain(tasks.fail_once.with_args("x")).enqueue()
    driver.drain()
    with pytest.raises(TaskFailed):
        workflow.get(timeout=1)
    workflow.result("fail_once").retry()
    Effect.objects.create(name="x")
    driver.drain()
    assert workflow.get(timeout=1) == "x"


def test_pruning_leaves_a_workflow_whose_task_is_retried(driver):
    workflow = chain(group(tasks.fail, allow_failures=True), tasks.give).enqueue()
    driver.drain()
    workflow.retry()
    Workflow.objects.update(finished_at=timezone.now() - timedelta(days=99))
    assert maintenance.prune("default", successful=1, failed=1) == 0


# Failures


@pytest.mark.parametrize("backend", ["database", "immediate"])
def test_on_failure_of_a_group_that_allows_failures(driver, settings, backend):
    if backend == "immediate":
        immediate(settings)
    for count, failing in ((1, tasks.fail), (150, tasks.give)):
        Effect.objects.all().delete()
        workflow = group(
            [failing, *(tasks.give for _ in range(count))],
            allow_failures=True,
            on_failure=tasks.note.with_args("handled"),
        ).enqueue()
        if backend == "database":
            driver.drain()
        workflow.get(timeout=1)
        assert Effect.objects.filter(name="handled").count() == (failing is tasks.fail)


@pytest.mark.parametrize("backend", ["database", "immediate"])
def test_get_blames_what_was_not_allowed_to_fail(driver, settings, backend):
    if backend == "immediate":
        immediate(settings)
    workflow = chain(
        group(tasks.fail.with_args("allowed"), allow_failures=True),
        tasks.fail.with_args("culprit"),
    ).enqueue()
    if backend == "database":
        driver.drain()
    with pytest.raises(TaskFailed, match="culprit"):
        workflow.get(timeout=1)


def test_keys_of_a_result_are_not_shown_where_arguments_are_hidden(driver):
    workflow = chain(
        tasks.give.with_args({"s3cret-name": 1}), tasks.whisper.with_args(previous["x"])
    ).enqueue()
    driver.drain()
    traceback = workflow.result("whisper").errors[0].traceback
    assert "s3cret-name" not in traceback
    assert "there is no previous['x']." in traceback
    assert "••••" not in traceback


# Building


def test_generator_that_was_gone_through_is_refused(driver):
    flow = map_chunks(tasks.count_chunk, (n for n in range(3)), size=1)
    assert flow.enqueue().size == 3
    with pytest.raises(InvalidWorkflow, match="was gone through before"):
        flow.enqueue()
    again = map_chunks(tasks.count_chunk, range(3), size=1)
    assert [again.enqueue().size, again.enqueue().size] == [3, 3]


@pytest.mark.parametrize(
    "text",
    [lambda: f"user {previous['id']}", lambda: "user " + str(previous)],
)
def test_previous_in_a_text_is_refused(text):
    with pytest.raises(TypeError, match="can't be put into a text"):
        text()
    with pytest.raises(TypeError, match="can't be asked"):
        bool(previous)


def test_steps_have_their_names(driver):
    flow = graph("diamond")
    start = flow.add(tasks.give.with_args(1), name="start")
    flow.add(tasks.add.with_args(start, 1), name="left")
    workflow = flow.enqueue()
    driver.drain()
    assert workflow.result("left").return_value == 2
    assert "left" in str(workflow.describe())


def test_result_that_is_not_passed_by_itself():
    with pytest.raises(InvalidArguments) as raised:
        chain(tasks.give.with_args(1), tasks.add).enqueue()
    assert str(raised.value).endswith(
        "In a workflow results are not passed by themselves: write add.with_args(previous)."
    )


# The stand-in


def test_stand_in_runs_what_is_added_as_what_may_fail(settings):
    immediate(settings)
    workflow = group(tasks.grows.with_args("fail"), allow_failures=True).enqueue()
    assert workflow.state == "SUCCESSFUL"


def test_stand_in_fails_the_task_that_adds_nonsense_or_twice(settings):
    immediate(settings)
    for task in (tasks.adds_nonsense, tasks.continues_twice):
        workflow = chain(task).enqueue()
        assert workflow.state == "FAILED"


def test_stand_in_fails_a_single_task_that_adds(settings):
    immediate(settings)
    result = tasks.alone.enqueue()
    assert "NotInWorkflow" in result.errors[0].traceback


def test_stand_in_fails_a_task_whose_place_has_no_result(settings):
    immediate(settings)
    workflow = chain(
        tasks.give.with_args({}),
        tasks.add.with_args(previous["x"]),
        on_failure=tasks.note.with_args("told"),
    ).enqueue()
    assert workflow.state == "FAILED"
    assert Effect.objects.filter(name="told").exists()


def test_stand_in_tells_a_handler_of_what_failed_before_it_alone(settings):
    immediate(settings)
    handler = tasks.give.with_args(previous.failures).named("handler")
    workflow = group(
        tasks.fail.with_args("a"), chain(tasks.fail.with_args("b"), on_failure=handler)
    ).enqueue()
    assert [f["error"] for f in workflow.result("handler").return_value] == ["ValueError: b"]
