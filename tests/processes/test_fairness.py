"""With real workers: three tasks of one tenant don't wait for thousands of another."""

import os

import pytest

from django_bgtasks.models import FinishedTask, QueuedTask
from tests import policy_tasks

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

MANY = int(os.environ.get("BGTASKS_FAIR_TASKS", "2000"))


def test_three_tasks_of_a_tenant_are_among_the_first_hundred_starts(start_worker):
    for start in range(0, MANY, 10_000):
        policy_tasks.in_turns.enqueue_many(
            [("a", number) for number in range(start, min(MANY, start + 10_000))]
        )
    last = policy_tasks.in_turns.enqueue_many([("b", number) for number in range(3)])
    start_worker("-p", 2, "-v", 0)
    until(lambda: all(r.refresh() or r.is_finished for r in last), timeout=120)
    until(lambda: not QueuedTask.objects.exists(), timeout=300)
    starts = FinishedTask.objects.order_by("last_attempted_at").values_list("args", flat=True)
    # In which order among themselves is a matter of two processes.
    assert sorted(args[1] for args in starts[:100] if args[0] == "b") == [0, 1, 2]
