"""The figures of queues, the same for pages, commands and health."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks import queues
from django_bgtasks.ids import new_id
from django_bgtasks.models import Queue, QueuedTask, Worker
from django_bgtasks.monitoring import queues as module
from django_bgtasks.monitoring.queues import queue_figures
from tests import factories
from tests.tasks import add

pytestmark = pytest.mark.django_db


def figures(name="default"):
    (found,) = queue_figures("default", [name])
    return found


def worker(**changes):
    now = timezone.now()
    return Worker.objects.create(
        **{
            "id": new_id(),
            "name": "web-1",
            "backend": "default",
            "pid": 1,
            "processes": 1,
            "threads": 1,
            "state": "RUNNING",
            "started_at": now - timedelta(hours=2),
            "heartbeat_at": now,
            "lease": 30,
            **changes,
        }
    )


def enqueued_ago(minutes, **options):
    result = add.using(**options).enqueue(1, 2)
    before = timezone.now() - timedelta(minutes=minutes)
    QueuedTask.objects.filter(pk=result.id).update(enqueued_at=before)
    return result


def test_tasks_are_counted_by_what_they_do():
    add.enqueue_many([(n, n) for n in range(5)])
    factories.claim(limit=2)
    add.using(run_after=timedelta(hours=1)).enqueue(1, 2)
    add.using(queue_name="emails").enqueue(1, 2)
    found = figures()
    assert (found.waiting, found.running, found.scheduled, found.held) == (3, 2, 1, 0)
    assert found.capped == frozenset()
    assert figures("reports").waiting == 0


def test_counting_ends_at_a_limit_and_says_so(monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    add.enqueue_many([(n, n) for n in range(5)])
    found = figures()
    assert (found.waiting, found.capped) == (3, {"waiting"})


def test_the_oldest_task_is_that_which_might_have_started_first():
    enqueued_ago(3)
    enqueued_ago(10)
    QueuedTask.objects.filter(pk=enqueued_ago(60).id).update(
        run_after=timezone.now() - timedelta(minutes=1)
    )
    assert 590 < figures().oldest_age < 660


def test_a_task_of_the_last_priority_is_seen_behind_all_others(monkeypatch):
    monkeypatch.setattr("django_bgtasks.db.backlogs.NEXT", 2)
    for _ in range(3):
        enqueued_ago(1, priority=10)
    enqueued_ago(20, priority=-10)
    assert figures().oldest_age > 1_190


def test_a_task_that_is_tried_again_does_not_count_as_waiting_since_yesterday():
    result = enqueued_ago(1_440)
    QueuedTask.objects.filter(pk=result.id).update(attempt=1)
    assert (figures().waiting, figures().oldest_age) == (1, None)


def test_a_queue_is_late_beyond_the_target_of_the_settings_or_its_own(settings):
    enqueued_ago(2)
    assert (figures().latency_target, figures().is_late) == (300, False)
    settings.TASKS = {
        "default": {
            **settings.TASKS["default"],
            "OPTIONS": {"LATENCY_TARGET": timedelta(minutes=1)},
        }
    }
    assert (figures().latency_target, figures().is_late) == (60, True)
    Queue.objects.create(name="default", latency_target=600)
    assert (figures().latency_target, figures().has_own_target) == (600, True)
    assert not figures().is_late


def test_a_paused_queue_is_not_late():
    enqueued_ago(60)
    assert figures().is_late
    queues.pause("default", reason="deploy", by="ann")
    found = figures()
    assert (found.is_paused, found.paused_by, found.reason) == (True, "ann", "deploy")
    assert not found.is_late


def test_workers_that_listen_are_those_that_would_take():
    add.enqueue(1, 2)
    worker(queues=["emails"])
    worker(name="lost", heartbeat_at=timezone.now() - timedelta(minutes=2))
    worker(name="gone", state="STOPPED")
    worker(name="quiet", state="QUIET")
    assert figures().is_unserved
    assert [found.name for found in figures().resting] == ["quiet"]
    worker(name="all", queues=[])
    worker(name="named", queues=["default", "emails"])
    assert {found.name for found in figures().workers} == {"all", "named"}
    assert not figures().is_unserved


def test_all_queues_are_those_of_the_settings_and_those_seen():
    Queue.objects.create(name="before")
    names = [found.name for found in queue_figures("default")]
    assert names == ["default", "emails", "reports", "before"]


def test_where_any_name_will_do_those_with_ready_tasks_are_found(settings):
    settings.TASKS = {"default": {**settings.TASKS["default"], "QUEUES": []}}
    add.using(queue_name="invented").enqueue(1, 2)
    assert "invented" in [found.name for found in queue_figures("default")]


def test_many_queues_cost_no_more_statements_than_one():
    def cost():
        with CaptureQueriesContext(connection) as statements:
            queue_figures("default")
        for query in statements.captured_queries:
            sql = query["sql"].upper()
            assert "DISTINCT" not in sql
            assert sql.count("COUNT(") <= sql.count("LIMIT")
        return len(statements)

    few = cost()
    Queue.objects.bulk_create(Queue(name=f"q{number}") for number in range(80))
    worker()
    assert cost() == few <= 4


def test_more_queues_than_one_statement_asks_for_are_all_there():
    Queue.objects.bulk_create(Queue(name=f"q{number:03}") for number in range(150))
    add.enqueue(1, 2)
    found = queue_figures("default")
    assert len(found) == 153
    assert [f.name for f in found if f.waiting] == ["default"]
    assert len({f.now for f in found}) == 1


@pytest.mark.skipif(connection.vendor != "sqlite", reason="Each database words its plans its way.")
def test_the_figures_are_read_from_the_index_of_claims():
    with CaptureQueriesContext(connection) as statements:
        queue_figures("default", ["default"])
    (sql,) = [q["sql"] for q in statements if "COUNT(" in q["sql"].upper()]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql.replace('%', '%%')}")
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    assert "bgtasks_claim" in plan
    assert "SCAN bgtasks_queuedtask" not in plan
    assert "TEMP B-TREE" not in plan.upper()
