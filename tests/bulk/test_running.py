"""What becomes of the tasks of a bulk operation, whatever else happens to them."""

import threading
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks import chain
from django_bgtasks.bulk import running, verbs
from django_bgtasks.bulk.asking import abort, begin
from django_bgtasks.bulk.running import work
from django_bgtasks.filtering import RETRYING
from django_bgtasks.models import BulkOperation, FinishedTask, QueuedTask, Step

from .. import factories, policy_tasks
from ..sample_tasks import answer, stop_with_value_error
from ..workflows.driver import Driver
from .rows import FINGERPRINT, finished, queued, results, tasks

pytestmark = pytest.mark.django_db

RESULTS, TASKS = results(), tasks()


def do(operation, limit=1_000):
    """Do all batches, as workers would; return the operation as it is then."""
    for _ in range(limit):
        if work("default") is None:
            break
    operation.refresh_from_db()
    return operation


def test_nothing_to_do_costs_one_query(django_assert_num_queries):
    with django_assert_num_queries(1):
        assert work("default") is None


def test_all_that_fits_is_retried_and_the_rest_is_not_looked_at():
    rows = finished(7)
    finished(2, queue_name="emails")
    finished(3, status="SUCCESSFUL")
    operation = do(begin("default", results(status="FAILED", queue="default"), "retry", by="ann"))
    assert (operation.state, operation.done, operation.skipped) == ("DONE", 7, {})
    assert {row.pk for row in QueuedTask.objects.all()} == {row.pk for row in rows}
    assert set(QueuedTask.objects.values_list("reason", flat=True)) == {"Retried by ann."}
    assert operation.started_at <= operation.finished_at
    assert FinishedTask.objects.count() == 5


def test_one_batch_is_bounded_and_the_newest_come_first(monkeypatch):
    monkeypatch.setattr(running, "BATCH", 3)
    rows = finished(7)
    operation = begin("default", RESULTS, "retry")
    assert work("default").done == 3
    operation.refresh_from_db()
    assert (operation.state, operation.done) == ("RUNNING", 3)
    assert {row.pk for row in QueuedTask.objects.all()} == {row.pk for row in rows[4:]}
    assert do(operation).done == 7


def test_a_batch_looks_at_so_many_rows_and_no_more(monkeypatch):
    monkeypatch.setattr(running, "LOOK", 4)
    wanted = finished(2)
    finished(9, status="SUCCESSFUL")
    also = finished(1)
    operation = begin("default", results(status="FAILED"), "retry")
    with CaptureQueriesContext(connection) as queries:
        assert work("default").done == 1
    assert not any("COUNT(" in query["sql"] for query in queries)
    assert work("default").done == 0
    assert do(operation).done == 3
    assert {row.pk for row in QueuedTask.objects.all()} == {r.pk for r in (*wanted, *also)}


def test_a_cause_is_read_by_its_index(monkeypatch):
    monkeypatch.setattr(running, "LOOK", 1)
    finished(3, fingerprint=FINGERPRINT)
    finished(5)
    assert do(begin("default", results(cause=FINGERPRINT), "retry")).done == 3


def test_what_comes_later_is_not_swept_in():
    finished(2)
    operation = begin("default", RESULTS, "delete")
    late = finished(2)
    assert do(operation).done == 2
    assert {row.pk for row in FinishedTask.objects.all()} == {row.pk for row in late}


def test_what_fails_again_meanwhile_is_not_retried_twice(monkeypatch):
    monkeypatch.setattr(running, "BATCH", 1)
    finished(2)
    operation = begin("default", RESULTS, "retry")
    work("default")
    (claimed,) = factories.claim()
    factories.end(claimed, error="ValueError")
    assert do(operation).done == 2
    assert FinishedTask.objects.get().status == "FAILED"


def test_tasks_in_another_state_are_skipped_and_counted_by_it():
    queued(3)
    queued(2, status="SCHEDULED")
    factories.claim(limit=1)
    operation = do(begin("default", TASKS, "cancel", by="ann"))
    assert (operation.done, operation.skipped) == (4, {"RUNNING": 1})
    assert set(FinishedTask.objects.values_list("reason", flat=True)) == {"Cancelled by ann."}


def test_scheduled_tasks_are_run_now():
    queued(2, status="SCHEDULED")
    queued(1)
    operation = do(begin("default", TASKS, "run_now"))
    assert (operation.done, operation.skipped) == (2, {"READY": 1})
    assert len(factories.claim()) == 3


def test_tasks_that_wait_to_retry_are_cancelled_by_their_last_error():
    entry = {"exception_class_path": "builtins.ValueError"}
    wanted = queued(2, status="SCHEDULED", failures=1, errors=[entry])
    queued(1, status="SCHEDULED", failures=1, errors=[entry, {"exception_class_path": "x.Other"}])
    queued(1, status="SCHEDULED")
    selection = tasks(status=RETRYING, error="ValueError")
    assert do(begin("default", selection, "cancel")).done == 2
    assert {row.pk for row in FinishedTask.objects.all()} == {row.pk for row in wanted}


def test_results_are_deleted_with_their_steps():
    (row,) = finished(1)
    Step.objects.create(task_id=row.pk, name="a", value=1, attempt=1, made_at=timezone.now())
    assert do(begin("default", RESULTS, "delete")).done == 1
    assert not FinishedTask.objects.exists()
    assert not Step.objects.exists()


def test_a_unique_key_that_another_task_has_now_is_a_reason():
    factories.fail(policy_tasks.import_feed.enqueue(1))
    policy_tasks.import_feed.enqueue(1)
    operation = do(begin("default", RESULTS, "retry"))
    assert (operation.done, operation.skipped) == (0, {"KEY": 1})


