"""
What follows in a workflow from the end of a task, and from its retry by hand.

Barriers are counted here, in the transaction that ends the task, under the
locks of their rows: of two tasks that end at the same instant the second sees
what the first has counted. What may run, or never will, is returned to
django_bgtasks.transitions, which writes it.

A barrier is decided when all its inputs are final, so that no task is final
before those it waits for, and a failed one can be retried until then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, OuterRef

from .db import operations_for
from .models.finished import FinishedTask
from .models.queued import QueuedTask
from .models.workflow import Barrier, Condition, Edge, Node, Workflow, WorkflowStatus
from .states import FinalStatus, LiveStatus

#: Rows of one statement; longer lists are cut.
CHUNK = 500
#: Why a task of on_failure= is skipped.
NOTHING_FAILED = "nothing failed"

#: How an input ended: well, or for what cause not.
Ends = dict[UUID, str | None]


def chunks(ids: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield ids in lists of CHUNK, sorted, as all locks are taken."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


def members(alias: str, ids: Iterable[Any]) -> dict[UUID, str]:
    """Return the names of those tasks that belong to a workflow, by id."""
    found: dict[UUID, str] = {}
    for some in chunks(ids):
        nodes = Node.objects.using(alias).filter(pk__in=some)
        found.update(nodes.values_list("pk", "name"))
    return found


@dataclass(slots=True)
class Consequences:
    """
    What follows: barriers whose tasks may run, tasks that never will by their
    reason, and barriers at which workflows may be over.
    """

    opened: list[UUID] = field(default_factory=list)
    skipped: dict[str, list[UUID]] = field(default_factory=dict)
    ends: list[UUID] = field(default_factory=list)


@dataclass(slots=True)
class _State:
    """A barrier while it is counted."""

    id: UUID
    condition: str
    missing: int
    failed: int
    cause: str
    before: tuple[int, int, str]

    @classmethod
    def of(cls, row: Barrier) -> _State:
        before = (row.missing, row.failed, row.cause)
        return cls(row.pk, row.condition, *before, before)

    @property
    def is_open(self) -> bool:
        """What it says of its inputs, once none is missing."""
        if self.condition == Condition.SUCCESS:
            return self.failed == 0
        if self.condition == Condition.FAILURE:
            return self.failed > 0
        return True

    @property
    def why(self) -> str | None:
        """Why it refuses, None if it is open."""
        if self.is_open:
            return None
        return NOTHING_FAILED if self.condition == Condition.FAILURE else self.cause

    def count(self, cause: str | None, *, lenient: bool) -> None:
        """Take note that an input is final."""
        self.missing -= 1
        if cause is not None and not lenient:
            self.failed += 1
            self.cause = self.cause or cause

    def discount(self, cause: str | None, *, lenient: bool) -> None:
        """Take note that an input isn't final any more."""
        self.missing += 1
        if cause is not None and not lenient:
            self.failed -= 1
            if not self.failed:
                self.cause = ""


def advance(alias: str, ended: Mapping[UUID, str | None]) -> Consequences:
    """
    Count tasks that have ended, well or for a cause, in the caller's transaction.
    """
    done = Consequences()
    sources: Ends = dict(ended)
    refused: Ends = {}
    while sources:
        hits: dict[UUID, list[tuple[str | None, bool]]] = defaultdict(list)
        for some in chunks(sources):
            edges = Edge.objects.using(alias).filter(source__in=some)
            for source, barrier, lenient in edges.values_list("source", "barrier_id", "lenient"):
                hits[barrier].append((sources[source], lenient))
        states = _locked(alias, hits)
        sources.clear()
        for state in states.values():
            for cause, lenient in hits[state.id]:
                state.count(cause, lenient=lenient)
            if state.missing:
                continue
            if state.condition == Condition.END:
                done.ends.append(state.id)
            elif state.is_open:
                done.opened.append(state.id)
                sources[state.id] = None
            else:
                refused[state.id] = state.why
        _write(alias, states.values())
    if refused:
        _spread(alias, refused, done)
    return done


def _locked(alias: str, ids: Iterable[UUID]) -> dict[UUID, _State]:
    states: dict[UUID, _State] = {}
    for some in chunks(ids):
        rows = Barrier.objects.using(alias).select_for_update().filter(pk__in=some)
        states.update((row.pk, _State.of(row)) for row in rows.order_by("pk"))
    return states


def lock(alias: str, workflows: Iterable[UUID]) -> dict[UUID, _State]:
    """Lock all barriers of some workflows, before anything else of them is read."""
    rows = Barrier.objects.using(alias).select_for_update()
    return {
        row.pk: _State.of(row) for row in rows.filter(workflow_id__in=set(workflows)).order_by("pk")
    }


