"""What is asked of a real worker by its row."""

import pytest

from django_bgtasks import workers
from django_bgtasks.models import Worker, WorkerRequest
from tests import tasks
from tests.models import Effect

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def busy(start_worker, tmp_path):
    """A worker that runs a task until the file is made, the task, the file."""
    worker = start_worker("-p", 1)
    path = tmp_path / "go"
    running = tasks.wait_for_file.enqueue(str(path))
    until(lambda: Effect.objects.exists())
    return worker, running, path


def state():
    return Worker.objects.get().state


def test_a_worker_that_is_asked_to_be_quiet_takes_no_more_and_can_be_stopped(busy):
    worker, running, path = busy
    assert workers.ask(Worker.objects.get(), WorkerRequest.QUIET, by="ann")
    worker.says("ann asks this worker to take no more tasks.")
    until(lambda: state() == "QUIET")
    path.touch()
    running.get(timeout=60)
    waiting = tasks.nothing.enqueue()
    assert workers.ask(Worker.objects.get(), WorkerRequest.STOP, by="bob")
    worker.says("bob asks this worker to stop.")
    assert worker.process.wait(60) == 0
    waiting.refresh()
    assert waiting.state == "READY"
    row = Worker.objects.get()
    assert (row.state, row.request, row.requested_by) == ("STOPPED", "STOP", "bob")
    assert worker.output.count("asks this worker") == 2


def test_a_worker_that_is_asked_to_stop_finishes_what_it_runs(busy):
    worker, running, path = busy
    assert workers.ask(Worker.objects.get(), WorkerRequest.STOP, by="ann")
    worker.says("Finishing 1 running task")
    until(lambda: state() == "STOPPING")
    path.touch()
    assert worker.process.wait(60) == 0
    running.refresh()
    assert running.state == "SUCCESSFUL"


def test_a_worker_says_what_it_is_and_takes(start_worker):
    worker = start_worker("-p", 1, "--no-scheduler")
    until(lambda: [w for w in workers.live("default") if w.memory])
    until(lambda: workers.condition_of(workers.live("default")[0]) == "RUNNING")
    (row,) = workers.live("default")
    assert (row.scheduler, row.maintenance) == (False, True)
    assert row.memory > 10_000_000
    assert not workers.clock_differs(row)
    assert worker.stop() == 0
    assert Worker.objects.get().memory is None
