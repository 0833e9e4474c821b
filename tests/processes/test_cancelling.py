"""Running tasks end when somebody asks, and the row says who and why."""

import pytest

from django_bgtasks.models import Cancellation
from tests import policy_tasks, tasks
from tests.models import Effect

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


def has_begun():
    return Effect.objects.filter(name="began").exists()


@pytest.mark.parametrize(
    "task",
    [
        policy_tasks.check_until_cancelled,
        policy_tasks.track_until_cancelled,
        policy_tasks.sleep_async_until_cancelled,
    ],
    ids=lambda task: task.name,
)
def test_a_running_task_that_asks_ends_when_it_is_cancelled(start_worker, task):
    worker = start_worker("--processes=1")
    result = task.enqueue()
    until(has_begun)
    assert result.cancel(by="ada", why="the wrong feed") is False
    until(lambda: result.refresh() or result.is_finished)
    assert result.state == "CANCELLED"
    assert result.reason == "Cancelled by ada: the wrong feed"
    assert tasks.add.enqueue(1, 2).get(timeout=60) == 3
    until(lambda: not Cancellation.objects.exists())
    assert worker.process.poll() is None


def test_a_task_that_does_not_ask_goes_on_unless_it_is_forced(start_worker):
    start_worker("--processes=1")
    result = policy_tasks.sleep_until_forced.enqueue()
    until(has_begun)
    result.cancel(by="ada")
    assert tasks.add.enqueue(1, 2).status != "SUCCESSFUL"
    result.refresh()
    assert result.state == "RUNNING"
    result.cancel(by="bob", why="now", force=True)
    until(lambda: result.refresh() or result.is_finished)
    assert result.state == "CANCELLED"
    assert result.reason == "Cancelled by bob: now"


def test_a_task_that_ignores_a_forced_cancel_is_killed_after_its_grace(start_worker):
    start_worker("--processes=1")
    result = policy_tasks.ignore_all_requests.enqueue()
    until(has_begun)
    result.cancel(by="ada", force=True)
    until(lambda: result.refresh() or result.is_finished)
    assert result.state == "CANCELLED"
    assert result.reason == "Cancelled by ada."
    assert Effect.objects.filter(name="swallowed").exists()
    assert tasks.add.enqueue(1, 2).get(timeout=60) == 3


def test_a_task_that_ends_before_it_hears_of_it_keeps_its_result(start_worker, tmp_path):
    start_worker("--processes=1")
    result = tasks.wait_for_file.enqueue(str(tmp_path / "go"))
    until(lambda: Effect.objects.exists())
    result.cancel()
    (tmp_path / "go").touch()
    assert result.get(timeout=60) == "done"