def workflows_of(alias: str, ids: Iterable[Any]) -> dict[UUID, UUID]:
    """Return the workflows of those tasks that belong to one, by the task's id."""
    found: dict[UUID, UUID] = {}
    for some in chunks(ids):
        nodes = Node.objects.using(alias).filter(pk__in=some)
        found.update(nodes.values_list("pk", "workflow_id"))
    return found


def _write(alias: str, states: Iterable[_State]) -> None:
    """Write down what was counted: one statement for all that changed alike."""
    alike: dict[tuple[int, int, str, bool], list[UUID]] = defaultdict(list)
    for state in states:
        missing, failed, cause = state.before
        if (state.missing, state.failed, state.cause) != state.before:
            delta = (state.missing - missing, state.failed - failed)
            # Empty unless it changed: then all of them have the same.
            new = state.cause if state.cause != cause else "\0"
            alike[(*delta, new, state.missing == 0)].append(state.id)
    for (missing, failed, cause, is_complete), ids in alike.items():
        changes: dict[str, Any] = {"missing": F("missing") + missing}
        if failed:
            changes["failed"] = F("failed") + failed
        if cause != "\0":
            changes["cause"] = cause[:255]
        changes["opened_at"] = operations_for(alias).now_expression(None) if is_complete else None
        for some in chunks(ids):
            Barrier.objects.using(alias).filter(pk__in=some).update(**changes)


class _Graph:
    """All edges of some workflows, for what spreads far."""

    def __init__(self, alias: str, workflows: Collection[UUID]) -> None:
        self.alias = alias
        barriers = Barrier.objects.using(alias).filter(workflow_id__in=workflows)
        self.barriers: list[UUID] = list(barriers.values_list("pk", flat=True))
        self.targets: dict[UUID, list[tuple[UUID, bool]]] = defaultdict(list)
        for some in chunks(self.barriers):
            edges = Edge.objects.using(alias).filter(barrier_id__in=some)
            for source, barrier, lenient in edges.values_list("source", "barrier_id", "lenient"):
                self.targets[source].append((barrier, lenient))
        self.behind: dict[UUID, list[UUID]] = defaultdict(list)
        self.own: dict[UUID, UUID] = {}
        self.skipped: set[UUID] = set()
        nodes = Node.objects.using(alias).filter(
            workflow_id__in=workflows, barrier_id__isnull=False
        )
        for task, own, skipped in nodes.values_list("pk", "barrier_id", "skipped"):
            assert own is not None
            self.behind[own].append(task)
            self.own[task] = own
            if skipped:
                self.skipped.add(task)

    def reachable(self, barriers: Iterable[UUID]) -> set[UUID]:
        """Return barriers and all that come behind them."""
        seen = set(barriers)
        ahead = list(seen)
        while ahead:
            barrier = ahead.pop()
            for source in (barrier, *self.behind[barrier]):
                for target, _ in self.targets[source]:
                    if target not in seen:
                        seen.add(target)
                        ahead.append(target)
        return seen


def _spread(alias: str, refused: Ends, done: Consequences) -> None:
    """Skip what waits behind barriers that refuse, and what waits for that."""
    barriers = Barrier.objects.using(alias).filter(pk__in=list(refused))
    graph = _Graph(alias, set(barriers.values_list("workflow_id", flat=True)))
    reachable = graph.reachable(refused)
    states = _locked(alias, reachable)
    waiting: set[UUID] = set()
    for some in chunks(task for barrier in reachable for task in graph.behind[barrier]):
        rows = QueuedTask.objects.using(alias).filter(pk__in=some, status=LiveStatus.WAITING)
        waiting.update(rows.select_for_update().values_list("pk", flat=True))

    ahead = list(refused.items())
    while ahead:
        barrier, cause = ahead.pop()
        sources: list[tuple[UUID, str | None]] = [(barrier, cause)]
        if cause is None:
            done.opened.append(barrier)
        else:
            # Those that are final already, by hand, were counted then.
            tasks = [task for task in graph.behind[barrier] if task in waiting]
            if tasks:
                done.skipped.setdefault(f"Skipped: {cause}.", []).extend(tasks)
                sources += [(task, cause) for task in tasks]
        for source, why in sources:
            for target, lenient in graph.targets[source]:
                state = states[target]
                state.count(why, lenient=lenient)
                if state.missing:
                    continue
                if state.condition == Condition.END:
                    done.ends.append(target)
                else:
                    ahead.append((target, state.why))
    _write(alias, states.values())
    for tasks in done.skipped.values():
        for some in chunks(tasks):
            Node.objects.using(alias).filter(pk__in=some).update(skipped=True)


