"""Tasks that add tasks to their own workflow."""

import pytest

from django_bgtasks import chain, group, previous
from django_bgtasks.models import Barrier, FinishedTask, QueuedTask
from tests.models import Effect

from . import tasks

pytestmark = pytest.mark.django_db


def test_one_page_leads_to_the_next_and_what_follows_waits_for_all(driver):
    workflow = chain(tasks.page.with_args(1, 5), tasks.show.with_args(previous)).enqueue()
    driver.drain()
    assert driver.ran == ["page"] * 5 + ["show"]
    assert workflow.get(timeout=1) == [1]
    assert workflow.size == 6
    assert list(Effect.objects.order_by("pk").values_list("number", flat=True)) == [1, 2, 3, 4, 5]


def test_result_of_what_is_added_takes_the_tasks_place(driver):
    workflow = chain(tasks.factorial.with_args(5), tasks.add.with_args(previous, 1)).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == 121


def test_workflow_whose_last_task_is_replaced_has_the_new_value(driver):
    workflow = group(tasks.factorial.with_args(4), tasks.give.with_args(1)).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == [24, 1]
    workflow = tasks.factorial.with_args(4).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == 24


def test_as_many_tasks_as_there_turn_out_to_be(driver):
    workflow = chain(tasks.fan_out.with_args(150), tasks.add.with_args(previous, 0)).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) == sum(range(150))
    assert not Barrier.objects.exclude(missing=0).exists()


def test_nothing_is_added_by_an_attempt_that_fails(driver):
    workflow = chain(tasks.adds_and_fails_first, tasks.give).enqueue()
    driver.drain()
    assert workflow.get(timeout=1) is None
    assert Effect.objects.filter(name="added").count() == 1
    assert driver.ran == ["adds_and_fails_first"] * 3 + ["note", "give"]


def test_nothing_is_added_by_a_worker_that_has_lost_the_task(driver):
    workflow = chain(tasks.page.with_args(1, 2), tasks.give).enqueue()
    (execution,) = driver.claim()
    driver.lose(execution)
    execution.run()
    assert not driver.write(execution)
    workflow.refresh()
    assert workflow.size == 2
    driver.drain()
    workflow.refresh()
    assert (workflow.state, workflow.size) == ("SUCCESSFUL", 3)


def test_what_is_added_and_fails_skips_what_follows(driver):
    workflow = chain(tasks.fan_out.with_args("no number"), tasks.give).enqueue()
    driver.drain()
    assert [r.state for r in workflow.results] == ["FAILED", "CANCELLED"]
    assert FinishedTask.objects.count() == 2


def test_nonsense_is_refused_where_it_is_added(driver):
    workflow = chain(tasks.adds_nonsense).enqueue()
    driver.drain()
    (failure,) = workflow.failures
    assert failure["error"].startswith("django_bgtasks.exceptions.InvalidArguments: add():")
    assert not QueuedTask.objects.exists()


def test_single_task_is_told_how_to_become_a_workflow(driver):
    result = tasks.alone.enqueue()
    driver.drain()
    result.refresh()
    assert "Enqueue it as chain(task.with_args(...))" in result.errors[0].traceback


@pytest.mark.parametrize(
    ("flow", "value"),
    [
        (lambda: chain(tasks.page.with_args(1, 3), tasks.show.with_args(previous)), [1]),
        (lambda: chain(tasks.factorial.with_args(4), tasks.add.with_args(previous)), 25),
        (lambda: chain(tasks.fan_out.with_args(4), tasks.add.with_args(previous)), 7),
    ],
)
def test_immediate_backend_grows_too(settings, flow, value):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.ImmediateBackend"}}
    assert flow().enqueue().get() == value


def test_dummy_backend_keeps_what_was_enqueued(settings):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.DummyBackend"}}
    workflow = chain(tasks.give.with_args(1), tasks.add.with_args(previous)).enqueue()
    assert not workflow.is_finished
    assert [r.task.name for r in workflow.results] == ["give", "add"]
