"""
Random graphs under random failures, retries, cancels and deaths of workers.

What may run when is asked of the graph as it was drawn, by a model that knows
no barriers. BGTASKS_GRAPHS=500 for the whole run.
"""

import json
import os
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from django_bgtasks import chain, graph, group, previous, transitions
from django_bgtasks.models import Barrier, FinishedTask, Node, QueuedTask, Workflow
from django_bgtasks.states import FinalStatus

from . import tasks
from .driver import Driver

GRAPHS = int(os.environ.get("BGTASKS_GRAPHS", 40))
LARGEST = 200
FINAL = set(FinalStatus.values)
seen = Counter()
show = sys.stdout.write


class Drawn:
    """A random graph, and what the model says of it: parents by the names of tasks."""

    def __init__(self, random):
        self.random = random
        self.size = random.choice([1, 2, 4, 8, 20, 60, LARGEST])
        self.count = 0
        # By name: (names all of which must be successful, names that must be final).
        self.strict = defaultdict(set)
        self.final = defaultdict(set)
        self.may_fail = set()
        self.only_after_failure = {}
        self.cleaning = set()
        handlers = {}
        if random.random() < 0.3:
            handlers["on_failure"], on_failure = self.call()
            self.only_after_failure[on_failure] = None
        if random.random() < 0.3:
            handlers["finally_"], finally_ = self.call()
            self.cleaning.add(finally_)
        self.element = graph("drawn", **handlers)
        # With each step the names whose success is its success, and all its names.
        self.steps = []
        while self.count < self.size:
            self.add_step()
        inner = {parent for _, _, _, parents in self.steps for parent in parents}
        last = [s for i, s in enumerate(self.steps) if i not in inner]
        ends = {name for _, names, _, _ in last for name in names}
        everything = {name for _, _, every, _ in self.steps for name in every}
        for name in self.only_after_failure:
            self.only_after_failure[name] = ends
            self.final[name] |= everything
        for name in self.cleaning:
            self.final[name] |= everything | set(self.only_after_failure)

    def call(self, **kwargs):
        name = f"n{self.count}"
        self.count += 1
        tasks.script[name] = self.random.choices(
            [[], ["fail"], ["fail", "fail"]], weights=[80, 10, 10]
        )[0]
        return tasks.play.with_args(name, **kwargs).named(name), name

    def add_step(self):
        random = self.random
        most = min(len(self.steps), random.choice([0, 1, 1, 2, 3, 12]))
        parents = random.sample(range(len(self.steps)), most)
        kind = random.choices(["call", "group", "chain", "lenient"], weights=[70, 12, 10, 8])[0]
        lenient = random.random() < 0.15
        given = {"given": previous} if parents and random.random() < 0.5 else {}
        if kind == "call":
            element, name = self.call(**given)
            first, ends, every = [name], {name}, {name}
        elif kind == "chain":
            calls = [self.call(**given), self.call(given=previous), self.call()]
            element = chain(*(call for call, _ in calls))
            names = [name for _, name in calls]
            for before, name in pairwise(names):
                self.strict[name].add(before)
            first, ends, every = names[:1], {names[-1]}, set(names)
        else:
            calls = [self.call(**given) for _ in range(random.randint(0, 6))]
            element = group([call for call, _ in calls], allow_failures=kind == "lenient")
            names = [name for _, name in calls]
            first, every = names, set(names)
            ends = set() if kind == "lenient" else every
            if kind == "lenient":
                self.may_fail |= every
        for name in first:
            for parent in parents:
                _, parent_ends, parent_every, _ = self.steps[parent]
                if not lenient:
                    self.strict[name] |= parent_ends
                self.final[name] |= parent_every
        if not first:
            # An empty group hands on what it comes after.
            for parent in parents:
                _, parent_ends, parent_every, _ = self.steps[parent]
                ends = ends | (set() if lenient else parent_ends)
                every = every | parent_every
        step = self.element.add(
            element,
            after=[self.steps[parent][0] for parent in parents],
            allow_failures=lenient and bool(parents),
            name="" if kind == "call" else f"s{len(self.steps)}",
        )
        self.steps.append((step, ends, every, parents))


def statuses(workflow):
    """Return the status of each task by name."""
    names = dict(Node.objects.filter(workflow_id=workflow.id).values_list("pk", "name"))
    found = {}
    for model in (QueuedTask, FinishedTask):
        for pk, status in model.objects.filter(pk__in=names).values_list("pk", "status"):
            found[names[pk]] = status
    assert len(found) == len(names)
    return found, {name: str(pk) for pk, name in names.items()}


