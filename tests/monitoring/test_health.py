"""Whether all is well: each rule, what it says, and what it leaves alone."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_bgtasks import queues
from django_bgtasks.ids import new_id
from django_bgtasks.models import Duty, QueuedTask, Schedule, Worker
from django_bgtasks.monitoring import health
from django_bgtasks.monitoring.health import Level, examine
from django_bgtasks.monitoring.snapshot import take_snapshot
from django_bgtasks.statistics.ledger import Ledger
from django_bgtasks.statistics.tally import minute_of

from ..sample_tasks import answer

pytestmark = pytest.mark.django_db


def worker(name="web-1", *, age=1.0, queues=(), **columns):
    now = timezone.now()
    return Worker.objects.create(
        id=new_id(), name=name, backend="default", hostname="h", pid=1, version="1",
        queues=list(queues), processes=2, threads=1, state="RUNNING",
        started_at=now - timedelta(hours=1), heartbeat_at=now - timedelta(seconds=age),
        lease=30.0, **columns,
    )  # fmt: skip


def enqueue(count=1, *, queue="default", age=0.0):
    for _ in range(count):
        result = answer.using(queue_name=queue).enqueue()
        at = timezone.now() - timedelta(seconds=age)
        QueuedTask.objects.filter(pk=result.id).update(enqueued_at=at)


def rules():
    return [finding.rule for finding in examine("default").findings]


def test_all_is_well_in_words():
    worker()
    found = examine("default")
    assert found.is_well
    assert found.level == Level.OK
    assert str(found) == "All is well. 1 worker, nothing waits."
    enqueue(age=3)
    assert str(examine("default")) == "All is well. 1 worker, oldest waiting task 3 s."


def test_without_tasks_no_worker_is_needed():
    assert examine("default").is_well


def test_tasks_without_a_worker():
    enqueue(12)
    found = examine("default")
    assert found.level == Level.BAD
    assert str(found) == (
        "No worker is running and 12 tasks are waiting. Start one with python manage.py runworker."
    )


def test_a_queue_that_nobody_serves():
    worker(queues=["default"])
    enqueue(1, queue="emails")
    assert str(examine("default")) == "1 task waits in emails and no worker listens to it."


def test_a_worker_that_fell_silent():
    worker()
    worker("batch-1", age=240)
    assert str(examine("default")) == "Worker batch-1 has not been heard of for 4 min."


def test_a_paused_queue_counts_only_with_tasks():
    worker()
    queues.pause("emails")
    assert rules() == []
    enqueue(2, queue="emails", age=10_000)
    assert str(examine("default")) == "Queue emails is paused with 2 tasks waiting."


@pytest.mark.parametrize(
    ("failed", "ended", "is_bad"), [(20, 100, True), (19, 100, False), (20, 200, False)]
)
def test_many_failures_of_late(failed, ended, is_bad):
    worker()
    ledger = Ledger("default", "w")
    for number in range(ended):
        key = (minute_of(timezone.now().timestamp()), "default", "t")
        ledger.pending.add(key, "failed" if number < failed else "successful")
    ledger.write()
    assert rules() == (["failures"] if is_bad else [])
    if is_bad:
        assert str(examine("default")) == "20 of 100 tasks failed in the last 15 minutes."


def test_a_queue_that_is_late_for_its_target():
    worker()
    enqueue(age=301)
    assert str(examine("default")) == (
        "The oldest task in default has waited for 5 min, longer than its target."
    )


def test_an_overdue_schedule():
    worker()
    row = Schedule.objects.create(
        name="nightly", task_path="tests.sample_tasks.answer", expression="@daily", time_zone="UTC"
    )
    Schedule.objects.filter(pk=row.pk).update(look_at=timezone.now() - timedelta(minutes=5))
    assert rules() == ["schedule-overdue"]
    assert "'nightly'" in str(examine("default"))


def test_clocks_that_differ():
    worker(clock_offset=6.0)
    worker("web-2", clock_offset=-7.0)
    worker("web-3", clock_offset=4.0)
    text = str(examine("default"))
    assert "The clock of web-1's machine is 6 s ahead of the database's" in text
    assert "The clock of web-2's machine is 7 s behind the database's" in text
    assert "web-3" not in text


def test_results_that_nobody_prunes(monkeypatch):
    worker()
    operations = type(health.operations_for("default"))
    monkeypatch.setattr(operations, "estimate", lambda self, model: 2_000_000)
    monkeypatch.setattr(health, "_estimates", {})
    assert rules() == ["unpruned"]
    Duty.objects.create(name="prune", last_run_at=timezone.now() - timedelta(days=6))
    assert rules() == []


def test_three_findings_are_told_and_the_rest_counted():
    for number in range(5):
        worker(f"batch-{number}", age=100)
    text = str(examine("default"))
    assert text.count("; ") == 3
    assert text.endswith("; 2 more.")


def test_nouns_can_not_break_the_sentence():
    worker("100%s <b>", age=100)
    assert "Worker 100%s <b> has not been heard of" in str(examine("default"))


def test_a_snapshot_takes_few_queries(django_assert_max_num_queries):
    for name in ("a", "b", "c"):
        worker(name)
    enqueue(3)
    answer.using(run_after=timezone.now() + timedelta(hours=1)).enqueue()
    with django_assert_max_num_queries(7):
        snapshot = take_snapshot("default")
    assert (snapshot.ready.text, snapshot.scheduled.text, snapshot.slots) == ("3", "1", 6)
    assert snapshot.next_due is not None
    assert snapshot.retrying.count == 0
