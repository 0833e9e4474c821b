"""A child's side of limits: who of the claimed may run now, who soon, who next."""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import limits, wakeups
from ..db import ClaimedTask, operations_for
from .execution import Execution

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

#: A start that is so many seconds late counts for another second: it is asked for again.
LATE = 0.1
#: READY tasks of a full key that are looked for at once, at first and at most.
SCAN, LONGEST_SCAN = 100, 2000
#: Seconds before a free start of a rate at which it is asked for.
AHEAD = 0.05
#: Seconds that a child which found no free start of a rate leaves it to others, at random between.
ASIDE = (0.1, 0.3)
#: After it met a task that holds a place at a key, a child claims nothing ahead for so long:
#: what waits in one child while others idle would hold places for nothing.
CAUTION = 1.0
#: Tasks that follow each other in one place, at most.
LONGEST_CHAIN = 50
#: Followers that a slow task keeps waiting for so long are given back, in seconds.
PATIENCE = 0.3

Limited = tuple[Execution, limits.Candidate]


@dataclass(slots=True)
class Place:
    """A place at a concurrency key: the tasks of this child that run in it one by one."""

    id: str
    digest: str
    current: Execution
    followers: deque[Execution] = field(default_factory=deque)
    since: float = 0.0
    #: Whether more followers were asked for, and there were none.
    asked: bool = False