@pytest.mark.django_db(transaction=True)
def test_members_of_workflows_are_not_deleted_nor_retried_before_their_parents():
    chain(stop_with_value_error.with_args(), answer.with_args()).enqueue()
    Driver().drain()
    assert do(begin("default", RESULTS, "delete")).skipped == {"WORKFLOW": 2}
    child = FinishedTask.objects.get(status="CANCELLED")
    operation = do(begin("default", results(status="CANCELLED"), "retry"))
    assert operation.skipped == {"PARENTS": 1}
    assert FinishedTask.objects.filter(pk=child.pk).exists()
    assert do(begin("default", results(status="FAILED"), "retry")).done == 1


def test_one_task_that_can_not_be_changed_keeps_no_other_waiting(monkeypatch):
    rows = finished(5)
    bad = str(rows[2].pk)
    retry = verbs.VERBS["retry"]

    def act(alias, ids, by):
        if bad in ids:
            raise ValueError("what\x00ever \ud800")
        return retry.act(alias, ids, by)

    monkeypatch.setitem(verbs.VERBS, "retry", verbs.Verb(*_parts(retry, act=act)))
    operation = do(begin("default", RESULTS, "retry"))
    assert (operation.state, operation.done, operation.skipped) == ("DONE", 4, {"ERROR": 1})
    assert operation.error == f"{bad}: ValueError: whatever ?"


def _parts(verb, **changes):
    names = ("name", "finished", "states", "permission", "consequence", "act")
    return [changes.get(name, getattr(verb, name)) for name in names]


def test_a_filter_that_cannot_be_read_ends_the_operation():
    operation = begin("default", RESULTS, "retry")
    BulkOperation.objects.update(filter={"color": "red"})
    operation = do(operation)
    assert operation.state == "FAILED"
    assert "color" in operation.error
    assert operation.finished_at is not None


def test_what_would_fail_for_ever_ends_the_operation_and_no_other(monkeypatch):
    finished(1)
    queued(1)
    broken, other = begin("default", RESULTS, "retry"), begin("default", TASKS, "cancel")
    original = running._next

    def find(alias, operation, selection):
        if operation.pk == UUID(broken.pk):
            raise TypeError("it does not fit \ud800")
        return original(alias, operation, selection)

    monkeypatch.setattr(running, "_next", find)
    assert do(other).state == "DONE"
    broken.refresh_from_db()
    assert (broken.state, broken.error) == ("FAILED", "TypeError: it does not fit ?")


def test_a_rate_is_kept_by_the_clock_of_the_database():
    finished(7)
    operation = begin("default", RESULTS, "retry", rate=3)
    assert work("default").done == 3
    batch = work("default")
    assert batch.done == 0
    assert 0 < batch.more_in <= 1
    BulkOperation.objects.update(locked_until=timezone.now() - timedelta(seconds=1))
    assert work("default").done == 3
    operation.refresh_from_db()
    assert operation.done == 6


def test_operations_take_turns(monkeypatch):
    monkeypatch.setattr(running, "BATCH", 1)
    finished(3)
    queued(3)
    first, second = begin("default", RESULTS, "delete"), begin("default", TASKS, "cancel")
    work("default")
    work("default")
    assert set(BulkOperation.objects.values_list("done", flat=True)) == {1}
    abort("default", second.pk)
    assert do(first).done == 3


def test_an_aborted_operation_does_no_more_and_can_not_be_aborted_twice(monkeypatch):
    monkeypatch.setattr(running, "BATCH", 2)
    finished(5)
    operation = begin("default", RESULTS, "retry")
    work("default")
    assert abort("default", operation.pk, by="bob") is True
    assert abort("default", operation.pk, by="eve") is False
    operation = do(operation)
    assert (operation.state, operation.done, operation.abort_by) == ("ABORTED", 2, "bob")
    assert QueuedTask.objects.count() == 2


@pytest.mark.parametrize(
    ("verb", "selection", "rate", "text"),
    [
        ("retry", TASKS, None, "'retry' can't be done to live tasks. What can: cancel, run_now."),
        ("cancel", RESULTS, None, "'cancel' can't be done to results. What can: retry, delete."),
        ("explode", RESULTS, None, "'explode' can't be done"),
        ("retry", RESULTS, 0, "A rate is 0.01 to 100000 tasks a second, not 0."),
        ("retry", RESULTS, float("nan"), "A rate is"),
    ],
)
def test_what_makes_no_sense_is_refused(verb, selection, rate, text):
    with pytest.raises(ValueError, match=text.replace("?", r"\?")):
        begin("default", selection, verb, rate=rate)
    assert not BulkOperation.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_do_the_same_batch(monkeypatch):
    monkeypatch.setattr(running, "BATCH", 10)
    finished(100)
    operation = begin("default", RESULTS, "retry")
    failed = []

    def worker():
        try:
            while work("default") is not None:
                pass
        except Exception as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=worker) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    operation.refresh_from_db()
    assert (operation.state, operation.done, operation.skipped) == ("DONE", 100, {})
    assert QueuedTask.objects.count() == 100


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_is_not_committed_left_nothing(monkeypatch):
    finished(5)
    operation = begin("default", RESULTS, "retry")

    def gone(*args, **kwargs):
        raise OperationalError("the server has gone away")

    with monkeypatch.context() as patched:
        patched.setattr(BulkOperation, "save", gone)
        with pytest.raises(OperationalError):
            work("default")
    assert not QueuedTask.objects.exists()
    assert do(operation).done == 5
