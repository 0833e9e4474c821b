"""What fails, what follows from it, and what runs in spite of it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_bgtasks import chain, graph, group, previous
from django_bgtasks.exceptions import TaskCancelled, TaskFailed
from django_bgtasks.models import (
    Barrier,
    Edge,
    FinishedTask,
    Node,
    QueuedTask,
    Workflow,
)
from django_bgtasks.worker import maintenance
from tests.models import Effect

from . import tasks

pytestmark = pytest.mark.django_db


def states(workflow):
    return {result.task.name: result.state for result in workflow.results}


def test_what_comes_after_a_failure_is_cancelled_with_the_reason(driver):
    workflow = chain(tasks.give, tasks.fail, tasks.add.with_args(1), tasks.show.with_args(1))\
        .enqueue()  # fmt: skip
    driver.drain()
    give, fail, add, show = workflow.results
    assert [r.state for r in (give, fail, add, show)] == [
        "SUCCESSFUL", "FAILED", "CANCELLED", "CANCELLED",
    ]  # fmt: skip
    assert add.reason == show.reason == f"Skipped: fail {fail.id[-8:]} failed."
    assert add.started_at is None
    with pytest.raises(TaskFailed) as raised:
        workflow.get(timeout=1)
    assert str(raised.value) == (
        f"Workflow 'chain: give, fail, add, …' ({workflow.id}) failed. fail ({fail.id}): "
        "ValueError: oh"
    )


def test_members_of_a_group_go_on_when_one_fails(driver):
    workflow = chain(group(tasks.fail, tasks.note.with_args("x")), tasks.give).enqueue()
    driver.drain()
    assert states(workflow) == {"fail": "FAILED", "note": "SUCCESSFUL", "give": "CANCELLED"}


def test_failures_that_are_allowed(driver):
    workflow = chain(
        group(tasks.give.with_args(1), chain(tasks.fail, tasks.add.with_args(1)),
              allow_failures=True),
        tasks.show.with_args(previous),
    ).enqueue()  # fmt: skip
    driver.drain()
    assert workflow.get(timeout=1) == [[1, None]]
    assert workflow.state == "SUCCESSFUL"
    assert states(workflow)["add"] == "CANCELLED"


def test_on_failure_is_told_what_failed_and_finally_runs_after_it(driver):
    flow = chain(
        tasks.give,
        group(tasks.fail.with_args("first"), tasks.fail.with_args("second"), tasks.give),
        tasks.add.with_args(1),
        on_failure=tasks.show.with_args(previous.failures),
        finally_=tasks.note.with_args("cleaned"),
    )
    workflow = flow.enqueue()
    driver.drain()
    (told,) = workflow.result("show").return_value
    assert [(one["name"], one["state"], one["error"]) for one in told] == [
        ("fail", "FAILED", "ValueError: first"),
        ("fail", "FAILED", "ValueError: second"),
    ]
    assert driver.ran[-2:] == ["show", "note"]
    workflow.refresh()
    assert workflow.state == "FAILED"


def test_on_failure_is_skipped_when_nothing_failed(driver):
    workflow = chain(
        tasks.give.with_args(5),
        on_failure=chain(tasks.show.with_args(previous.failures), tasks.add.with_args(1)),
        finally_=tasks.note.with_args("cleaned"),
    ).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == 5
    skipped = [workflow.result("show"), workflow.result("add")]
    assert [(r.state, r.reason) for r in skipped] == [("CANCELLED", "Skipped: nothing failed.")] * 2
    assert Effect.objects.filter(name="cleaned").exists()


def test_on_failure_of_a_part(driver):
    workflow = chain(
        tasks.give.with_args(1),
        group(chain(tasks.fail, on_failure=tasks.note.with_args("handled")), allow_failures=True),
        tasks.show.with_args(previous),
    ).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == [[None]]
    assert Effect.objects.filter(name="handled").count() == 1


def test_finally_runs_although_the_workflow_is_cancelled_and_can_be_cancelled_too(driver):
    flow = chain(tasks.give, tasks.add.with_args(1), finally_=tasks.note.with_args("cleaned"))
    workflow = flow.enqueue()
    assert not workflow.cancel(by="ada")
    assert states(workflow) == {"give": "CANCELLED", "add": "CANCELLED", "note": "READY"}
    driver.drain()
    with pytest.raises(TaskCancelled) as raised:
        workflow.get(timeout=1)
    assert "was cancelled. give (" in str(raised.value)
    assert Effect.objects.filter(name="cleaned").count() == 1

    workflow = flow.enqueue()
    assert not workflow.cancel(by="ada")
    assert not workflow.cancel(by="ada")
    assert workflow.cancel(by="ada", finally_too=True)
    assert workflow.state == "CANCELLED"
    assert Effect.objects.filter(name="cleaned").count() == 1


def test_handlers_run_again_after_a_retry(driver):
    flow = chain(
        tasks.fail_once.with_args("repaired"),
        on_failure=chain(
            tasks.note.with_args("told"), tasks.show.with_args(previous).named("after")
        ),
        finally_=tasks.note.with_args("cleaned"),
    )
    workflow = flow.enqueue()
    driver.drain()
    workflow.retry()
    assert [r.state for r in workflow.results] == ["READY", *["WAITING"] * 3]
    driver.drain()
    workflow.refresh()
    assert workflow.state == "FAILED"
    counts = [Effect.objects.filter(name=name).count() for name in ("told", "cleaned")]
    assert counts == [2, 2]
    Effect.objects.create(name="repaired")
    workflow.retry()
    driver.drain()
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"
    counts = [Effect.objects.filter(name=name).count() for name in ("told", "cleaned")]
    assert counts == [2, 3]
    assert workflow.result("after").reason == "Skipped: nothing failed."


def test_step_that_allows_failures_runs_after_a_failure(driver):
    flow = graph()
    bad = flow.add(tasks.fail)
    flow.add(tasks.show.with_args(previous), after=bad, allow_failures=True)
    workflow = flow.enqueue()
    driver.drain()
    assert workflow.result("show").return_value == [None]
    workflow.refresh()
    assert workflow.state == "FAILED"


def test_retry_of_the_failed_task_lets_the_workflow_go_on(driver):
    workflow = chain(
        tasks.fail_once.with_args("repaired"), tasks.show.with_args(previous), tasks.give
    ).enqueue()
    driver.drain()
    Effect.objects.create(name="repaired")
    workflow.result("fail_once").retry(by="ada")
    assert states(workflow) == {"fail_once": "READY", "show": "WAITING", "give": "WAITING"}
    driver.drain()
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"
    assert workflow.result("show").return_value == ["repaired"]


def test_workflow_waits_for_an_allowed_failure_that_is_retried(driver):
    workflow = chain(
        group(tasks.fail_once.with_args("later"), allow_failures=True), tasks.give
    ).enqueue()
    driver.drain()
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"
    workflow.result("fail_once").retry()
    workflow.refresh()
    assert workflow.state == "RUNNING"
    Effect.objects.create(name="later")
    driver.drain()
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"
    assert driver.ran.count("give") == 1


def test_parent_that_is_lost_too_often_fails_its_workflow(driver):
    workflow = chain(tasks.give, tasks.add.with_args(1)).enqueue()
    for _ in range(3):
        driver.promote()
        (execution,) = driver.claim()
        driver.lose(execution)
    assert states(workflow) == {"give": "FAILED", "add": "CANCELLED"}
    workflow.refresh()
    assert workflow.state == "FAILED"


def test_parent_that_expires_skips_what_comes_after_it(driver):
    late = tasks.give.using(expires=0.001)
    workflow = chain(late, tasks.add.with_args(1)).enqueue()
    (execution,) = driver.claim()
    execution.began = timezone.now()
    driver.run(execution)
    driver.drain()
    assert states(workflow) == {"give": "CANCELLED", "add": "CANCELLED"}


def test_long_chain_that_fails_at_once_takes_few_statements(driver, django_assert_max_num_queries):
    chain(tasks.fail, *(tasks.give for _ in range(400))).enqueue()
    (execution,) = driver.claim()
    execution.run()
    # SQLite moves row by row, MariaDB and PostgreSQL 500 at a time.
    from django.db import connection

    moves = 2 * 400 if connection.vendor == "sqlite" else 30
    with django_assert_max_num_queries(60 + moves):
        driver.write(execution)
    assert FinishedTask.objects.filter(status="CANCELLED").count() == 400
    assert Workflow.objects.get().status == "FAILED"


class TestPruning:
    def old(self, workflow):
        long_ago = timezone.now() - timedelta(days=20)
        Workflow.objects.filter(pk=workflow.id).update(finished_at=long_ago)
        FinishedTask.objects.update(finished_at=long_ago)

    def prune(self):
        return maintenance.prune("default", successful=7 * 86_400, failed=30 * 86_400)

    def test_workflow_goes_as_a_whole(self, driver):
        workflow = chain(group(tasks.give, tasks.give), tasks.give).enqueue()
        driver.drain()
        self.old(workflow)
        assert self.prune() == 3
        for model in (Workflow, Node, Barrier, Edge, FinishedTask):
            assert not model.objects.exists()

    def test_results_that_a_retry_needs_are_kept(self, driver):
        workflow = chain(tasks.give.with_args("needed"), tasks.fail).enqueue()
        driver.drain()
        self.old(workflow)
        assert self.prune() == 0
        assert workflow.result("give").return_value == "needed"

    def test_results_of_a_workflow_that_is_not_over_are_kept(self, driver):
        chain(tasks.give, tasks.give).enqueue()
        driver.step()
        FinishedTask.objects.update(finished_at=timezone.now() - timedelta(days=400))
        assert self.prune() == 0
        assert (FinishedTask.objects.count(), QueuedTask.objects.count()) == (1, 1)
