"""Fair keys take turns, and cost those nothing who have none."""

import os
import sys
import time

import pytest

from django_bgtasks.db import ClaimRequest, operations_for
from django_bgtasks.ids import new_id
from django_bgtasks.models import QueuedTask
from tests import policy_tasks, tasks

pytestmark = pytest.mark.django_db(transaction=True)

#: The run of the issue has 50,000 tasks of one tenant.
MANY = int(os.environ.get("BGTASKS_FAIR_TASKS", "2000"))


def claim_in_turns(limit, after=""):
    operations = operations_for("default")
    ids, last = operations.fair_candidates("default", limit, after)
    request = ClaimRequest(["default"], limit, new_id(), "w", 30.0, candidates=ids)
    return operations.exchange([], request).claimed, last


def tenants(claimed):
    return [task.args[2:3] for task in claimed]


def enqueue(tenant, count):
    policy_tasks.in_turns.enqueue_many([(tenant, number) for number in range(count)])


def test_tenants_take_turns_in_a_claim():
    enqueue("a", 20)
    enqueue("b", 3)
    enqueue("c", 1)
    claimed, _ = claim_in_turns(9)
    found = tenants(claimed)
    # A third of the claim for each; what c leaves is for the next one.
    assert (found.count("a"), found.count("b"), found.count("c")) == (3, 3, 1)
    assert set(found[:3]) == {"a", "b", "c"}


def test_more_tenants_than_a_claim_serves_come_one_after_the_other():
    for number in range(12):
        enqueue(f"{number:02}", 2)
    seen, after = [], ""
    for _ in range(6):
        claimed, after = claim_in_turns(4, after)
        seen += [task.args for task in claimed]
    assert len(seen) == len(set(seen)) == 24
    assert not QueuedTask.objects.filter(status="READY").exists()


def test_a_higher_priority_goes_before_turns():
    enqueue("a", 5)
    policy_tasks.in_turns.using(priority=9).enqueue("b", 0)
    (claimed,), _ = claim_in_turns(1)
    assert claimed.priority == 9


def test_tasks_without_a_key_take_turns_with_the_others():
    tasks.nothing.enqueue_many([()] * 5)
    enqueue("a", 5)
    claimed, _ = claim_in_turns(4)
    assert {task.task_path.rpartition(".")[2] for task in claimed} == {"nothing", "in_turns"}


def test_a_queue_says_whether_it_has_fair_keys():
    operations = operations_for("default")
    assert not operations.has_fair("default")
    tasks.nothing.enqueue()
    assert not operations.has_fair("default")
    enqueue("a", 1)
    assert operations.has_fair("default")


def test_the_cost_of_a_claim_in_turns_does_not_grow_with_the_tasks_of_a_tenant():
    """Beside a plain claim of the same rows, in one run: a ratio, no time."""
    enqueue("a", MANY)
    enqueue("b", 3)
    operations = operations_for("default")

    def plain():
        request = ClaimRequest(["default"], 50, new_id(), "w", 30.0)
        assert len(operations.exchange([], request).claimed) == 50

    def fair():
        assert len(claim_in_turns(50)[0]) >= 26

    spent = {plain: 0.0, fair: 0.0}
    for _ in range(8):
        for claim in (plain, fair):
            began = time.perf_counter()
            claim()
            spent[claim] += time.perf_counter() - began
    sys.stdout.write(
        f"{MANY:,} tasks of one tenant: a claim of 50 takes {spent[plain] / 8 * 1000:.2f} ms, "
        f"in turns {spent[fair] / 8 * 1000:.2f} ms ({spent[fair] / spent[plain]:.2f} x)\n"
    )
