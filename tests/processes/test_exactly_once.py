"""Exactly once, under fire: children are killed all the time, and each effect is there once."""

import os
import random
import signal
import sys
import time
from contextlib import suppress

import pytest

from django_bgtasks.models import FinishedTask, Step
from tests import policy_tasks
from tests.models import Effect

from .conftest import all_ended, descendants, until_all_ended

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: The run of the issue: 30 s, 1,000 tasks with a follow-up each, 200 tasks of five steps.
SECONDS = float(os.environ.get("BGTASKS_FIRE_SECONDS", "6"))
TASKS = int(os.environ.get("BGTASKS_FIRE_TASKS", "200"))


def kill_children(workers, seconds, *, done, every=0.2):
    """Kill a random child of a random worker again and again; return how often."""
    kills = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds and not done():
        time.sleep(every)
        # The first is the process that children are forked from.
        children = descendants(random.choice(workers).pid)[1:]
        if children:
            with suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)
                kills += 1
    return kills


def test_atomic_tasks_and_what_they_enqueue_count_exactly_once_under_fire(start_worker):
    for name in ("first", "second"):
        Effect.objects.create(name=name, number=0)
    # Losses are no poison here: a task may be hit more than three times.
    workers = [start_worker("-p", 2, TEST_MAX_LOST=1000) for _ in range(2)]
    pause = SECONDS / TASKS
    began = time.monotonic()
    for number in range(TASKS):
        policy_tasks.count_atomically.enqueue("first", seconds=pause / 2)
        if number == 20:
            break
    policy_tasks.count_atomically.enqueue_many(
        [{"counter": "first", "seconds": pause / 2}] * (TASKS - 21)
    )
    kills = kill_children(workers, SECONDS, done=all_ended)
    until_all_ended()
    sys.stdout.write(
        f"{TASKS} tasks and follow-ups, {kills} kills in {time.monotonic() - began:.0f} s\n"
    )
    counters = dict(Effect.objects.values_list("name", "number"))
    assert counters == {"first": TASKS, "second": TASKS}
    assert FinishedTask.objects.filter(status="SUCCESSFUL").count() == 2 * TASKS
    assert kills >= 3
    assert FinishedTask.objects.filter(lost_count__gt=0).exists()


def test_each_step_counts_exactly_once_under_fire(start_worker):
    workers = [start_worker("-p", 2, TEST_MAX_LOST=1000) for _ in range(2)]
    count = max(20, TASKS // 5)
    pause = SECONDS / count / 2
    results = policy_tasks.five_steps.enqueue_many(
        [{"number": n, "seconds": pause} for n in range(count)]
    )
    kills = kill_children(workers, SECONDS, done=all_ended)
    until_all_ended()
    sys.stdout.write(f"{count} tasks of five steps, {kills} kills\n")
    names = list(Effect.objects.values_list("name", flat=True))
    assert len(names) == len(set(names)) == 5 * count
    for number, result in enumerate(results):
        assert result.get() == [[number, index] for index in range(5)]
    assert kills >= 3
    assert Step.objects.count() == 5 * count
