"""Limits hold over several workers, exactly, and are used to the full."""

import os
import sys
import time
from collections import Counter

import pytest

from django_bgtasks.models import LimitHold, LimitWait, QueuedTask
from tests import policy_tasks, tasks

from .conftest import until

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: The run of the issue has four workers and 500 tasks.
WORKERS = int(os.environ.get("BGTASKS_LIMIT_WORKERS", "2"))
TASKS = int(os.environ.get("BGTASKS_LIMIT_TASKS", "60"))
LONG = TASKS >= 500


def report(line):
    """Write what a run found where pytest -s shows it."""
    sys.stdout.write(f"{line}\n")


def most_at_once(spans):
    """Return how many of [begin, end] spans overlap at most."""
    events = sorted([(end, -1) for _, end in spans] + [(begin, 1) for begin, _ in spans])
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def test_never_more_than_three_run_at_once_on_all_workers(start_worker):
    for _ in range(WORKERS):
        start_worker("-p", 2, "-v", 0)
    for n in range(WORKERS):
        tasks.add.enqueue(n, n).get(timeout=60)
    results = policy_tasks.run_three_at_once.enqueue_many([(0.02,)] * TASKS)
    until(lambda: not QueuedTask.objects.exists(), timeout=120)
    spans = [result.get() for result in results]
    # Without the limit there are four.
    assert most_at_once(spans) <= 3
    if LONG:
        assert most_at_once(spans) == 3
    took = max(end for _, end in spans) - min(begin for begin, _ in spans)
    report(f"{TASKS} tasks, 3 at once: {took:.2f} s, {took / (TASKS * 0.02 / 3):.2f} x ideal")
    until(lambda: not LimitWait.objects.exists())
    assert not LimitHold.objects.filter(task_id__in=QueuedTask.objects.values("id")).exists()


def test_a_rate_is_kept_in_each_second_and_nearly_used(start_worker):
    for _ in range(WORKERS):
        start_worker("-p", 1, "-v", 0)
    for n in range(WORKERS):
        tasks.add.enqueue(n, n).get(timeout=60)
    count = 4 * TASKS
    results = policy_tasks.start_fifty_a_second.enqueue_many([()] * count)
    until(lambda: not QueuedTask.objects.exists(), timeout=120)
    starts = sorted(result.get() for result in results)
    # In any second, wherever it begins.
    most = max(
        sum(1 for other in starts[index:] if other < start + 1)
        for index, start in enumerate(starts)
    )
    rate = (count - 1) / (starts[-1] - starts[0])
    report(f"{count} starts: {rate:.1f}/s, at most {most} in a second")
    assert most <= 55
    if LONG:
        # A question of time, which a busy machine answers wrong: for runs of its own.
        assert rate >= 45


def test_other_tasks_do_not_wait_for_those_at_their_limit(start_worker):
    policy_tasks.one_of_a_tenant.using(priority=50).enqueue_many([("a", 0.05)] * 200)
    start_worker("-p", 2, "-v", 0)
    began = time.monotonic()
    others = tasks.add.enqueue_many([(n, n) for n in range(50)])
    for result in others:
        result.get(timeout=60)
    assert QueuedTask.objects.count() > 50, time.monotonic() - began


def test_both_limits_of_a_task_hold(start_worker):
    start_worker("-p", 2, "-v", 0)
    results = policy_tasks.with_both_limits.enqueue_many([(f"tenant {n % 3}",) for n in range(100)])
    until(lambda: not QueuedTask.objects.exists(), timeout=60)
    starts = Counter(int(result.get()) for result in results)
    assert max(starts.values()) <= 220


def test_what_a_dead_worker_held_is_free_again(start_worker):
    worker = start_worker("-p", 2, "-v", 0, TEST_LEASE=2)
    held = policy_tasks.one_of_a_tenant.enqueue("a", 60)
    until(lambda: LimitHold.objects.exists())
    waiting = policy_tasks.one_of_a_tenant.enqueue("a")
    until(lambda: waiting.refresh() or waiting.state == "WAITING")
    worker.kill()
    held.cancel(force=True)
    start_worker("-p", 1, "-v", 0, TEST_LEASE=2)
    assert waiting.get(timeout=60) == "a"
