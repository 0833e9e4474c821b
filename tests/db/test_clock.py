"""The database's time, and a clock that tells another one."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from django_bgtasks import transitions
from django_bgtasks.db import operations_for
from django_bgtasks.db.clock import told_by
from django_bgtasks.models import FinishedTask, QueuedTask
from tests import tasks
from tests.factories import claim

MOMENT = datetime(2031, 7, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.mark.django_db
def test_the_databases_time_is_now():
    assert abs(operations_for("default").now() - timezone.now()) < timedelta(minutes=1)


@pytest.mark.django_db
def test_another_clock_is_asked_by_each_operation():
    operations = operations_for("default")
    tasks.nothing.using(run_after=MOMENT).enqueue()
    cancelled = tasks.nothing.enqueue()
    with told_by(lambda: MOMENT):
        assert operations.now() == MOMENT
        assert operations.next_due() == 0
        transitions.cancel("default", [cancelled.id])
        assert transitions.promote("default", 10) == ["default"]
        (row,) = claim()
        transitions.put_off("default", (row.id, row.claim_id), delay=90, reason="")
    assert row.last_attempted_at == MOMENT
    assert QueuedTask.objects.get().due_at == MOMENT + timedelta(seconds=90)
    assert FinishedTask.objects.get().finished_at == MOMENT
    assert operations.now() < MOMENT
