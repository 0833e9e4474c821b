"""Unique keys: one task of a key, whoever enqueues at the same instant."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, transaction

from django_bgtasks import task_committed
from django_bgtasks.exceptions import DuplicateTask, WrongState
from django_bgtasks.models import FinishedTask, QueuedTask, UniqueKey
from tests import factories, policy_tasks

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[1]
#: The run of the issue has 50 processes and 100 rounds.
PROCESSES = int(os.environ.get("BGTASKS_UNIQUE_PROCESSES", "8"))
ROUNDS = int(os.environ.get("BGTASKS_UNIQUE_ROUNDS", "10"))


def claim_all():
    return factories.claim(("default",), limit=100)


def test_a_second_enqueue_returns_the_result_of_the_first():
    first = policy_tasks.import_feed.enqueue(7)
    second = policy_tasks.import_feed.enqueue(feed_id=7, force=True)
    other = policy_tasks.import_feed.enqueue(8)
    assert second.id == first.id != other.id
    assert (first.created, second.created, other.created) == (True, False, True)
    assert second.args == [7]
    assert QueuedTask.objects.count() == 2


def test_the_key_is_taken_while_the_task_runs_and_free_when_it_has_ended():
    first = policy_tasks.import_feed.enqueue(7)
    (claimed,) = claim_all()
    assert policy_tasks.import_feed.enqueue(7).id == first.id
    factories.end(claimed)
    assert policy_tasks.import_feed.enqueue(7).id != first.id


def test_a_key_that_counts_while_waiting_is_free_once_the_task_runs():
    first = policy_tasks.index_shop.enqueue("a")
    assert policy_tasks.index_shop.enqueue("a").id == first.id
    claim_all()
    second = policy_tasks.index_shop.enqueue("a")
    assert second.id != first.id
    assert policy_tasks.index_shop.enqueue("a").id == second.id


def test_a_period_counts_whatever_became_of_the_task():
    first = policy_tasks.send_digest.enqueue("ada")
    (claimed,) = claim_all()
    factories.end(claimed)
    again = policy_tasks.send_digest.enqueue("ada")
    assert again.id == first.id
    assert again.state == "SUCCESSFUL"
    UniqueKey.objects.update(until=UniqueKey.objects.get().made_at - timedelta(seconds=1))
    assert policy_tasks.send_digest.enqueue("ada").id != first.id


def test_replace_gives_the_waiting_task_new_arguments_and_a_new_time():
    first = policy_tasks.index_later.using(delay=60).enqueue("a", reason="one")
    second = policy_tasks.index_later.using(delay=120, priority=5).enqueue("a", reason="two")
    assert second.id == first.id
    row = QueuedTask.objects.get()
    assert row.kwargs == {"reason": "two"}
    assert row.status == "SCHEDULED"
    assert (row.priority, row.rank) == (5, -5)
    assert row.due_at - row.enqueued_at > timedelta(seconds=119)
    assert policy_tasks.index_later.enqueue("a", reason="now").state == "READY"
    (claimed,) = claim_all()
    assert claimed.kwargs.replace(" ", "") == '{"reason":"now"}'
    assert policy_tasks.index_later.enqueue("a", reason="later").id != first.id


def test_refuse_names_the_task_that_has_the_key_and_writes_nothing():
    first = policy_tasks.charge.enqueue(118)
    with pytest.raises(DuplicateTask) as caught:
        policy_tasks.charge.enqueue(118)
    assert str(caught.value) == (
        f"charge(): task {first.id} has the unique key 'charge:118' and is ready."
    )
    assert caught.value.result.id == first.id
    assert QueuedTask.objects.count() == 1


def test_keys_are_of_values_and_not_of_texts():
    task = policy_tasks.import_feed.using(unique="{feed_id}:{force}")
    assert task.enqueue("a:b", force="c").id != task.enqueue("a", force="b:c").id
    assert task.enqueue(1).id != task.enqueue("1").id


def test_enqueue_many_meets_its_own_keys():
    results = policy_tasks.import_feed.enqueue_many([(1,), (2,), (1,), (2,)])
    assert [r.id for r in results[2:]] == [r.id for r in results[:2]]
    assert QueuedTask.objects.count() == 2


def test_a_task_that_was_rolled_back_leaves_its_key_free():
    with transaction.atomic():
        policy_tasks.import_feed.enqueue(7)
        transaction.set_rollback(True)
    result = policy_tasks.import_feed.enqueue(7)
    assert result.created
    assert QueuedTask.objects.get().pk.hex == result.id.replace("-", "")


def test_signals_are_sent_for_tasks_that_were_made_alone():
    sent = []

    def receiver(task_result, **kwargs):
        sent.append(task_result.id)

    task_committed.connect(receiver)
    try:
        first = policy_tasks.import_feed.enqueue(7)
        policy_tasks.import_feed.enqueue(7)
    finally:
        task_committed.disconnect(receiver)
    assert sent == [first.id]


def test_a_failed_task_is_not_retried_by_hand_while_another_has_its_key():
    first = policy_tasks.import_feed.enqueue(7)
    (claimed,) = claim_all()
    factories.end(claimed, error="builtins.ValueError")
    second = policy_tasks.import_feed.enqueue(7)
    assert second.id != first.id
    with pytest.raises(WrongState, match="another task has its unique key"):
        first.retry()
    (claimed,) = claim_all()
    factories.end(claimed)
    first.retry()
    assert policy_tasks.import_feed.enqueue(7).id == first.id


def test_the_key_of_a_task_that_was_deleted_is_free():
    first = policy_tasks.import_feed.enqueue(7)
    QueuedTask.objects.all()._raw_delete("default")
    second = policy_tasks.import_feed.enqueue(7)
    assert second.created
    assert second.id != first.id


ENQUEUER = """
import sys, time
import django
django.setup()
from tests import policy_tasks
for line in sys.stdin:
    number, moment = line.split()
    time.sleep(max(0, float(moment) - time.time()))
    print(policy_tasks.import_feed.enqueue(int(number)).id, flush=True)
"""


def test_processes_that_enqueue_a_key_at_the_same_instant_all_get_one_task():
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.processes.settings",
        "BGTASKS_TEST_NAME": str(connection.settings_dict["NAME"]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ENQUEUER],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    try:
        # The first round waits until all are there.
        for number in range(-1, ROUNDS):
            moment = time.time() + 0.05
            for process in processes:
                process.stdin.write(f"{number} {moment}\n")
                process.stdin.flush()
            ids = {process.stdout.readline().strip() for process in processes}
            (row,) = QueuedTask.objects.filter(args=[number])
            assert ids == {str(row.pk)}
    finally:
        for process in processes:
            process.stdin.close()
            process.wait(60)
            process.stdout.close()
    assert QueuedTask.objects.count() == ROUNDS + 1
    assert not FinishedTask.objects.exists()