def refusal(alias: str, task_id: str) -> str | None:
    """Return why a task can't run, by what it waited for; None if it can, or waits."""
    node = Node.objects.using(alias).filter(pk=task_id).first()
    if node is None or node.barrier_id is None:
        return None
    barrier = Barrier.objects.using(alias).filter(pk=node.barrier_id, missing=0).first()
    return None if barrier is None else _State.of(barrier).why


def missing(alias: str, barrier: Barrier) -> int:
    """Return how many tasks a barrier waits for, those at barriers before it included."""
    total, level = 0, [barrier]
    while level:
        total += sum(one.missing for one in level)
        inner = Edge.objects.using(alias).filter(
            barrier_id__in=[one.pk for one in level], from_barrier=True
        )
        before = Barrier.objects.using(alias).filter(pk__in=inner.values("source"), missing__gt=0)
        level = list(before)
        total -= len(level)
    return total


def hold_back(alias: str, withdrawn: Iterable[UUID]) -> None:
    """
    Have what comes behind withdrawn tasks wait for what these had waited for.

    To be called before they are counted: a task that is cancelled by hand is
    final while its parents may still run, and nothing else is.
    """
    ids = set(withdrawn)
    workflows: set[UUID] = set()
    for some in chunks(ids):
        nodes = Node.objects.using(alias).filter(pk__in=some, barrier_id__isnull=False)
        workflows.update(nodes.values_list("workflow_id", flat=True))
    if not workflows:
        return
    states = lock(alias, workflows)
    graph = _Graph(alias, workflows)
    left = {pk: state.missing for pk, state in states.items()}
    # Those all of whose parents are final, or are withdrawn and such tasks themselves.
    ahead = [pk for pk in ids if pk not in graph.own or not left[graph.own[pk]]]
    free = set(ahead)
    while ahead:
        for target, _ in graph.targets[ahead.pop()]:
            left[target] -= 1
            if not left[target]:
                behind = [task for task in graph.behind[target] if task in ids]
                free.update(behind)
                ahead += [target, *behind]
    edges: dict[tuple[UUID, UUID], Edge] = {}
    for task in ids - free:
        own = graph.own[task]
        known = {target for target, _ in graph.targets[own]}
        for target, _ in graph.targets[task]:
            if target not in known and (own, target) not in edges:
                edges[own, target] = Edge(
                    source=own, from_barrier=True, barrier_id=target, lenient=True
                )
                states[target].missing += 1
    Edge.objects.using(alias).bulk_create(edges.values(), batch_size=CHUNK)
    _write(alias, states.values())


def _join_the_end(alias: str, workflow: UUID, task: UUID) -> None:
    """Have the end of a workflow wait for a task, whatever it led to before."""
    ends = Barrier.objects.using(alias).filter(workflow_id=workflow, condition=Condition.END)
    end = ends.select_for_update().get()
    edges = Edge.objects.using(alias)
    if not edges.filter(source=task, barrier_id=end.pk).exists():
        edges.create(source=task, barrier_id=end.pk, lenient=True)
        ends.update(missing=F("missing") + 1)


def conclude(alias: str, ends: Iterable[UUID]) -> list[UUID]:
    """Say what has become of the workflows that are over at these barriers; return which."""
    over: list[UUID] = []
    for barrier in Barrier.objects.using(alias).filter(pk__in=list(ends), missing=0):
        workflow = barrier.workflow_id
        Workflow.objects.using(alias).filter(pk=workflow).update(
            status=outcome(alias, workflow),
            finished_at=operations_for(alias).now_expression(None),
        )
        over.append(workflow)
    return over


def outcome(alias: str, workflow: UUID) -> WorkflowStatus:
    """Return what has become of a workflow whose tasks are final."""
    counted = Node.objects.using(alias).filter(workflow_id=workflow, may_fail=False)
    ended = FinishedTask.objects.using(alias).filter(pk=OuterRef("pk"))
    if counted.filter(Exists(ended.filter(status=FinalStatus.FAILED))).exists():
        return WorkflowStatus.FAILED
    cancelled = Exists(ended.filter(status=FinalStatus.CANCELLED))
    row = Workflow.objects.using(alias).get(pk=workflow)
    if row.is_cancelled:
        # As a whole: what may fail counts, too.
        counted = Node.objects.using(alias).filter(workflow_id=workflow)
    if counted.filter(cancelled, skipped=False).exists():
        return WorkflowStatus.CANCELLED
    return WorkflowStatus.SUCCESSFUL


@dataclass(slots=True)
class Reopening:
    """
    Tasks that run again: at once, or when others have ended; and why others can't.

    handlers are of on_failure= and finally_=, have run, and wait to run once more.
    """

    ready: list[UUID] = field(default_factory=list)
    waiting: list[UUID] = field(default_factory=list)
    handlers: list[UUID] = field(default_factory=list)
    refused: dict[UUID, str] = field(default_factory=dict)


