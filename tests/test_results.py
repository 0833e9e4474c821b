"""DatabaseTaskResult: waiting, and what can be done with a task by hand."""

import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.utils import timezone

from django_bgtasks import results
from django_bgtasks.compat import TaskResultDoesNotExist
from django_bgtasks.exceptions import (
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
    WrongState,
)
from django_bgtasks.ids import new_id
from django_bgtasks.models import FinishedTask, QueuedTask, Worker
from django_bgtasks.results import fetch_row, is_served
from tests import factories
from tests.sample_tasks import answer, note

pytestmark = pytest.mark.django_db


def worker(queues=(), *, silent_for=0.0, **changes):
    """Register a worker that was last heard of silent_for seconds ago."""
    now = timezone.now()
    return Worker.objects.create(
        **{
            "id": new_id(),
            "name": "w1",
            "backend": "default",
            "hostname": "host",
            "pid": 1,
            "version": "1",
            "queues": list(queues),
            "processes": 1,
            "threads": 1,
            "state": "RUNNING",
            "started_at": now,
            "heartbeat_at": now - timedelta(seconds=silent_for),
            "lease": 30,
            **changes,
        }
    )


def waiting(awaited):
    """Return a function that asks a result for its value, in either way."""
    if awaited:
        return lambda result, timeout=None: async_to_sync(result.aget)(timeout)
    return lambda result, timeout=None: result.get(timeout)


@pytest.fixture(params=[False, True], ids=["get", "aget"])
def get(request):
    return waiting(request.param)


@pytest.fixture
def plain(transactional_db):
    """A result without a transaction around it, as where tasks are waited for."""
    return note.using(queue_name="emails").enqueue(1)


# get()


@pytest.mark.parametrize("value", [42, None, [], {"a": [1.5]}, "text"])
def test_get_returns_the_value_of_a_task_that_has_finished(plain, get, value):
    factories.succeed(plain, value)
    assert get(plain) == value
    assert plain.return_value == value
    assert get(plain, 0) == value


def test_get_returns_as_soon_as_the_task_has_finished(plain, get):
    entered = threading.Event()
    values = []
    refresh = type(plain).refresh

    class Watched(type(plain)):
        def refresh(self):
            refresh(self)
            entered.set()

    watched = object.__new__(Watched)
    for name in plain.__dataclass_fields__:
        object.__setattr__(watched, name, getattr(plain, name))

    def wait():
        try:
            values.append(get(watched, 60))
        finally:
            connections.close_all()

    thread = threading.Thread(target=wait)
    thread.start()
    assert entered.wait(30)
    factories.succeed(plain, "done")
    thread.join(60)
    assert values == ["done"]


def test_get_raises_what_the_task_raised_as_text(plain, get):
    factories.fail(plain, "shop.errors.CardDeclined")
    with pytest.raises(TaskFailed) as caught:
        get(plain)
    assert str(caught.value) == f"note ({plain.id}) failed with shop.errors.CardDeclined."
    assert type(caught.value) is TaskFailed
    (remote,) = caught.value.__notes__
    assert remote.endswith("shop.errors.CardDeclined: as the worker saw it\n")


def test_get_of_a_task_that_failed_without_an_error_says_the_reason(plain, get):
    factories.fail(plain, reason="It was too late.")
    with pytest.raises(TaskFailed) as caught:
        get(plain)
    assert str(caught.value) == f"note ({plain.id}) failed. It was too late."


def test_get_of_a_cancelled_task_says_by_whom(plain, get):
    assert note.get_result(plain.id).cancel(by="ann")
    with pytest.raises(TaskCancelled) as caught:
        get(plain)
    assert str(caught.value) == f"note ({plain.id}) was cancelled. Cancelled by ann."


def test_get_of_a_task_that_was_pruned_raises(plain, get):
    QueuedTask.objects.all().delete()
    with pytest.raises(TaskResultDoesNotExist):
        get(plain)


def test_get_gives_up_and_says_that_no_worker_listens(plain, get):
    worker(["default", "reports"])
    with pytest.raises(WaitTimeout) as caught:
        get(plain, 0)
    assert isinstance(caught.value, TimeoutError)
    assert str(caught.value) == (
        f"Gave up after 0 s: task {plain.id} is still ready and no worker listens to 'emails'."
    )


def test_get_waits_for_as_long_as_it_was_told(plain, monkeypatch):
    clock = iter([100.0, 100.0, 102.5])
    pauses = []
    fake = SimpleNamespace(monotonic=lambda: next(clock), sleep=pauses.append)
    monkeypatch.setattr(results, "time", fake)
    with pytest.raises(WaitTimeout, match=r"^Gave up after 2\.5 s: "):
        plain.get(2.5)
    assert len(pauses) == 1
    assert 0 < pauses[0] <= 2.5


def test_get_gives_up_on_a_ready_task_that_a_worker_may_take(plain, get):
    worker(["emails"])
    with pytest.raises(WaitTimeout) as caught:
        get(plain, 0)
    assert str(caught.value) == f"Gave up after 0 s: task {plain.id} is still ready."


def test_get_gives_up_on_a_running_task(plain, get):
    factories.claim()
    with pytest.raises(WaitTimeout) as caught:
        get(plain, 0)
    assert str(caught.value) == f"Gave up after 0 s: task {plain.id} is still running."


