"""Bulk operations are done by workers, whoever of them is killed meanwhile."""

import pytest

from django_bgtasks.bulk.asking import begin
from django_bgtasks.models import BulkOperation, FinishedTask, QueuedTask

from ..bulk.rows import finished, results
from .conftest import until, until_all_ended

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

COUNT = 3_000


def test_each_task_is_retried_once_though_a_worker_is_killed_in_the_middle(start_worker):
    finished(COUNT, queue_name="emails")
    finished(10, status="SUCCESSFUL", queue_name="emails")
    operation = begin("default", results(queue="emails"), "retry", rate=1_000)
    # They serve another queue: what is retried stays where it is.
    workers = [start_worker("reports", "-p", 1) for _ in range(2)]
    until(lambda: BulkOperation.objects.get().done > 0)
    workers[0].kill()
    workers[1].kill()
    assert BulkOperation.objects.get().state == "RUNNING"
    start_worker("reports", "-p", 1)
    until(lambda: BulkOperation.objects.get().state == "DONE")
    operation.refresh_from_db()
    assert (operation.done, operation.skipped) == (COUNT, {"SUCCESSFUL": 10})
    assert QueuedTask.objects.filter(status="READY").count() == COUNT
    assert FinishedTask.objects.count() == 10


def test_what_was_retried_runs_at_once(start_worker):
    finished(50, args=[1, 2])
    start_worker("-p", 1)
    begin("default", results(status="FAILED"), "retry")
    until(lambda: BulkOperation.objects.get().state == "DONE")
    until_all_ended()
    assert FinishedTask.objects.filter(status="SUCCESSFUL").count() == 50