class Gate:
    """Asks limits.py for what a child has claimed, and for what waits at its keys."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._database = dispatcher.plan.database
        # Let in, for a start in the future: (when, number, execution, candidate).
        self._admitted: list[tuple[float, int, Execution, limits.Candidate]] = []
        self._number = 0
        # By the id of the task that runs in it.
        self._places: dict[str, Place] = {}
        # Digests at which tasks may wait, and when to ask for them.
        self._refills: dict[str, float] = {}
        # Those of them that are of rates.
        self._rates: set[str] = set()
        # Places that are free since, to be forgotten with the next refill.
        self._free: list[str] = []
        self._scan = SCAN
        self._cautious_until = 0.0

    @property
    def is_cautious(self) -> bool:
        """Whether nothing is to be claimed ahead of the free slots."""
        return time.monotonic() < self._cautious_until

    @property
    def admitted(self) -> int:
        """Tasks that are let in and have not begun."""
        return len(self._admitted)

    @property
    def expects_more(self) -> bool:
        """Whether tasks may wait at a key that this child looks after."""
        return bool(self._refills)

    # What was claimed

    def take(self, claimed: Sequence[Limited], admission: limits.Admission | None = None) -> None:
        """Let in what may run, let go of what was parked; with admission that is decided."""
        if any(asking.concurrency is not None for _, asking in claimed):
            self._cautious_until = time.monotonic() + CAUTION
        if admission is None:
            claimed = self._as_many_as_begin(claimed)
            try:
                admission = limits.admit(self._database, [asking for _, asking in claimed])
            except Exception as error:
                self._dispatcher.give_back([execution for execution, _ in claimed], "")
                self._dispatcher.failed(error)
                return
            self._note_room(admission, 0.0 if admission.parked else random.uniform(*ASIDE))
            if admission.parked:
                self._clear_the_head(claimed, set(admission.parked.values()))
        now = time.monotonic()
        executions = {execution.row.id: execution for execution, _ in claimed}
        following = {pk for line in admission.chains.values() for pk in line}
        for execution, asking in claimed:
            if asking.id in admission.starts:
                self._let_in(execution, asking, now + admission.starts[asking.id])
                self._give_place(execution, asking, admission, executions)
            elif asking.id not in following:
                self._dispatcher.let_go(execution)
        self._begin()

    def _as_many_as_begin(self, claimed: Sequence[Limited]) -> list[Limited]:
        """Give back those that would hold a place and wait for a slot."""
        slots = self._dispatcher.slots
        free = {True: slots.async_room, False: slots.free}
        kept, back = [], []
        for execution, asking in claimed:
            if asking.concurrency is not None:
                if free[execution.is_async] <= 0:
                    back.append(execution)
                    continue
                free[execution.is_async] -= 1
            kept.append((execution, asking))
        self._dispatcher.give_back(back, "")
        return kept

    def _let_in(self, execution: Execution, asking: limits.Candidate, at: float) -> None:
        self._number += 1
        heapq.heappush(self._admitted, (at, self._number, execution, asking))

    def _give_place(
        self,
        execution: Execution,
        asking: limits.Candidate,
        admission: limits.Admission,
        executions: Mapping[str, Execution],
    ) -> None:
        place = admission.places.get(asking.id)
        if place is None:
            return
        assert asking.concurrency is not None
        line = deque(executions[pk] for pk in admission.chains.get(asking.id, ()))
        self._places[asking.id] = Place(
            place, asking.concurrency[0], execution, line, time.monotonic()
        )
        execution.holds_a_place = True

    def _clear_the_head(self, claimed: Sequence[Limited], full: set[str]) -> None:
        """Park what stands at the head of the queues for the same keys."""
        for queue in {asking.queue_name for _, asking in claimed}:
            try:
                parked = limits.park_blocked(self._database, queue, full, self._scan)
            except Exception as error:
                self._dispatcher.failed(error)
                return
            grown = parked >= self._scan // 2
            self._scan = min(self._scan * 4, LONGEST_SCAN) if grown else SCAN

    # What goes on

    def go_on(self) -> None:
        """Begin what is due, and ask for what waits where there may be room."""
        self._begin()
        if self._dispatcher.outage.since is not None:
            return
        now = time.monotonic()
        if self._places:
            self._tend_places(now)
        due = [digest for digest, at in self._refills.items() if at <= now]
        if due:
            self._refill(due)

    def pause(self) -> float:
        """Return the seconds until there is something to do here."""
        moments = [*self._refills.values()]
        if self._admitted:
            moments.append(self._admitted[0][0])
        return max(0.001, min(moments) - time.monotonic()) if moments else 60.0

    def take_back(self) -> list[Execution]:
        """Return what was let in and has not begun; ask for nothing more."""
        waiting = [execution for _, _, execution, _ in self._admitted]
        self._admitted.clear()
        for place in list(self._places.values()):
            waiting += self._without_followers(place)
        return waiting

    def _begin(self) -> None:
        now = time.monotonic()
        late = []
        while self._admitted and self._admitted[0][0] <= now:
            at, _, execution, asking = self._admitted[0]
            room = self._dispatcher.slots.free_for(execution)
            if not room and now - at <= LATE:
                break
            heapq.heappop(self._admitted)
            if room or asking.rate is None:
                self._dispatcher.route(execution)
            else:
                late.append((execution, asking))
        if late:
            self.take(late)

    def _note_room(self, admission: limits.Admission, pause: float = 0.0) -> None:
        now = time.monotonic()
        for digest, seconds in admission.room_at.items():
            self._rates.add(digest)
            self._refills[digest] = now + max(0.0, seconds - AHEAD) + pause

    # Places

    def pass_on(self, execution: Execution) -> None:
        """Begin the next task in the place of one that has ended, if there is one."""
        place = self._places.get(execution.row.id)
        if place is None or not place.followers:
            return
        if execution.retires_its_child or self._dispatcher.ending:
            return
        del self._places[execution.row.id]
        execution.holds_a_place = False
        following = place.followers.popleft()
        place.current, place.since = following, time.monotonic()
        self._places[following.row.id] = place
        following.holds_a_place = True
        self._dispatcher.route(following)

    def ended(self, executions: Sequence[Execution]) -> None:
        """Ask, with the next step, for what waits at the keys of tasks that have ended."""
        if not self._places:
            return
        now = time.monotonic()
        for execution in executions:
            place = self._places.pop(execution.row.id, None)
            if place is not None:
                self._free.append(place.id)
                self._refills[place.digest] = now
                if place.followers:
                    self._dispatcher.give_back(list(place.followers), "")

    def _tend_places(self, now: float) -> None:
        """Ask for more followers of short tasks; give back those that a long one keeps waiting."""
        for place in list(self._places.values()):
            if place.followers and now - place.since > PATIENCE:
                self._dispatcher.give_back(self._without_followers(place), "")
            elif len(place.followers) <= 1 and not place.asked and self._chain():
                place.asked = True
                self._extend(place)

    def _chain(self) -> int:
        """Return how many tasks should follow in a place now."""
        dispatcher = self._dispatcher
        if dispatcher.ending or dispatcher.child.quiet or dispatcher.suspects:
            return 0
        return min(dispatcher.slots.ahead, LONGEST_CHAIN, dispatcher.board.room - 1)

    def _extend(self, place: Place) -> None:
        dispatcher = self._dispatcher
        queues = dispatcher.child.queues or []
        request = dispatcher.request(self._chain(), queues)
        try:
            # Nobody's turn but theirs: what is READY goes before what waits.
            if not dispatcher.plan.any_queue and operations_for(self._database).has_ready(queues):
                return
            dispatcher.board.announce_claim(request.claim_id)
            claimed = limits.extend(
                self._database,
                place.digest,
                place.id,
                request,
                any_but=dispatcher.plan.any_queue,
            )
        except Exception as error:
            dispatcher.in_doubt(request)
            dispatcher.failed(error)
            return
        place.followers.extend(dispatcher.hold(row) for row in claimed)
        place.asked = not claimed
        dispatcher.board.claim_arrived()

    def _without_followers(self, place: Place) -> list[Execution]:
        """Take the followers from a place, which is its current task's alone then."""
        followers = list(place.followers)
        if followers:
            place.followers.clear()
            row = place.current.row
            try:
                limits.move_place(self._database, place.id, (row.id, row.claim_id))
            except Exception as error:
                self._dispatcher.failed(error)
        return followers

    def _refill(self, digests: list[str]) -> None:
        dispatcher = self._dispatcher
        room = 0 if dispatcher.ending else dispatcher.room()
        queues = dispatcher.child.queues or []
        any_but = dispatcher.plan.any_queue
        request = dispatcher.request(room, queues)
        try:
            free, self._free = self._free, []
            if room <= 0:
                limits.let_go(self._database, free)
                self._leave_to_others(digests, queues, any_but=any_but)
                return
            dispatcher.board.announce_claim(request.claim_id)
            admission = limits.refill(
                self._database,
                digests,
                request,
                any_but=any_but,
                ended=free,
                chain=min(self._chain(), (dispatcher.board.room - 1) // room - 1),
            )
        except Exception as error:
            dispatcher.in_doubt(request)
            dispatcher.failed(error)
            return
        for digest in digests:
            del self._refills[digest]
            self._rates.discard(digest)
        # Whoever found a free start goes on asking; the others stay out of its way, and
        # look now and then whether it still does.
        pause = 0.0 if admission.claimed else random.uniform(*ASIDE)
        self._note_room(admission, pause)
        if admission.claimed:
            self._take_claimed(admission.claimed, admission)
        dispatcher.board.claim_arrived()

    def _take_claimed(self, rows: Sequence[ClaimedTask], admission: limits.Admission) -> None:
        limited = []
        for row in rows:
            execution = self._dispatcher.hold(row)
            asking = limits.candidate(
                row.id, row.claim_id, row.queue_name, -row.priority, execution.options
            )
            assert asking is not None
            limited.append((execution, asking))
        self.take(limited, admission)

    def _leave_to_others(self, digests: list[str], queues: list[str], *, any_but: bool) -> None:
        """Make READY what this child has no slot for."""
        for queue in limits.set_free(self._database, digests, queues, any_but=any_but):
            wakeups.wake(self._database, queue)
        later = time.monotonic() + random.uniform(*ASIDE)
        for digest in digests:
            # A place makes itself heard when it is free; the next start of a rate doesn't.
            del self._refills[digest]
            if digest in self._rates:
                self._refills[digest] = later