class Storm:
    """Runs a graph, and does it harm meanwhile."""

    def __init__(self, drawn, workflow, random):
        self.drawn, self.workflow, self.random = drawn, workflow, random
        self.driver = Driver(on_run=self.check_parents)
        self.by_hand = set()
        #: Failed tasks that were retried: what came after them may have run before.
        self.retried = set()
        self.held = []

    def check_parents(self, execution):
        name = json.loads(execution.row.args)[0]
        now, _ = statuses(self.workflow)
        drawn = self.drawn
        for parent in drawn.strict[name]:
            assert now[parent] == "SUCCESSFUL", f"{name} runs although {parent} is {now[parent]}"
        # Nothing can fail in a graph of empty groups: its on_failure isn't there.
        for parent in (drawn.final[name] & set(now)) - self.retried:
            assert now[parent] in FINAL, f"{name} runs before {parent}, which is {now[parent]}"
        watched = drawn.only_after_failure.get(name)
        if watched is not None and not self.retried:
            assert any(now[parent] != "SUCCESSFUL" for parent in watched)

    def go(self):
        for _ in range(40 * LARGEST):
            self.harm()
            if not self.held:
                self.held = self.driver.claim(self.random.choice([1, 1, 3, 20]))
            if not self.held:
                if not self.driver.promote():
                    return
                continue
            self.random.shuffle(self.held)
            self.run_some()
        raise AssertionError("It doesn't come to an end.")

    def run_some(self):
        """Run a part of what is held; write all of it, or one by one, or lose it."""
        count = self.random.randint(1, len(self.held))
        running, self.held = self.held[:count], self.held[count:]
        if self.random.random() < 0.05:
            seen["workers lost"] += 1
            for execution in running:
                self.driver.lose(execution)
                # Whatever it did: it is too late.
                execution.run()
                assert not self.driver.write(execution)
            return
        together = []
        for execution in running:
            self.check_parents(execution)
            execution.run()
            if execution.ending is not None and self.random.random() < 0.7:
                together.append(execution)
            else:
                self.driver.write(execution)
        if together:
            endings = [execution.ending for execution in together]
            transitions.exchange(self.driver.database, endings, None)

    def harm(self):
        chance = self.random.random()
        if chance > 0.06:
            return
        now, ids = statuses(self.workflow)
        if chance < 0.03:
            waiting = sorted(n for n, s in now.items() if s not in FINAL and s != "RUNNING")
            chosen = self.random.sample(waiting, min(len(waiting), self.random.randint(1, 3)))
            moved = transitions.cancel("default", [ids[name] for name in chosen], by="storm")
            seen["cancelled"] += len(moved)
        elif chance < 0.058:
            bad = sorted(n for n, s in now.items() if s in ("FAILED", "CANCELLED"))
            chosen = self.random.sample(bad, min(len(bad), self.random.randint(1, 4)))
            transitions.retry("default", [ids[name] for name in chosen], by="storm")
            after, _ = statuses(self.workflow)
            self.retried |= {n for n in now if now[n] in FINAL and after[n] not in FINAL}
            seen["retried"] += sum(after[name] not in FINAL for name in chosen)
        else:
            self.workflow.cancel(by="storm")
            seen["workflows cancelled"] += 1


def check_end(drawn, workflow):
    now, _ = statuses(workflow)
    assert set(now.values()) <= FINAL
    assert not Barrier.objects.filter(workflow_id=workflow.id).exclude(missing=0).exists()
    row = Workflow.objects.get(pk=workflow.id)
    skipped = set(
        Node.objects.filter(workflow_id=workflow.id, skipped=True).values_list("name", flat=True)
    )
    counted = set(now) - drawn.may_fail
    if any(now[name] == "FAILED" for name in counted):
        assert row.status == "FAILED"
    elif any(now[name] == "CANCELLED" for name in counted - skipped):
        assert row.status == "CANCELLED"
    else:
        assert row.status == "SUCCESSFUL"
    assert row.finished_at is not None
    for name in skipped:
        assert now[name] == "CANCELLED"
        if name in drawn.only_after_failure:
            continue
        parents = drawn.strict[name]
        assert any(now[parent] != "SUCCESSFUL" for parent in parents), f"{name} was skipped"
    for name, status in now.items():
        # Nothing is left out: what could run did, or was stopped by hand.
        if status == "CANCELLED" and name not in skipped:
            reason = FinishedTask.objects.get(
                pk=Node.objects.get(workflow_id=workflow.id, name=name).pk
            ).reason
            assert reason.startswith("Cancelled by storm"), reason
    seen.update(f"workflow {row.status.lower()}" for _ in [1])
    seen.update(f"task {status.lower()}" for status in now.values())
    seen["graphs"] += 1


@pytest.mark.django_db
def test_graphs_come_to_an_end_in_order_whatever_happens(driver, request):
    @settings(
        max_examples=GRAPHS,
        deadline=None,
        database=None,
        derandomize="BGTASKS_GRAPHS" not in os.environ,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(min_value=0, max_value=2**32))
    def run(seed):
        random = Random(seed)
        # What a graph that failed has left.
        QueuedTask.objects.all().delete()
        tasks.script.clear()
        drawn = Drawn(random)
        workflow = drawn.element.enqueue()
        storm = Storm(drawn, workflow, random)
        storm.go()
        check_end(drawn, workflow)

    run()
    show(f"\n{dict(sorted(seen.items()))}")
    assert seen["graphs"] >= GRAPHS
