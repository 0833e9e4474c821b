"""Claim and finish: the same cases on every database."""

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from django_bgtasks import transitions
from django_bgtasks.db import ClaimRequest, Ending, operations_for
from django_bgtasks.ids import new_id
from django_bgtasks.models import FinishedTask, QueuedTask
from tests.tasks import add

pytestmark = pytest.mark.django_db(transaction=True)


def claim(queues=("default",), limit=10, **options):
    request = ClaimRequest(
        queues=queues, limit=limit, claim_id=new_id(), worker_id="w", lease=30, **options
    )
    return operations_for("default").exchange([], request).claimed


@pytest.fixture(params=[False, True], ids=["pooled", "own session"], autouse=True)
def own_session(request, monkeypatch):
    """Each case with a connection that a pooler may share, and with one that keeps its session."""
    monkeypatch.setattr(
        "tests.db.test_exchange.ClaimRequest", partial(ClaimRequest, own_session=request.param)
    )


def ending(task, **changes):
    return Ending(
        **{
            "id": task.id,
            "claim_id": task.claim_id,
            "status": "SUCCESSFUL",
            "finished_at": timezone.now(),
            "return_value": "3",
            **changes,
        }
    )


def test_claim_returns_the_row_as_it_was_enqueued():
    result = add.using(priority=5).enqueue(1, b="zwei ☃")
    (task,) = claim()
    assert task.id == result.id
    assert task.task_path == "tests.tasks.add"
    assert (task.priority, task.attempt, task.worker_id) == (5, 1, "w")
    assert task.started_at is not None
    assert abs(task.last_attempted_at - timezone.now()) < timedelta(minutes=1)
    result.refresh()
    assert result.status == "RUNNING"
    assert result.worker_ids == ["w"]


def test_claim_takes_the_larger_priority_first_and_then_the_older():
    results = [add.using(priority=p).enqueue(p, 0) for p in (0, 50, -3, 50)]
    order = [results[1].id, results[3].id, results[0].id, results[2].id]
    assert [task.id for task in claim(limit=4)] == order


def test_queues_are_served_in_order_of_preference():
    late = add.using(queue_name="reports", priority=90).enqueue(1, 1)
    first = add.using(queue_name="emails").enqueue(1, 1)
    assert [t.id for t in claim(("emails", "reports"))] == [first.id, late.id]


def test_priorities_decide_between_equal_queues():
    low = add.using(queue_name="emails").enqueue(1, 1)
    high = add.using(queue_name="reports", priority=90).enqueue(1, 1)
    claimed = claim(("emails", "reports"), limit=1, by_priority=True)
    assert [t.id for t in claimed] == [high.id]
    assert [t.id for t in claim(("emails", "reports"), by_priority=True)] == [low.id]


def test_a_task_is_claimed_once():
    add.enqueue_many([(n, n) for n in range(7)])
    assert [len(claim(limit=4)) for _ in range(3)] == [4, 3, 0]


def test_finishing_moves_the_row():
    result = add.enqueue(1, 2)
    (task,) = claim()
    done = operations_for("default").exchange([ending(task)], None)
    assert done.ended == {result.id}
    assert not QueuedTask.objects.exists()
    row = FinishedTask.objects.get()
    assert (row.status, row.return_value, row.args, row.attempt) == ("SUCCESSFUL", 3, [1, 2], 1)
    result.refresh()
    assert result.return_value == 3


def test_a_finish_under_another_claim_changes_nothing():
    add.enqueue(1, 2)
    (task,) = claim()
    assert (
        operations_for("default").exchange([ending(task, claim_id=new_id())], None).ended == set()
    )
    assert QueuedTask.objects.get().status == "RUNNING"
    assert not FinishedTask.objects.exists()


def test_finish_and_claim_share_a_transaction():
    add.enqueue_many([(n, n) for n in range(3)])
    first = claim(limit=2)
    request = ClaimRequest(queues=["default"], limit=5, claim_id=new_id(), worker_id="w", lease=30)
    done = operations_for("default").exchange([ending(t) for t in first], request)
    assert done.ended == {t.id for t in first}
    assert len(done.claimed) == 1


def test_release_counts_no_attempt():
    result = add.enqueue(1, 2)
    (task,) = claim()
    assert transitions.release("default", [(task.id, task.claim_id)]) == 1
    result.refresh()
    assert (result.state, result.attempts) == ("READY", 0)
    assert transitions.release("default", [(task.id, task.claim_id)]) == 0


def make_due():
    """Let the pause pass after which a task that was lost twice runs again."""
    transitions.promote("default", 10, now=timezone.now() + timedelta(minutes=1))


