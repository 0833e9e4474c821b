"""The sentence that says why a task isn't running, and the command that prints it."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_bgtasks import chain, group, limits, previous, queues
from django_bgtasks.db import operations_for
from django_bgtasks.explaining import explain, span
from django_bgtasks.ids import new_id
from django_bgtasks.models import FinishedTask, QueuedTask, Worker

from . import policy_tasks, tasks
from .factories import claim, fail, succeed

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker():
    now = timezone.now()
    return Worker.objects.create(
        id=new_id(), name="vm-1", backend="default", hostname="vm", pid=1, version="1",
        queues=["default"], processes=2, threads=2, state="RUNNING", started_at=now,
        heartbeat_at=now, lease=30, running=4,
    )  # fmt: skip


def why(result):
    row = QueuedTask.objects.filter(pk=result.id).first() or FinishedTask.objects.get(pk=result.id)
    return explain(row)


def test_no_worker():
    assert why(tasks.nothing.enqueue()) == (
        "No live worker serves its queue default. Start one: python manage.py runworker default"
    )


def test_worker_of_another_queue_or_silent_is_no_worker(worker):
    assert why(tasks.nothing.using(queue_name="emails").enqueue()).startswith("No live worker")
    Worker.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=2))
    assert why(tasks.nothing.enqueue()).startswith("No live worker")


def test_quiet_worker(worker):
    Worker.objects.update(state="QUIET")
    assert why(tasks.nothing.enqueue()) == (
        "The workers that serve its queue default take nothing now: vm-1."
    )


def test_busy_workers_and_what_comes_before(worker):
    first = tasks.nothing.enqueue()
    tasks.nothing.using(priority=5).enqueue()
    last = tasks.nothing.enqueue()
    head = "It is ready. 1 worker with 4 slots runs 4 tasks now"
    assert why(first) == f"{head}; 1 others of its queue come before it."
    assert why(last) == f"{head}; 2 others of its queue come before it."
    claim(limit=2)
    assert why(last) == f"{head}; it is the next of its queue."


def test_paused_queue_says_by_whom_and_why(worker):
    queues.pause("default", reason="The mail server moves.", by="ada")
    assert why(tasks.nothing.enqueue()) == (
        "Its queue default was paused by ada 0 s ago. The mail server moves."
    )


def test_unknown_task(worker):
    result = tasks.nothing.enqueue()
    QueuedTask.objects.update(task_path="tests.tasks.gone")
    row = QueuedTask.objects.get(pk=result.id)
    assert explain(row).startswith("This code has no task tests.tasks.gone;")


def test_not_due_yet_and_overdue():
    result = tasks.nothing.using(delay=3 * 3600 + 60).enqueue()
    assert why(result) == "It is due in 3 h."
    QueuedTask.objects.update(due_at=timezone.now() - timedelta(seconds=302))
    assert why(result) == (
        "It was due 5 min ago, and no worker has looked since. Is one running, without "
        "--no-maintenance?"
    )


def test_running_and_lapsed():
    result = tasks.nothing.enqueue()
    claim()
    assert why(result) == "It has been running for 0 s on w1."
    result.cancel(by="ada", why="too slow")
    assert why(result).endswith("and was asked to end: Cancelled by ada: too slow")
    QueuedTask.objects.update(lease_until=timezone.now() - timedelta(seconds=5))
    assert why(result).startswith("It ran on w1, of which nothing was heard for its whole lease.")


def test_finished():
    assert why(succeed(tasks.nothing.enqueue())) == "It has ended 0 s ago: successful."
    assert "failed. " in why(fail(tasks.nothing.enqueue(), reason="ValueError: oh"))


def admitted(result):
    """Claim a task of a limit, and ask whether it may run."""
    (row,) = claim(limit=1)
    asking = limits.candidate(row.id, row.claim_id, row.queue_name, 0, json.loads(row.options))
    return limits.admit("default", [asking])


def test_concurrency_limit_names_the_key_and_who_runs():
    one = policy_tasks.one_of_a_tenant.enqueue("acme")
    admitted(one)
    two = policy_tasks.one_of_a_tenant.enqueue("acme")
    admitted(two)
    row = QueuedTask.objects.get(pk=two.id)
    assert row.status == "WAITING"
    assert explain(row) == (
        f"At most 1 of the key tenant:acme run at once: now one_of_a_tenant {one.id[-8:]}."
    )
    assert "acme" not in explain(row, with_keys=False)


def test_rate_says_when_the_next_start_is():
    slow = policy_tasks.start_fifty_a_second.using(rate=("slow", "1/h"))
    slow.enqueue()
    admitted(None)
    two = slow.enqueue()
    admitted(None)
    assert QueuedTask.objects.get(pk=two.id).status == "WAITING"
    assert why(two).startswith("The rate of the key ")
    assert " is used up; its next start is in " in why(two)


def test_workflow_says_for_how_many_it_waits():
    flow = chain(tasks.add.with_args(1, 2), tasks.add.with_args(previous, 3), name="nightly")
    _, second = flow.enqueue().results
    assert why(second) == "It waits for 1 that comes before it in the workflow nightly."


def test_workflow_counts_tasks_and_not_the_barriers_at_which_they_meet():
    flow = chain(group(tasks.nothing for _ in range(250)), tasks.nothing, name="large")
    last = flow.enqueue().results[-1]
    assert why(last) == "It waits for 250 that come before it in the workflow large."


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 d")]
)
def test_span(seconds, text):
    assert span(seconds) == text


def run(*args):
    out = StringIO()
    call_command("bgtasks", "explain-task", *args, stdout=out)
    return out.getvalue()


def test_command_takes_a_short_id():
    result = tasks.nothing.enqueue()
    assert run(result.id[-8:]).splitlines() == [
        f"tests.tasks.nothing {result.id} is READY.",
        "No live worker serves its queue default. Start one: python manage.py runworker default",
    ]
    found = json.loads(run(result.id, "--json"))
    assert found["state"] == "READY"
    assert found["why"].startswith("No live worker")


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("nonsense", "'nonsense' is no id. Give one, its first 13 characters, or its last 6"),
        ("abcdef12", "There is no task 'abcdef12'. It may have been pruned."),
    ],
)
def test_command_says_what_is_wrong_with_an_id(term, text):
    with pytest.raises(CommandError) as raised:
        run(term)
    assert text in str(raised.value)
    assert raised.value.returncode == 2


def test_clock_is_the_databases():
    result = tasks.nothing.using(delay=600).enqueue()
    row = QueuedTask.objects.get(pk=result.id)
    assert explain(row, now=operations_for("default").now() + timedelta(seconds=300)) in (
        "It is due in 5 min.",
        "It is due in 4 min.",
    )
