"""Limits: what is let in, what waits, and what waiting tasks cost the others."""

import json
import os
import sys
import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_bgtasks import limits, transitions
from django_bgtasks.db import ClaimRequest, operations_for
from django_bgtasks.ids import new_id
from django_bgtasks.models import LimitHold, LimitKey, LimitWait, QueuedTask
from tests import factories, policy_tasks, tasks

pytestmark = pytest.mark.django_db(transaction=True)

#: The run of the issue has 100,000 blocked tasks.
BLOCKED = int(os.environ.get("BGTASKS_BLOCKED", "3000"))


def request(limit=10):
    return ClaimRequest(["default"], limit, new_id(), "w", 30.0)


def candidates(claimed):
    return [
        limits.candidate(t.id, t.claim_id, t.queue_name, -t.priority, json.loads(t.options))
        for t in claimed
    ]


def claim_and_ask(limit=10):
    claimed = factories.claim(("default",), limit=limit)
    return claimed, limits.admit("default", candidates(claimed))


def test_as_many_are_let_in_as_there_are_places_and_the_others_wait():
    results = [policy_tasks.run_three_at_once.enqueue(0) for _ in range(5)]
    _, admission = claim_and_ask()
    assert len(admission.starts) == 3
    assert len(admission.parked) == 2
    states = [r.refresh() or r.state for r in results]
    assert states == ["RUNNING"] * 3 + ["WAITING"] * 2
    waiting = QueuedTask.objects.filter(status="WAITING")
    assert {row.attempt for row in waiting} == {0}
    assert {row.reason for row in waiting} == {limits.WAITS}
    assert LimitHold.objects.count() == 3
    # Whoever comes now waits from the start.
    late = policy_tasks.run_three_at_once.enqueue(0)
    assert QueuedTask.objects.get(pk=late.id).status == "WAITING"


def test_a_place_that_is_free_goes_to_the_one_that_waits_longest():
    results = [policy_tasks.one_of_a_tenant.enqueue("a") for _ in range(3)]
    (first, *_), admission = claim_and_ask()
    (digest,) = set(admission.parked.values())
    assert limits.refill("default", [digest], request()).claimed == []
    factories.end(first)
    ask = request()
    refilled = limits.refill("default", [digest], ask, ended=[admission.places[first.id]])
    assert [t.id for t in refilled.claimed] == [results[1].id]
    assert LimitHold.objects.get().task_id.hex == results[1].id.replace("-", "")


def test_short_tasks_follow_each_other_in_one_place():
    results = [policy_tasks.one_of_a_tenant.enqueue("a") for _ in range(6)]
    (first, *_), admission = claim_and_ask()
    factories.end(first)
    (digest,) = set(admission.parked.values())
    refilled = limits.refill("default", [digest], request(), chain=2)
    ids = [r.id for r in results[1:]]
    assert [t.id for t in refilled.claimed] == ids[:3]
    assert refilled.chains == {ids[0]: ids[1:3]}
    # The place is that of the last of them: nobody else is let in before it is through.
    hold = LimitHold.objects.filter(pk=refilled.places[ids[0]]).get()
    assert str(hold.task_id) == ids[2]
    assert limits.refill("default", [digest], request()).claimed == []
    more = limits.extend("default", digest, str(hold.pk), request(1))
    assert [t.id for t in more] == ids[3:4]
    hold.refresh_from_db()
    assert str(hold.task_id) == ids[3]


def test_what_a_process_that_died_held_does_not_count():
    policy_tasks.one_of_a_tenant.enqueue("a")
    (first,), _ = claim_and_ask()
    transitions.release("default", [(first.id, first.claim_id)])
    (again,), admission = claim_and_ask()
    assert again.id == first.id
    assert list(admission.starts) == [first.id]


def test_keys_are_counted_each_for_itself():
    for tenant in "aabbc":
        policy_tasks.one_of_a_tenant.enqueue(tenant)
    _, admission = claim_and_ask()
    assert len(admission.starts) == 3
    assert LimitKey.objects.count() == 3


def test_a_rate_gives_its_burst_at_once_and_then_one_start_after_the_other():
    policy_tasks.start_fifty_a_second.using(rate=("k", "1/s", 3)).enqueue_many([()] * 6)
    _, admission = claim_and_ask()
    assert sorted(admission.starts.values()) == [0, 0, 0]
    assert len(admission.parked) == 3
    (room_at,) = admission.room_at.values()
    assert 0.8 < room_at < 1.1
    (digest,) = admission.room_at
    assert limits.refill("default", [digest], request()).claimed == []


def test_a_sweep_makes_ready_what_no_worker_looks_after():
    policy_tasks.one_of_a_tenant.enqueue_many([("a",)] * 3)
    policy_tasks.one_of_a_tenant.enqueue_many([("b",)] * 3)
    claimed, _ = claim_and_ask()
    assert limits.sweep("default", ["default"]) == (set(), "")
    factories.end(claimed[0])
    assert limits.sweep("default", ["emails"])[0] == set()
    assert limits.sweep("default", ["default"])[0] == {"default"}
    assert QueuedTask.objects.filter(status="READY").count() == 1


def test_a_waiting_task_that_is_cancelled_or_replaced_leaves_the_line():
    results = policy_tasks.one_of_a_tenant.enqueue_many([("a",)] * 3)
    (first,), _ = claim_and_ask()
    assert results[1].cancel() is True
    factories.end(first)
    limits.sweep("default", ["default"])
    assert QueuedTask.objects.get().status == "READY"
    assert str(QueuedTask.objects.get().pk) == results[2].id
    assert not LimitWait.objects.exists()


def test_ready_tasks_of_a_full_key_are_moved_out_of_the_way_together():
    for _ in range(30):
        policy_tasks.one_of_a_tenant.enqueue("a")
    other = tasks.nothing.enqueue()
    _, admission = claim_and_ask(limit=2)
    full = set(admission.parked.values())
    with CaptureQueriesContext(connection) as context:
        assert limits.park_blocked("default", "default", full, 100) == 28
    assert len(context.captured_queries) < 10
    (claimed,) = factories.claim(("default",), limit=10)
    assert claimed.id == other.id


def test_a_claim_costs_the_same_with_thousands_of_blocked_tasks_before_it():
    def claims():
        tasks.nothing.enqueue_many([()] * 100)
        began = time.perf_counter()
        with CaptureQueriesContext(connection) as context:
            for _ in range(10):
                assert len(factories.claim(("default",), limit=10)) == 10
        return time.perf_counter() - began, len(context.captured_queries)

    claims()
    without = claims()
    blocked = policy_tasks.one_of_a_tenant.using(priority=50)
    for start in range(0, BLOCKED, 10_000):
        blocked.enqueue_many([("a",)] * min(10_000, BLOCKED - start))
    claim_and_ask(limit=1)
    assert not QueuedTask.objects.filter(status="READY").exists()
    with_blocked = claims()
    sys.stdout.write(
        f"{BLOCKED:,} blocked tasks before them: ten claims of ten take {with_blocked[0]:.4f} s, "
        f"without {without[0]:.4f} s ({with_blocked[0] / without[0]:.2f} x)\n"
    )
    assert with_blocked[1] == without[1]
    reads = operations_for("default")
    assert reads.queue_names() == []