def test_rescue_runs_a_task_again_and_fails_it_at_the_third_loss():
    result = add.enqueue(1, 2)
    for lost in (1, 2, 3):
        make_due()
        (task,) = claim()
        rescue = transitions.rescue(
            "default", [(task.id, task.claim_id)], why="killed by SIGKILL.", max_lost=3
        )
        result.refresh()
        assert (rescue.again, rescue.failed) == (([task.id], []) if lost < 3 else ([], [task.id]))
        assert result.attempts == lost
    assert result.state == "FAILED"
    assert result.errors[-1].exception_class_path == "django_bgtasks.exceptions.WorkerLost"


def test_a_lapsed_lease_is_taken_over_once():
    result = add.enqueue(1, 2)
    (task,) = claim()
    assert transitions.take_over("default", lease=30, limit=10) == []
    later = timezone.now() + timedelta(seconds=40)
    ((pk, new_claim),) = transitions.take_over("default", lease=30, limit=10, now=later)
    assert pk == result.id
    assert new_claim != task.claim_id
    assert transitions.take_over("default", lease=30, limit=10, now=later) == []
    assert operations_for("default").exchange([ending(task)], None).ended == set()


def test_renew_reports_what_is_held_still():
    add.enqueue_many([(n, n) for n in range(3)])
    tasks = claim()
    transitions.release("default", [(tasks[0].id, tasks[0].claim_id)])
    kept = operations_for("default").renew([(t.id, t.claim_id) for t in tasks], 30)
    assert kept == {t.id for t in tasks[1:]}


def test_scheduled_tasks_become_ready_when_they_are_due():
    result = add.using(run_after=timedelta(minutes=5)).enqueue(1, 2)
    assert result.state == "SCHEDULED"
    assert claim() == []
    assert transitions.promote("default", 10) == []
    assert 290 < operations_for("default").next_due() < 301
    later = timezone.now() + timedelta(minutes=6)
    assert transitions.promote("default", 10, now=later) == ["default"]
    assert len(claim()) == 1


def test_cancel_and_retry_by_hand_move_the_row_to_and_fro():
    result = add.enqueue(1, 2)
    assert result.cancel(by="ann") is True
    assert (result.state, result.reason) == ("CANCELLED", "Cancelled by ann.")
    assert result.status == "FAILED"
    result.retry(by="bob")
    assert (result.state, result.reason) == ("READY", "Retried by bob.")
    (task,) = claim()
    assert task.id == result.id
    assert result.cancel() is False
    assert result.state == "RUNNING"


def test_what_is_scheduled_runs_now_by_hand():
    late = add.using(run_after=timedelta(days=5)).enqueue(1, 2)
    ready, running = add.enqueue(3, 4), add.enqueue(5, 6)
    claim(limit=1)
    ids = [late.id, ready.id, running.id]
    assert transitions.run_now("default", ids, by="ann") == [late.id]
    row = QueuedTask.objects.get(pk=late.id)
    assert (row.status, row.run_after, row.due_at) == ("READY", None, None)
    assert row.reason == "Run now by ann."
    assert transitions.run_now("default", ids) == []
    assert late.id in {task.id for task in claim()}


def test_prune_removes_what_ended_before():
    add.enqueue_many([(n, n) for n in range(4)])
    tasks = claim()
    operations_for("default").exchange([ending(t) for t in tasks], None)
    now = timezone.now()
    operations = operations_for("default")
    assert operations.prune(["SUCCESSFUL"], now - timedelta(days=1), 100) == 0
    assert operations.prune(["SUCCESSFUL"], now + timedelta(days=1), 3) == 3
    assert operations.prune(["FAILED"], now + timedelta(days=1), 3) == 0
    assert FinishedTask.objects.count() == 1


def test_queue_names_lists_the_queues_with_ready_tasks():
    add.using(queue_name="reports").enqueue(1, 1)
    add.using(queue_name="emails").enqueue(1, 1)
    add.using(queue_name="emails").enqueue(1, 1)
    assert operations_for("default").queue_names() == ["emails", "reports"]


def test_the_clock_of_the_database_is_utc():
    assert abs(operations_for("default").now() - timezone.now()) < timedelta(seconds=5)


def test_a_suspect_that_only_waited_in_a_lost_worker_is_not_blamed():
    result = add.enqueue(1, 2)
    for begun_alone in (False, False, True, False, True):
        make_due()
        (task,) = claim()
        if begun_alone:
            assert transitions.begin_alone("default", (task.id, task.claim_id)) == 1
        held = [(task.id, task.claim_id)]
        transitions.rescue("default", held, why="silence.", max_lost=3, begun=False)
    result.refresh()
    # The first loss counts although nobody knows; then only the two that had begun.
    assert result.state == "FAILED"
    assert len(result.errors) == 3
