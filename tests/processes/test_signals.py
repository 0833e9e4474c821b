"""Django's signals of tasks that a real worker runs."""

import pytest

from tests import tasks
from tests.models import Effect

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


def traces(worker, count):
    until(
        lambda: Effect.objects.exclude(name="x").count() >= count,
        message=f"not {count} signals came: {worker.output}",
    )
    return list(Effect.objects.order_by("pk").values_list("name", "number"))


@pytest.fixture
def worker(start_worker):
    return start_worker("-p", 1, settings="tests.processes.receiver_settings")


def test_started_and_finished_are_sent_once_and_in_order(worker):
    result = tasks.nothing.enqueue()
    assert result.get(timeout=60) is None
    assert traces(worker, 2) == [
        ("started nothing RUNNING DatabaseBackend", 1),
        ("finished nothing SUCCESSFUL DatabaseBackend None", 1),
    ]
    # A receiver that raises harms neither the outcome nor the other receivers.
    worker.says("A receiver that raises.")
    result.refresh()
    assert result.status == "SUCCESSFUL"


def test_an_async_task_sends_the_same(worker):
    tasks.sleep_async.enqueue(0).get(timeout=60)
    assert traces(worker, 2) == [
        ("started sleep_async RUNNING DatabaseBackend", 1),
        ("finished sleep_async SUCCESSFUL DatabaseBackend None", 1),
    ]


def test_receivers_find_the_exception_of_a_failure(worker):
    tasks.raise_error.enqueue()
    assert traces(worker, 2) == [
        ("started raise_error RUNNING DatabaseBackend", 1),
        ("finished raise_error FAILED DatabaseBackend ValueError", 1),
    ]


def test_each_attempt_starts_and_only_the_last_finishes(worker):
    tasks.raise_until_third.enqueue("x").get(timeout=60)
    assert [name for name, _ in traces(worker, 6) if name != "x"] == [
        "started raise_until_third RUNNING DatabaseBackend",
        "retried ConnectionError",
        "started raise_until_third RUNNING DatabaseBackend",
        "retried ConnectionError",
        "started raise_until_third RUNNING DatabaseBackend",
        "finished raise_until_third SUCCESSFUL DatabaseBackend None",
    ]


def test_a_task_whose_process_died_too_often_is_finished_for_receivers_too(worker):
    tasks.kill_own_process_once.enqueue()
    assert traces(worker, 2)[-1] == (
        "finished kill_own_process_once FAILED DatabaseBackend None",
        1,
    )
