"""
Claim, have run, finish: the heart of a child.

A claim takes what the slots need soon; outcomes are written in batches,
together with the next claim.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..db import ClaimedTask, ClaimRequest, operations_for
from ..ids import new_id
from ..limits import candidate
from ..signals import task_released
from ..transitions import begin_alone, exchange, release, release_claim
from .execution import Execution
from .gate import Gate
from .memory import resident_memory
from .outage import Outage
from .outcomes import FLUSH_SECONDS, Outcomes

if TYPE_CHECKING:
    from .child import Child

logger = logging.getLogger("django_bgtasks.worker")

#: After it found something a child looks again at such a pause, for as long as an
#: enqueue may have kept its hint to itself (wakeups.MIN_INTERVAL), and a little.
FIRST_PAUSE = 0.008
HINTLESS = 0.13
#: A claimed task that no slot could begin for so long is given back to others.
PATIENCE = 0.3
#: A task that was lost before waits so long for a child of its own.
SUSPECT_PATIENCE = 30.0
#: A claim from queues with fair keys takes at most so many, in turns.
FAIR_CLAIM = 100


class Dispatcher:
    """
    The only part of a child that claims and finishes.

    Its thread has a database connection of its own, which no task can leave
    in a bad state.
    """

    def __init__(self, child: Child) -> None:
        self.child = child
        self.plan = child.plan
        self.slots = child.slots
        self.board = child.board
        self.held = 0
        #: What is held, by id.
        self.by_id: dict[str, Execution] = {}
        self.outage = Outage(child, self.plan.database)
        self.outcomes = Outcomes(self)
        self.gate = Gate(self)
        self.waiting_since = 0.0
        # Tasks that were lost before: each runs alone.
        self.suspects: deque[Execution] = deque()
        self.suspect_runs = False
        self.async_share = 0.0
        self.async_waiting: deque[Execution] = deque()
        self.idle_pause = FIRST_PAUSE
        self.found_at = 0.0
        self.next_look = 0.0
        self.reported_at = 0.0
        self.born = time.monotonic()
        self.retiring = False
        # Where the turns of fair keys go on, by queue.
        self.turns: dict[str, str] = {}
        # Claims of which it isn't known whether they were committed.
        self.doubtful: list[str] = []

    def run(self) -> None:
        """Claim, have run, finish; return when all that was held is written or given back."""
        try:
            while not self._is_over():
                self._step()
            self._report(last=True)
        except BaseException:
            logger.critical("The dispatcher of a child failed.", exc_info=True)
            os._exit(70)
        finally:
            from django.db import connections

            self.slots.stop()
            connections.close_all()

    @property
    def ending(self) -> bool:
        """Whether nothing more is begun."""
        return self.child.stopping or self.retiring

    def _is_over(self) -> bool:
        return self.ending and self.held == 0

    def _step(self) -> None:
        slots, outcomes = self.slots, self.outcomes
        self.child.woken.clear()
        if self.child.look_at is not None:
            self.next_look = min(self.next_look, self.child.look_at)
            self.child.look_at = None
        while slots.done:
            execution = slots.done.popleft()
            if execution.holds_a_place:
                self.gate.pass_on(execution)
            outcomes.unwritten.append(execution)
        if self.ending:
            self.give_back(slots.take_back() + self._all_waiting(), "The worker stops.")
        self._run_waiting()
        self.gate.go_on()
        limit = 0 if self.ending else self._limit()
        if limit or outcomes.are_due(self.held):
            if self._exchange(limit) and limit:
                return  # As many as could be: there may be more.
        elif slots.waiting and time.monotonic() - self.waiting_since > PATIENCE:
            self.give_back(slots.take_back(), "")
        self.gate.go_on()
        outcomes.write_progress(self.by_id)
        self._report()
        self._retire_if_due()
        if not self._is_over():
            self.child.woken.wait(self._pause())

    # How much, and when

    def _limit(self) -> int:
        """Return how many tasks to ask for now, 0 for not asking."""
        child = self.child
        if child.queues is None or child.quiet:
            return 0
        wanted = self.room()
        if wanted <= 0:
            return 0
        # With something to write the claim rides along for nothing.
        return wanted if self._may_look() or self.outcomes.unwritten else 0

    def room(self) -> int:
        """Return how many more tasks this child can take."""
        if self.suspects or self.suspect_runs or self.async_waiting or self.child.quiet:
            return 0
        slots = self.slots
        wanted = slots.free if self.gate.is_cautious else slots.wanted()
        wanted -= self.gate.admitted
        if self.async_share > 0:
            wanted += int(slots.async_room * self.async_share)
        return min(wanted, self.board.room - 1)

    def _may_look(self) -> bool:
        return self.child.look or time.monotonic() >= self.next_look

    def _pause(self) -> float:
        """Return how long to wait for something to happen."""
        if self.outage.since is not None:
            return self.outage.wait()
        pause = max(0.001, self.next_look - time.monotonic())
        if self.held:
            pause = FLUSH_SECONDS
        return min(pause, self.gate.pause())

    def _found(self, count: int, limit: int) -> None:
        """Decide when to look again: soon after there was work, later and later without."""
        now = time.monotonic()
        if count >= limit:
            self.child.look = True
        if count:
            self.found_at = now
        elif self.plan.burst and self.held == 0 and not self.gate.expects_more:
            self.retiring = True
        # An idle child looks by itself, too: wake-ups are hints.
        if now - self.found_at < HINTLESS:
            self.idle_pause = FIRST_PAUSE
        else:
            longest = self.plan.poll_interval * (1 if self.held else 5)
            self.idle_pause = min(self.idle_pause * 1.7, longest)
        # Spread out, lest all look at once.
        self.next_look = now + self.idle_pause * random.uniform(0.8, 1.2)

    # Claim and finish

    def request(self, limit: int, queues: Sequence[str]) -> ClaimRequest:
        """Return a request for up to limit tasks under a new claim."""
        return ClaimRequest(
            queues=queues,
            limit=limit,
            claim_id=new_id(),
            worker_id=self.plan.name,
            lease=self.plan.lease,
            by_priority=self.plan.by_priority,
            own_session=self.child.own_session,
        )

    def _exchange(self, limit: int) -> bool:
        """
        Write what has run and claim up to limit tasks.

        Return whether limit tasks were found.
        """
        queues = self._queues() if limit else ()
        request = self.request(limit, queues) if limit and queues else None
        if limit:
            self.child.look = False
        outcomes = self.outcomes
        writing = outcomes.unwritten
        try:
            outcomes.write_others()
            self._release_doubtful()
            if request is not None and not self.child.fair.isdisjoint(queues):
                self._take_turns(request)
            if request is not None:
                self.board.announce_claim(request.claim_id)
            done = exchange(self.plan.database, outcomes.endings(), request)
        except Exception as error:
            if request is not None:
                self.in_doubt(request)
            self.failed(error)
            return False
        self.outage.over()
        if writing:
            outcomes.written(writing, done.ended)
        if limit:
            self._found(len(done.claimed), limit)
        if done.claimed:
            self.take(done.claimed)
        if request is not None:
            self.board.claim_arrived()
        return bool(done.claimed) and len(done.claimed) == limit

    def in_doubt(self, request: ClaimRequest) -> None:
        """Remember a claim that may have been committed although its answer never came."""
        if self.board.announced_claim() == request.claim_id:
            self.doubtful.append(request.claim_id)
            self.board.claim_arrived()

    def _release_doubtful(self) -> None:
        """Give back what a claim took whose answer never came."""
        while self.doubtful:
            release_claim(self.plan.database, self.doubtful[-1])
            self.doubtful.pop()

    def _take_turns(self, request: ClaimRequest) -> None:
        """Choose candidates so that the fair keys of a queue take turns."""
        operations = operations_for(self.plan.database)
        request.limit = min(request.limit, FAIR_CLAIM)
        found: list[str] = []
        for queue in request.queues:
            ids, self.turns[queue] = operations.fair_candidates(
                queue, request.limit - len(found), self.turns.get(queue, "")
            )
            found += ids
            if len(found) >= request.limit:
                break
        request.candidates = found

    def _queues(self) -> list[str]:
        told = self.child.queues or []
        if not self.plan.any_queue:
            return told
        try:
            names = operations_for(self.plan.database).queue_names()
        except Exception as error:
            self.failed(error)
            return []
        return [name for name in names if name not in told]

    def take(self, rows: Sequence[ClaimedTask]) -> None:
        """Have claimed tasks run."""
        self.waiting_since = time.monotonic()
        coroutines = 0
        limited: list[tuple[Execution, Any]] = []
        for row in rows:
            execution = self.hold(row)
            coroutines += execution.is_async
            if execution.options is not None:
                if "fair" in execution.options.get("marks", ()):
                    # The supervisor would notice, too, within a second.
                    self.child.fair |= {row.queue_name}
                asking = candidate(
                    row.id, row.claim_id, row.queue_name, -row.priority, execution.options
                )
                if asking is not None:
                    limited.append((execution, asking))
                    continue
            self.route(execution)
        if limited:
            self.gate.take(limited)
        self.async_share += (coroutines / len(rows) - self.async_share) * 0.5
        if self.async_share < 0.01:
            self.async_share = 0.0
        self._run_waiting()

    def hold(self, row: ClaimedTask) -> Execution:
        """Put down a claimed task as held."""
        execution = Execution(row, self.child.backend, self.board.put(row.id, row.claim_id))
        self.held += 1
        self.by_id[row.id] = execution
        execution.resolve()
        return execution

    def route(self, execution: Execution) -> None:
        """Have one task run where it belongs."""
        if execution.row.lost_count:
            self.suspects.append(execution)
        elif execution.is_async:
            self.async_waiting.append(execution)
        else:
            self.slots.submit(execution)

    def _run_waiting(self) -> None:
        """Begin coroutines while there is room, and a suspect once nothing else is held."""
        while self.async_waiting and self.slots.async_room:
            self.slots.submit(self.async_waiting.popleft())
        unwritten = len(self.outcomes.unwritten)
        if self.suspect_runs:
            self.suspect_runs = self.held > len(self.suspects) + unwritten
        if self.suspects and not self.suspect_runs:
            if self.held == len(self.suspects):
                self._run_alone(self.suspects.popleft())
            elif time.monotonic() - self.waiting_since > SUSPECT_PATIENCE:
                self.give_back(list(self.suspects), "It waits for a process of its own.")
                self.suspects.clear()

    def _run_alone(self, suspect: Execution) -> None:
        try:
            ours = begin_alone(self.plan.database, (suspect.row.id, suspect.row.claim_id))
        except Exception as error:
            self.failed(error)
            self.suspects.appendleft(suspect)
            return
        if ours:
            self.suspect_runs = True
            self.slots.submit(suspect)
        else:
            self.let_go(suspect)

    def _all_waiting(self) -> list[Execution]:
        waiting = [*self.suspects, *self.async_waiting, *self.gate.take_back()]
        self.suspects.clear()
        self.async_waiting.clear()
        return waiting

    def give_back(self, executions: Sequence[Execution], reason: str) -> None:
        """Release tasks that have not begun."""
        if not executions:
            return
        try:
            release(
                self.plan.database,
                [(e.row.id, e.row.claim_id) for e in executions],
                reason=reason,
            )
        except Exception as error:
            # Their leases run out; another worker takes them then.
            self.failed(error)
        else:
            task_released.send_robust(
                type(self.child.backend), task_ids=[e.row.id for e in executions], reason=reason
            )
        for execution in executions:
            self.let_go(execution)
        self.gate.ended(executions)

    def let_go(self, execution: Execution) -> None:
        """Forget a task that is written, given back, or somebody else's."""
        self.board.remove(execution.place)
        self.by_id.pop(execution.row.id, None)
        self.held -= 1

    def failed(self, error: Exception) -> None:
        """Wait and go on after a failure of the database; a worker outlives it."""
        self.outage.began(error, self.outcomes)
        self.next_look = time.monotonic() + self.outage.pause

    # Reporting

    def _report(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self.reported_at >= 0.5:
            self.reported_at = now
            counts = dict(self.outcomes.counts)
            self.child.send(("counts", counts, self.slots.running, self.outcomes.tally.take()))

    def _retire_if_due(self) -> None:
        """End this child, for the supervisor to replace it, once it has served its time."""
        plan = self.plan
        if self.retiring:
            return
        if self.child.interrupted:
            self.retiring = True
            self.child.send(("replaced", "a task was interrupted"))
            return
        ran = self.outcomes.ran
        if plan.recycle_tasks is not None and ran >= plan.recycle_tasks:
            why = f"it ran {ran} tasks"
        elif plan.recycle_after is not None and time.monotonic() - self.born >= plan.recycle_after:
            why = f"it is {plan.recycle_after:g} s old"
        elif plan.recycle_memory is not None and resident_memory() > plan.recycle_memory:
            why = f"it takes {resident_memory() / 2**20:.0f} MiB of memory"
        else:
            return
        self.retiring = True
        self.child.send(("retiring", why))