def reopen(alias: str, ids: Sequence[UUID]) -> Reopening:
    """
    Count failed and cancelled members as not final any more, in the caller's transaction.

    What was skipped because of them waits again, and so do the tasks of
    on_failure= and finally_= that have run. A task that was skipped itself runs
    again with what it waited for, and not before.
    """
    nodes = Node.objects.using(alias).filter(pk__in=list(ids))
    asked = {node.pk: node for node in nodes}
    workflows = {node.workflow_id for node in asked.values()}
    for workflow in sorted(workflows):
        # One retry by hand after the other.
        Workflow.objects.using(alias).select_for_update().filter(pk=workflow).first()
    locked = lock(alias, workflows)
    graph = _Graph(alias, workflows)
    wanted = {pk for pk, node in asked.items() if not node.skipped}
    handlers = _handlers_that_ran(alias, graph, locked.values())
    done = Reopening()
    while True:
        states = {state.id: _copy(state) for state in locked.values()}
        revived, again = _rise(graph, states, wanted, handlers)
        stuck: dict[UUID, str] = {}
        for pk in wanted:
            barrier = states.get(graph.own.get(pk))  # type: ignore[arg-type]
            if barrier is not None and not barrier.missing and barrier.why is not None:
                stuck[pk] = barrier.why
        if not stuck:
            break
        # They run again with what they wait for, and take nothing with them now.
        done.refused.update(stuck)
        wanted -= set(stuck)
    for pk in asked:
        if pk not in wanted and pk not in revived and pk not in done.refused:
            barrier = states[graph.own[pk]]
            done.refused[pk] = barrier.why or barrier.cause or "what it waited for"
    for pk in wanted:
        barrier = states.get(graph.own.get(pk))  # type: ignore[arg-type]
        waits = barrier is not None and barrier.missing > 0
        (done.waiting if waits else done.ready).append(pk)
    done.waiting += sorted(revived)
    done.handlers = sorted(again)
    if not wanted:
        return done

    _write(alias, states.values())
    for some in chunks(revived):
        Node.objects.using(alias).filter(pk__in=some).update(skipped=False)
    for pk in sorted(wanted):
        # What comes behind it may run, or have run, in spite of it; the workflow waits for it.
        _join_the_end(alias, asked[pk].workflow_id, pk)
    open_again = {asked[pk].workflow_id for pk in wanted}
    Workflow.objects.using(alias).filter(pk__in=open_again).update(
        status=WorkflowStatus.RUNNING, finished_at=None, reason=""
    )
    return done


def _copy(state: _State) -> _State:
    return _State(state.id, state.condition, state.missing, state.failed, state.cause, state.before)


_HANDLING = (Condition.FAILURE, Condition.FINISHED)


def _handlers_that_ran(
    alias: str, graph: _Graph, states: Iterable[_State]
) -> dict[UUID, str | None]:
    """Return the tasks of on_failure= and finally_= that have run, and how they ended."""
    ended: dict[UUID, str | None] = {}
    barriers = graph.reachable(state.id for state in states if state.condition in _HANDLING)
    for some in chunks(task for barrier in barriers for task in graph.behind[barrier]):
        rows = FinishedTask.objects.using(alias).filter(
            pk__in=some, status__in=(FinalStatus.SUCCESSFUL, FinalStatus.FAILED)
        )
        for pk, status in rows.values_list("pk", "status"):
            ended[pk] = None if status == FinalStatus.SUCCESSFUL else ""
    return ended


def _rise(
    graph: _Graph,
    states: Mapping[UUID, _State],
    tasks: Iterable[UUID],
    handlers: Mapping[UUID, str | None],
) -> tuple[set[UUID], set[UUID]]:
    """Uncount failed tasks; return the skipped ones that wait again, and the handlers that do."""
    revived: set[UUID] = set()
    again: set[UUID] = set()
    # Any cause: what is uncounted was counted as failed. With each, whether it is a handler's.
    ahead: list[tuple[UUID, str | None, bool]] = [(task, "", False) for task in sorted(tasks)]
    asked = set(tasks)
    while ahead:
        source, cause, handles = ahead.pop()
        for target, lenient in graph.targets[source]:
            state = states[target]
            was_complete, why = state.missing == 0, state.why
            state.discount(cause, lenient=lenient)
            if not was_complete or state.condition == Condition.END:
                continue
            handling = handles or state.condition in _HANDLING
            ahead.append((target, why, handling))
            if why is not None:
                back = [t for t in graph.behind[target] if t in graph.skipped - revived]
                revived.update(back)
                ahead += [(task, "", handling) for task in back]
            elif handling:
                back = [t for t in graph.behind[target] if t in handlers and t not in again | asked]
                again.update(back)
                ahead += [(task, handlers[task], True) for task in back]
    return revived, again
