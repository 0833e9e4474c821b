"""Rows of what was counted: written as they grow, right after every accident."""

import time
from datetime import UTC, datetime

import pytest
from django.db import DatabaseError
from django.utils import timezone

from django_bgtasks.models import Bucket, FailureCount, FailureGroup
from django_bgtasks.statistics import ledger as ledgers
from django_bgtasks.statistics.ledger import Ledger, forget_failures
from django_bgtasks.statistics.tally import minute_of

from .. import factories
from ..sample_tasks import answer
from .test_tally import failure

pytestmark = pytest.mark.django_db

NOW = 1_800_000_030.0
MINUTE = minute_of(NOW)
KEY = (MINUTE, "default", "shop.tasks.one")


def count(ledger, number=1, key=KEY, outcome="successful", **times):
    for _ in range(number):
        ledger.pending.add(key, outcome, **times)


def test_rows_hold_what_was_counted():
    ledger = Ledger("default", "w1")
    count(ledger, 3, ran=0.5, waited=0.01)
    count(ledger, outcome="failed", ran=2.0)
    ledger.write(now=NOW)
    row = Bucket.objects.get()
    assert (row.successful, row.failed, row.wait_00) == (3, 1, 3)
    assert (row.run_seconds, row.run_longest) == (3.5, 2.0)
    assert row.start == datetime.fromtimestamp(60 * MINUTE, UTC)
    assert row.width == 60


def test_what_comes_later_in_the_minute_is_added(django_assert_num_queries):
    ledger = Ledger("default", "w1")
    count(ledger, 3)
    ledger.write(now=NOW)
    count(ledger, 2)
    ledger.write(now=NOW + 10)
    assert Bucket.objects.get().successful == 5
    with django_assert_num_queries(0):
        ledger.write(now=NOW + 20)


def test_a_write_that_nobody_acknowledged_counts_once(monkeypatch):
    ledger = Ledger("default", "w1")
    count(ledger, 3)
    rows = ledger._rows(ledger._sums(MINUTE))
    ledgers.write_buckets("default", rows)  # It arrived, and its answer did not.
    count(ledger, 1)
    ledger.write(now=NOW)
    assert Bucket.objects.get().successful == 4


def test_what_could_not_be_written_is_kept(monkeypatch):
    ledger = Ledger("default", "w1")
    count(ledger, 3)

    def refuse(alias, rows):
        raise DatabaseError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(ledgers, "write_buckets", refuse)
        with pytest.raises(DatabaseError):
            ledger.write(now=NOW)
    ledger.write(now=NOW)
    assert Bucket.objects.get().successful == 3


def test_what_comes_after_a_long_outage_counts_now_and_once():
    """Its minute may have been merged with those of others."""
    ledger = Ledger("default", "w1")
    count(ledger, 2)
    ledger.write(now=NOW)
    Bucket.objects.all().delete()
    count(ledger, 3)
    ledger.write(now=NOW + 3600)
    row = Bucket.objects.get()
    assert row.successful == 3
    assert row.start == datetime.fromtimestamp(60 * (MINUTE + 60), UTC)


def test_two_workers_have_rows_of_their_own():
    for name in ("w1", "w2"):
        ledger = Ledger("default", name)
        count(ledger, 2)
        ledger.write(now=NOW)
    assert sorted(Bucket.objects.values_list("worker", "successful")) == [("w1", 2), ("w2", 2)]


def test_failures_of_one_cause_are_one_group():
    for times in (2, 3):
        ledger = Ledger("default", "w1")
        for number in range(times):
            failure(ledger.pending, task_id=f"00000000-0000-7000-8000-{number:012}")
        ledger.write()
    group = FailureGroup.objects.get()
    assert (group.total, group.exception_name, group.traceback) == (5, "ValueError", "Traceback")
    assert group.first_seen < group.last_seen
    assert sum(FailureCount.objects.values_list("count", flat=True)) == 5


def test_a_traceback_that_was_not_sent_again_stays():
    ledger = Ledger("default", "w1")
    failure(ledger.pending, task_id="00000000-0000-7000-8000-000000000001")
    ledger.write()
    failure(ledger.pending, task_id="00000000-0000-7000-8000-000000000002", traceback="")
    ledger.write()
    assert FailureGroup.objects.get().traceback == "Traceback"


def test_what_people_said_of_a_cause_outlives_new_failures():
    ledger = Ledger("default", "w1")
    failure(ledger.pending, task_id="00000000-0000-7000-8000-000000000001")
    ledger.write()
    FailureGroup.objects.update(acknowledged_at=timezone.now(), note="known")
    failure(ledger.pending, task_id="00000000-0000-7000-8000-000000000002")
    ledger.write()
    assert FailureGroup.objects.get().note == "known"


def test_tasks_that_no_child_could_count_are_counted():
    result = factories.fail(answer.enqueue(), "django_bgtasks.exceptions.WorkerLost")
    ledger = Ledger("default", "w1")
    ledger.lost.append(str(result.id))
    ledger.write()
    assert Bucket.objects.get().failed == 1


def test_old_counts_and_causes_are_forgotten():
    ledger = Ledger("default", "w1")
    failure(ledger.pending, task_id="00000000-0000-7000-8000-000000000001")
    ledger.pending.failures["f"].last = time.time() - 10 * 86_400
    ledger.write()
    forget_failures("default", counts=86_400, groups=20 * 86_400)
    assert not FailureCount.objects.exists()
    assert FailureGroup.objects.exists()
    forget_failures("default", counts=86_400, groups=86_400)
    assert not FailureGroup.objects.exists()