def test_get_gives_up_on_a_scheduled_task_and_says_when(transactional_db, get):
    result = note.using(delay=3600).enqueue(1)
    with pytest.raises(WaitTimeout) as caught:
        get(result, 0)
    assert str(caught.value) == (
        f"Gave up after 0 s: task {result.id} is still scheduled; it starts after "
        f"{result.task.run_after.isoformat()}."
    )


# Who is served


@pytest.mark.parametrize(
    ("make", "served"),
    [
        (lambda: None, False),
        (lambda: worker(["emails"]), True),
        (lambda: worker(["reports", "emails"]), True),
        (lambda: worker(), True),
        (lambda: worker(["reports"]), False),
        (lambda: worker(["emails"], silent_for=31), False),
        (lambda: worker(["emails"], silent_for=31, lease=60), True),
        (lambda: worker(["emails"], state="STOPPING"), False),
        (lambda: worker(["emails"], backend="other"), False),
    ],
)
def test_a_queue_is_served_by_a_living_worker_that_listens_to_it(make, served):
    make()
    assert is_served("emails", "default", "default") is served


# Cancel and retry


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("delay", [None, 60])
def test_a_task_that_nobody_runs_can_be_cancelled(awaited, delay):
    result = answer.using(delay=delay).enqueue()
    cancel = async_to_sync(result.acancel) if awaited else result.cancel
    assert cancel(by="ann") is True
    assert (result.state, result.status) == ("CANCELLED", "FAILED")
    assert result.reason == "Cancelled by ann."
    assert result.is_finished
    assert result.finished_at >= result.enqueued_at - timedelta(seconds=1)
    assert not QueuedTask.objects.exists()
    assert cancel() is False
    assert result.reason == "Cancelled by ann."


def test_a_running_task_is_not_cancelled():
    result = answer.enqueue()
    (claimed,) = factories.claim()
    assert result.cancel() is False
    assert result.state == "RUNNING"
    factories.end(claimed, value=1)
    assert result.cancel() is False
    assert result.state == "SUCCESSFUL"


def test_cancelling_what_was_pruned_raises():
    result = answer.enqueue()
    QueuedTask.objects.all().delete()
    with pytest.raises(TaskResultDoesNotExist):
        result.cancel()


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("end", [lambda r: factories.fail(r), lambda r: r.cancel()])
def test_a_failed_or_cancelled_task_can_be_retried_under_its_id(awaited, end):
    result = answer.using(priority=5).enqueue()
    end(result)
    retry = async_to_sync(result.aretry) if awaited else result.retry
    retry(by="ann")
    assert (result.state, result.status) == ("READY", "READY")
    assert result.reason == "Retried by ann."
    assert result.finished_at is None
    assert not FinishedTask.objects.exists()
    row = QueuedTask.objects.get()
    assert (str(row.pk), row.priority, row.failures) == (result.id, 5, 0)
    factories.succeed(result, 7)
    result.refresh()
    assert result.return_value == 7


def test_a_retried_task_keeps_its_history():
    result = factories.fail(answer.enqueue())
    result.retry()
    assert [error.exception_class for error in result.errors] == [ValueError]
    assert result.attempts == 1
    assert result.reason == "Retried by hand."
    factories.claim(worker_id="w2")
    result.refresh()
    assert result.worker_ids == ["w1", "w2"]


@pytest.mark.parametrize(
    ("prepare", "state"),
    [
        (lambda result: None, "ready"),
        (lambda result: factories.claim(), "running"),
        (lambda result: factories.succeed(result), "successful"),
    ],
)
def test_only_a_failed_or_cancelled_task_can_be_retried(prepare, state):
    result = answer.enqueue()
    prepare(result)
    with pytest.raises(WrongState) as caught:
        result.retry()
    assert str(caught.value) == (
        f"Only a failed or cancelled task can be retried; answer ({result.id}) is {state}."
    )
    assert result.state == state.upper()


def test_retrying_what_was_pruned_raises():
    result = factories.fail(answer.enqueue())
    FinishedTask.objects.all().delete()
    with pytest.raises(TaskResultDoesNotExist):
        result.retry()


# From rows


def test_a_row_gives_its_result():
    result = note.enqueue(1)
    assert QueuedTask.objects.get().get_result() == result
    factories.succeed(result, 3)
    result.refresh()
    assert FinishedTask.objects.get().get_result() == result


def test_a_row_is_found_in_either_table():
    result = answer.enqueue()
    assert isinstance(fetch_row(result.id, "default"), QueuedTask)
    factories.succeed(result)
    assert isinstance(fetch_row(result.id, "default"), FinishedTask)


def test_a_row_that_moves_back_while_one_looks_is_found(monkeypatch):
    result = factories.fail(answer.enqueue())
    manager = FinishedTask._default_manager
    using = manager.using

    def moved(alias):
        monkeypatch.setattr(manager, "using", using)
        answer.get_result(result.id).retry()
        return using(alias)

    monkeypatch.setattr(manager, "using", moved)
    assert isinstance(fetch_row(result.id, "default"), QueuedTask)


def test_a_live_result_costs_one_query_and_a_finished_one_two(django_assert_num_queries):
    result = answer.enqueue()
    with django_assert_num_queries(1):
        answer.get_result(result.id)
    factories.succeed(result)
    with django_assert_num_queries(2):
        result.refresh()


def test_the_attempts_of_a_task_are_the_workers_that_had_it():
    result = answer.enqueue()
    assert (result.attempts, result.worker_ids) == (0, [])
    factories.fail(result)
    result.refresh()
    assert (result.attempts, result.worker_ids) == (1, ["w1"])
