"""A burst leaves nothing behind that later claims have to step over."""

import json

import pytest
from django.db import connection
from django.utils import timezone

from django_bgtasks.db import ClaimRequest, Ending, operations_for
from django_bgtasks.ids import new_id
from django_bgtasks.models import Duty
from django_bgtasks.worker import maintenance
from tests import tasks

pytestmark = pytest.mark.django_db(transaction=True)


def drain(count):
    operations = operations_for("default")
    tasks.nothing.enqueue_many([()] * count)
    while True:
        request = ClaimRequest(["default"], 100, new_id(), "w", 30.0)
        claimed = operations.exchange([], request).claimed
        if not claimed:
            return
        now = timezone.now()
        operations.exchange([Ending(t.id, t.claim_id, "SUCCESSFUL", now) for t in claimed], None)


def blocks_read():
    """Return how many blocks PostgreSQL reads to find that nothing is READY."""
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("SET enable_bitmapscan = off")
        cursor.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT id FROM bgtasks_queuedtask "
            "WHERE status = 'READY' AND queue_name = 'default' ORDER BY rank, fair_key, id LIMIT 1"
        )
        plan = cursor.fetchone()[0]
        cursor.execute("RESET enable_seqscan")
        cursor.execute("RESET enable_bitmapscan")
    plan = json.loads(plan) if isinstance(plan, str) else plan
    node = plan[0]["Plan"]
    return node["Shared Hit Blocks"] + node["Shared Read Blocks"]


def test_tidying_does_no_harm_and_clears_the_index_of_dead_entries():
    drain(3000)
    maintenance.take_duty("default", "tidy", 0.0)
    Duty.objects.filter(name="tidy").update(last_run_at="2001-01-01T00:00:00Z")
    maintenance.tidy("default")
    drain(10)
    if connection.vendor == "postgresql":
        # Without, many times that.
        assert blocks_read() <= 10
