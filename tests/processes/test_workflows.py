"""
Workflows on real workers: their cost, two of them finishing at once, and under fire.

BGTASKS_GROUP=10000, BGTASKS_ROUNDS=1000 and BGTASKS_STORM_SECONDS=60 for whole runs.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Max, Min
from django.utils import timezone

from django_bgtasks import chain, graph, group, previous, transitions
from django_bgtasks.compat import task_backends
from django_bgtasks.db import ClaimRequest
from django_bgtasks.ids import new_id
from django_bgtasks.models import Barrier, FinishedTask, Node, QueuedTask, Worker, Workflow
from django_bgtasks.worker.execution import Execution
from tests import tasks
from tests.models import Effect

from .conftest import descendants, until, until_all_ended

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

GROUP = int(os.environ.get("BGTASKS_GROUP", 1000))
ROUNDS = int(os.environ.get("BGTASKS_ROUNDS", 100))
STORM = float(os.environ.get("BGTASKS_STORM_SECONDS", 6))
BATCH = 100


class Counted:
    """Counts the statements of this connection, and the seconds."""

    def __init__(self):
        self.statements = 0

    def __enter__(self):
        self._wrapper = connection.execute_wrapper(self._count)
        self._wrapper.__enter__()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *args):
        self.seconds = time.perf_counter() - self._began
        self._wrapper.__exit__(*args)

    def _count(self, execute, sql, params, many, context):
        self.statements += 1
        return execute(sql, params, many, context)


def drain_in_batches():
    """Claim, run and finish as a child does, BATCH at a time."""
    backend = task_backends["default"]
    endings = []
    while True:
        request = ClaimRequest(["default"], BATCH, new_id(), "counted", 60.0)
        claimed = transitions.exchange(backend.database, endings, request).claimed
        if not claimed:
            return
        endings = []
        for row in claimed:
            execution = Execution(row, backend, 0)
            execution.resolve()
            execution.run()
            endings.append(execution.ending)


def fan(count):
    return chain(
        group(tasks.nothing.with_args() for _ in range(count)),
        tasks.count.with_args("callback"),
    )


def measured_enqueue(enqueue):
    with Counted() as enqueued:
        enqueue()
    return enqueued


def test_statements_of_a_group_beside_plain_tasks():
    plain_in = measured_enqueue(lambda: tasks.nothing.enqueue_many([()] * GROUP))
    with Counted() as plain:
        drain_in_batches()
    group_in = measured_enqueue(lambda: fan(GROUP).enqueue())
    with Counted() as grouped:
        drain_in_batches()
    assert Effect.objects.filter(name="callback").count() == 1
    assert Workflow.objects.get().status == "SUCCESSFUL"
    sys.stdout.write(
        f"\n{connection.vendor}, {GROUP:,} tasks in batches of {BATCH}, one process\n"
        f"enqueue  plain {plain_in.statements:6,} statements {plain_in.seconds:6.2f} s"
        f"   group {group_in.statements:6,} statements {group_in.seconds:6.2f} s\n"
        f"drain    plain {plain.statements:6,} statements {plain.seconds:6.2f} s"
        f"   group {grouped.statements:6,} statements {grouped.seconds:6.2f} s\n"
    )
    batches = GROUP / BATCH
    # A few statements a batch, whatever the size of the group; as many again to open it.
    assert grouped.statements - plain.statements <= 16 * batches + 60
    assert group_in.statements <= plain_in.statements + 5 * (GROUP // 1000 + 2) + 10


def test_group_on_workers_calls_back_once(start_worker):
    start_worker("--processes", 2)
    began = {}
    for kind in ("plain", "group"):
        before = timezone.now()
        if kind == "plain":
            tasks.nothing.enqueue_many([()] * GROUP)
        else:
            workflow = fan(GROUP).enqueue()
        until_all_ended()
        spent = FinishedTask.objects.filter(enqueued_at__gte=before).aggregate(
            first=Min("started_at"), last=Max("finished_at")
        )
        began[kind] = (spent["last"] - spent["first"]).total_seconds()
    assert Effect.objects.filter(name="callback").count() == 1
    assert FinishedTask.objects.get(task_path=tasks.count.module_path).attempt == 1
    workflow.refresh()
    assert workflow.state == "SUCCESSFUL"
    sys.stdout.write(
        f"\n{connection.vendor}, a worker of two children: {GROUP:,} plain tasks "
        f"{began['plain']:.2f} s, a group with its callback {began['group']:.2f} s\n"
    )


def test_two_workers_that_finish_both_parents_at_one_instant_start_the_child_once(start_worker):
    for queue in ("emails", "reports"):
        start_worker(queue, "--processes", 1)
    start_worker("default", "--processes", 1)
    until(lambda: Worker.objects.count() == 3)
    first = time.time() + 3
    flows = []
    for number in range(ROUNDS):
        at = first + number * 0.02
        flows.append(
            chain(
                group(
                    tasks.end_at.using(queue_name="emails").with_args(at),
                    tasks.end_at.using(queue_name="reports").with_args(at),
                ),
                tasks.count.with_args("child", number),
            ).enqueue()
        )
    until_all_ended(120 + ROUNDS * 0.1)
    numbers = Counter(Effect.objects.filter(name="child").values_list("number", flat=True))
    assert numbers == Counter(range(ROUNDS))
    assert set(Workflow.objects.values_list("status", flat=True)) == {"SUCCESSFUL"}
    apart = []
    for flow in flows:
        ends = Node.objects.filter(workflow_id=flow.id, name="end_at").values("pk")
        times = FinishedTask.objects.filter(pk__in=ends).values_list("finished_at", flat=True)
        one, other = times
        apart.append(abs((one - other).total_seconds()))
    together = sum(seconds < 0.001 for seconds in apart)
    sys.stdout.write(
        f"\n{connection.vendor}: {ROUNDS} rounds, the parents ended within 1 ms of each other in "
        f"{together}\n"
    )


def random_flow(rng, number):
    """Return a graph of up to 60 tasks that note that they ran, after those before them."""
    flow = graph(f"flow {number}")
    steps = []
    for step in range(rng.choice([5, 20, 60])):
        parents = rng.sample(steps, min(len(steps), rng.choice([0, 1, 2, 5])))
        name = f"{number}:{step}"
        call = tasks.note_after.with_args(name, [parent.name for parent in parents])
        if rng.random() < 0.2:
            call = group(call, tasks.count.with_args("by the way", 0, 0.002))
        steps.append(flow.add(call, after=parents, name=name))
    return flow


def test_workflows_end_in_order_while_children_and_workers_are_killed(start_worker):
    rng = random.Random(7)
    flows = [random_flow(rng, number).enqueue() for number in range(int(4 * STORM))]
    workers = [start_worker("--processes", 2, "--lease", 3) for _ in range(2)]
    killed = Counter()
    deadline = time.monotonic() + STORM
    while time.monotonic() < deadline and QueuedTask.objects.exists():
        time.sleep(0.3)
        worker = rng.choice(workers)
        if rng.random() < 0.3:
            worker.kill()
            workers[workers.index(worker)] = start_worker("--processes", 2, "--lease", 3)
            killed["workers"] += 1
        elif children := descendants(worker.pid)[1:]:
            try:
                os.kill(rng.choice(children), signal.SIGKILL)
                killed["children"] += 1
            except ProcessLookupError:
                pass
    until_all_ended(180)
    for flow in flows:
        flow.refresh()
    states = Counter(flow.state for flow in flows)
    sys.stdout.write(f"\n{connection.vendor}: killed {dict(killed)}; workflows {dict(states)}\n")
    lost = FinishedTask.objects.filter(status="FAILED")
    assert not lost.exclude(lost_count__gte=3).exists()
    if not lost.exists():
        assert states == {"SUCCESSFUL": len(flows)}
    assert set(states) <= {"SUCCESSFUL", "FAILED"}
    assert not Barrier.objects.exclude(missing=0).exists()
    assert not Effect.objects.filter(name="too early").exists()


def test_growing_workflow_runs_to_its_end_on_a_worker(start_worker):
    from tests.workflows import tasks as members

    start_worker("--processes", 2)
    workflow = chain(
        group(
            members.page.with_args(1, 5),
            members.fan_out.with_args(40),
            members.add_async.with_args(1),
        ),
        members.show.with_args(previous),
    ).enqueue()
    assert workflow.get(timeout=30) == [[1, sum(range(40)), 2]]
    assert Effect.objects.filter(name="page").count() == 5


def test_child_of_an_opened_group_is_found_without_waiting_for_a_poll(start_worker):
    worker = start_worker("--processes", 1)
    tasks.nothing.enqueue()
    until_all_ended()
    chain(*(tasks.nothing.with_args() for _ in range(40))).enqueue()
    until_all_ended(30)
    times = FinishedTask.objects.aggregate(first=Min("started_at"), last=Max("finished_at"))
    sys.stdout.write(
        f"\n{connection.vendor}: a chain of 40 took "
        f"{(times['last'] - times['first']).total_seconds():.2f} s\n"
    )
    assert worker.process.poll() is None
    assert timezone.now() - times["last"] < timedelta(minutes=1)
