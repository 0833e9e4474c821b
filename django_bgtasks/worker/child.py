"""
A child process: claim, run, finish. Start reading here.

The main thread runs tasks (one thread a slot with --threads), the dispatcher's
thread talks to the database, and a reader's thread hears the supervisor. A
claim takes what the slots need soon; outcomes are written in batches, together
with the next claim.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .execution import Execution
    from .plan import WorkerPlan

logger = logging.getLogger("django_bgtasks.worker")

#: Outcomes are written when there are so many, or when the oldest is so old in seconds.
FLUSH_COUNT = 100
FLUSH_SECONDS = 0.025
#: After it found something a child looks again at such a pause, for as long as an
#: enqueue may have kept its hint to itself (wakeups.MIN_INTERVAL), and a little.
FIRST_PAUSE = 0.008
HINTLESS = 0.13
#: A claimed task that no slot could begin for so long is given back to others.
PATIENCE = 0.3
#: A task that was lost before waits so long for a child of its own.
SUSPECT_PATIENCE = 30.0


def main(plan: WorkerPlan, memory: Any, pipe: Any, parent: int) -> None:
    """Be a child of the process called parent."""
    from .preload import die_with_parent, set_up

    # The supervisor decides; Ctrl+C reaches the whole process group.
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "SIGUSR2"):
        import faulthandler

        faulthandler.register(signal.SIGUSR2, all_threads=True)
    die_with_parent(parent)
    random.seed()
    set_up(plan)
    Child(plan, memory, pipe).run()


class Child:
    """The parts of a child process, and what they share."""

    def __init__(self, plan: WorkerPlan, memory: Any, pipe: Any) -> None:
        from ..compat import task_backends
        from .announcer import Announcer
        from .board import Board
        from .slots import Slots

        self.plan = plan
        self.pipe = pipe
        self.backend = task_backends[plan.backend]
        self.board = Board(memory)
        self.woken = threading.Event()
        self.slots = Slots(
            self.board,
            threads=plan.threads,
            async_concurrency=plan.async_concurrency,
            changed=self.woken.set,
        )
        self.announcer = Announcer()
        # Nothing is claimed before the supervisor has said which queues aren't paused.
        self.queues: list[str] | None = None
        self.look = True
        self.quiet = False
        self.stopping = False
        self._send_lock = threading.Lock()

    def run(self) -> None:
        """Work until the supervisor says stop, or until this child should be replaced."""
        dispatcher = Dispatcher(self)
        self.slots.start()
        threading.Thread(target=self._listen, name="bgtasks-reader", daemon=True).start()
        thread = threading.Thread(target=dispatcher.run, name="bgtasks-dispatcher")
        self.send(("ready", os.getpid()))
        thread.start()
        if self.plan.threads == 1:
            self.slots.run()
        thread.join()
        self.announcer.close()
        logging.shutdown()
        sys.stdout.flush()

    def send(self, message: tuple[Any, ...]) -> None:
        """Tell the supervisor something."""
        try:
            with self._send_lock:
                self.pipe.send(message)
        except OSError:
            os._exit(1)

    def _listen(self) -> None:
        """Hear the supervisor; end when it has ended."""
        while True:
            try:
                kind, *details = self.pipe.recv()
            except (EOFError, OSError):
                os._exit(1)
            if kind == "wake":
                self.look = True
            elif kind == "queues":
                self.queues = details[0]
                self.look = True
            elif kind == "quiet":
                self.quiet = True
            elif kind == "stop":
                self.stopping = True
            elif kind == "announce":
                self.announcer.announce_row(details[0], self.plan.database, self.backend)
            self.woken.set()


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
        # Executions that ran and are not written yet.
        self.unwritten: list[Execution] = []
        self.held = 0
        self.waiting_since = 0.0
        # Tasks that were lost before: each runs alone.
        self.suspects: deque[Execution] = deque()
        self.suspect_runs = False
        self.async_share = 0.0
        self.async_waiting: deque[Execution] = deque()
        self.idle_pause = FIRST_PAUSE
        self.found_at = 0.0
        self.next_look = 0.0
        self.ran = 0
        self.counts = {"successful": 0, "failed": 0, "retried": 0}
        self.reported_at = 0.0
        self.born = time.monotonic()
        self.retiring = False
        self.outage_since: float | None = None
        self.outage_pause = 0.05
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

    def _is_over(self) -> bool:
        return (self.child.stopping or self.retiring) and self.held == 0

    def _step(self) -> None:
        slots = self.slots
        self.child.woken.clear()
        while slots.done:
            self.unwritten.append(slots.done.popleft())
        ending = self.child.stopping or self.retiring
        if ending:
            self._give_back(slots.take_back() + self._all_waiting(), "The worker stops.")
        self._run_waiting()
        limit = 0 if ending else self._limit()
        if limit or self._should_write():
            if self._exchange(limit) and limit:
                return  # As many as could be: there may be more.
        elif slots.waiting and time.monotonic() - self.waiting_since > PATIENCE:
            self._give_back(slots.take_back(), "")
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
        if self.suspects or self.suspect_runs or self.async_waiting:
            return 0
        wanted = self.slots.wanted()
        if self.async_share > 0:
            wanted += int(self.slots.async_room * self.async_share)
        wanted = min(wanted, self.board.room - 1)
        if wanted <= 0:
            return 0
        # With something to write the claim rides along for nothing.
        return wanted if self._may_look() or self.unwritten else 0

    def _may_look(self) -> bool:
        return self.child.look or time.monotonic() >= self.next_look

    def _should_write(self) -> bool:
        if not self.unwritten:
            return False
        if len(self.unwritten) >= FLUSH_COUNT or len(self.unwritten) == self.held:
            return True
        ended = self.unwritten[0].began
        assert ended is not None
        return time.time() - ended.timestamp() - self.unwritten[0].seconds >= FLUSH_SECONDS

    def _pause(self) -> float:
        """Return how long to wait for something to happen."""
        if self.outage_since is not None:
            return random.uniform(0.5, 1.0) * self.outage_pause
        if self.held:
            return FLUSH_SECONDS
        return max(0.001, self.next_look - time.monotonic())

    def _found(self, count: int, limit: int) -> None:
        """Decide when to look again: soon after there was work, later and later without."""
        now = time.monotonic()
        if count >= limit:
            self.child.look = True
        if count:
            self.found_at = now
        elif self.plan.burst and self.held == 0:
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

    def _exchange(self, limit: int) -> bool:
        """
        Write what has run and claim up to limit tasks.

        Return whether limit tasks were found.
        """
        from ..db import ClaimRequest
        from ..ids import new_id
        from ..transitions import exchange

        queues = self._queues() if limit else ()
        request = None
        if limit and queues:
            request = ClaimRequest(
                queues=queues,
                limit=limit,
                claim_id=new_id(),
                worker_id=self.plan.name,
                lease=self.plan.lease,
                by_priority=self.plan.by_priority,
            )
        writing = self.unwritten
        if limit:
            self.child.look = False
        try:
            for execution in writing:
                if execution.ending is None:
                    self._write_otherwise(execution)
            self._release_doubtful()
            endings = [e.ending for e in writing if e.ending is not None]
            if request is not None:
                self.board.announce_claim(request.claim_id)
            done = exchange(self.plan.database, endings, request)
        except Exception as error:
            if request is not None and self.board.announced_claim() == request.claim_id:
                # It may have been committed all the same.
                self.doubtful.append(request.claim_id)
                self.board.claim_arrived()
            self._failed(error)
            return False
        self._contact()
        if writing:
            self._written(writing, done.ended)
        if limit:
            self._found(len(done.claimed), limit)
        if done.claimed:
            self._take(done.claimed)
        if request is not None:
            self.board.claim_arrived()
        return bool(done.claimed) and len(done.claimed) == limit

    def _release_doubtful(self) -> None:
        """Give back what a claim took whose answer never came."""
        from ..transitions import release_claim

        while self.doubtful:
            release_claim(self.plan.database, self.doubtful[-1])
            self.doubtful.pop()

    def _queues(self) -> list[str]:
        told = self.child.queues or []
        if not self.plan.any_queue:
            return told
        from ..db import operations_for

        try:
            names = operations_for(self.plan.database).queue_names()
        except Exception as error:
            self._failed(error)
            return []
        return [name for name in names if name not in told]

    def _take(self, rows: Any) -> None:
        """Have claimed tasks run."""
        from .execution import Execution

        self.waiting_since = time.monotonic()
        coroutines = 0
        for row in rows:
            execution = Execution(row, self.child.backend, self.board.put(row.id, row.claim_id))
            self.held += 1
            execution.resolve()
            if row.lost_count:
                self.suspects.append(execution)
            elif execution.is_async:
                coroutines += 1
                self.async_waiting.append(execution)
            else:
                self.slots.submit(execution)
        self.async_share += (coroutines / len(rows) - self.async_share) * 0.5
        if self.async_share < 0.01:
            self.async_share = 0.0
        self._run_waiting()

    def _run_waiting(self) -> None:
        """Begin coroutines while there is room, and a suspect once nothing else is held."""
        while self.async_waiting and self.slots.async_room:
            self.slots.submit(self.async_waiting.popleft())
        if self.suspect_runs:
            self.suspect_runs = self.held > len(self.suspects) + len(self.unwritten)
        if self.suspects and not self.suspect_runs:
            if self.held == len(self.suspects):
                self._run_alone(self.suspects.popleft())
            elif time.monotonic() - self.waiting_since > SUSPECT_PATIENCE:
                self._give_back(list(self.suspects), "It waits for a process of its own.")
                self.suspects.clear()

    def _run_alone(self, suspect: Execution) -> None:
        from ..transitions import begin_alone

        try:
            ours = begin_alone(self.plan.database, (suspect.row.id, suspect.row.claim_id))
        except Exception as error:
            self._failed(error)
            self.suspects.appendleft(suspect)
            return
        if ours:
            self.suspect_runs = True
            self.slots.submit(suspect)
        else:
            self._let_go(suspect)

    def _all_waiting(self) -> list[Execution]:
        waiting = [*self.suspects, *self.async_waiting]
        self.suspects.clear()
        self.async_waiting.clear()
        return waiting

    def _give_back(self, executions: list[Execution], reason: str) -> None:
        """Release tasks that have not begun."""
        if not executions:
            return
        from ..signals import task_released
        from ..transitions import release

        try:
            release(
                self.plan.database,
                [(e.row.id, e.row.claim_id) for e in executions],
                reason=reason,
            )
        except Exception as error:
            # Their leases run out; another worker takes them then.
            self._failed(error)
        else:
            task_released.send_robust(
                type(self.child.backend), task_ids=[e.row.id for e in executions], reason=reason
            )
        for execution in executions:
            self._let_go(execution)

    def _let_go(self, execution: Execution) -> None:
        self.board.remove(execution.place)
        self.held -= 1

    def _write_otherwise(self, execution: Execution) -> None:
        """Write what is neither success nor final failure, once."""
        from ..transitions import put_off, retry_later

        row = execution.row
        held = (row.id, row.claim_id)
        if execution.retry_delay is not None:
            assert execution.errors is not None
            retry_later(
                self.plan.database,
                held,
                delay=execution.retry_delay,
                failures=execution.failures,
                errors=execution.errors,
                reason=execution.reason,
            )
        elif execution.put_off_delay is not None:
            put_off(
                self.plan.database,
                held,
                delay=execution.put_off_delay,
                reason=execution.reason,
            )

    def _written(self, executions: list[Execution], ended: set[str]) -> None:
        """Let go of what was written; announce it."""
        lost = [e for e in executions if e.ending is not None and e.row.id not in ended]
        if lost:
            lost = self._superseded(lost)
        dropped = {id(e) for e in lost}
        seconds = 0.0
        for execution in executions:
            self._let_go(execution)
            seconds += execution.seconds
            if id(execution) in dropped:
                continue
            if execution.retry_delay is not None:
                self.counts["retried"] += 1
            elif execution.ending is not None:
                ok = execution.exception is None
                self.counts["successful" if ok else "failed"] += 1
            self.child.announcer.announce(execution)
        self.ran += len(executions)
        self.slots.learn(seconds, len(executions))
        self.unwritten = []

    def _superseded(self, executions: list[Execution]) -> list[Execution]:
        """
        Return those of executions whose outcome did not arrive.

        One may have: by a commit that was made and not acknowledged.
        """
        from ..models import FinishedTask
        from ..signals import claim_lost

        arrived = {
            (str(pk), str(claim))
            for pk, claim in FinishedTask.objects.using(self.plan.database)
            .filter(pk__in=[e.row.id for e in executions])
            .values_list("pk", "claim_id")
        }
        lost = [e for e in executions if (e.row.id, e.row.claim_id) not in arrived]
        for execution in lost:
            logger.warning(
                "The outcome of %s is dropped: others have taken the task over.",
                execution.row.id,
                extra={"task_id": execution.row.id, "task_path": execution.row.task_path},
            )
        if lost:
            claim_lost.send_robust(type(self.child.backend), task_ids=[e.row.id for e in lost])
        return lost

    # When the database fails

    def _failed(self, error: Exception) -> None:
        """Wait and go on after a failure of the database; a worker outlives it."""
        from django.db import connections

        from ..db import FailureKind, classify
        from .execution import reset_connection

        kind = classify(error)
        reset_connection(connections[self.plan.database])
        if kind is FailureKind.DATA and self.unwritten:
            self._isolate()
            return
        if self.outage_since is None:
            self.outage_since = time.monotonic()
            self.outage_pause = 0.05
            if kind is FailureKind.TRANSIENT:
                logger.warning("The database can't be reached; waiting for it: %s", error)
            else:
                logger.error("The database refused a statement of the worker.", exc_info=error)
        else:
            self.outage_pause = min(self.outage_pause * 1.7, 5.0)
        self.next_look = time.monotonic() + self.outage_pause

    def _contact(self) -> None:
        if self.outage_since is not None:
            logger.warning(
                "The database is back after %.1f s.", time.monotonic() - self.outage_since
            )
            self.outage_since = None
            self.child.look = True

    def _isolate(self) -> None:
        """Write outcomes one by one, after one of them was refused for what it holds."""
        from ..transitions import exchange

        for execution in self.unwritten:
            for _ in range(2):
                try:
                    if execution.ending is None:
                        self._write_otherwise(execution)
                        ended = {execution.row.id}
                    else:
                        ended = exchange(self.plan.database, [execution.ending], None).ended
                    break
                except Exception as error:
                    from django.db import connections

                    from .execution import reset_connection

                    reset_connection(connections[self.plan.database])
                    execution.fail_unstorable(error)
                    ended = set()
            rest = [e for e in self.unwritten if e is not execution]
            self._written([execution], ended)
            self.unwritten = rest

    # Reporting

    def _report(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self.reported_at >= 0.5:
            self.reported_at = now
            self.child.send(("counts", dict(self.counts), self.slots.running))

    def _retire_if_due(self) -> None:
        """End this child, for the supervisor to replace it, once it has served its time."""
        plan = self.plan
        if self.retiring:
            return
        if plan.recycle_tasks is not None and self.ran >= plan.recycle_tasks:
            why = f"it ran {self.ran} tasks"
        elif plan.recycle_after is not None and time.monotonic() - self.born >= plan.recycle_after:
            why = f"it is {plan.recycle_after:g} s old"
        elif plan.recycle_memory is not None and resident_memory() > plan.recycle_memory:
            why = f"it takes {resident_memory() / 2**20:.0f} MiB of memory"
        else:
            return
        self.retiring = True
        self.child.send(("retiring", why))


def resident_memory(pid: int | None = None) -> int:
    """Return the resident memory of a process, by default this one, in bytes; 0 if unknown."""
    try:
        with open(f"/proc/{pid or 'self'}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        if pid is not None:
            return 0
        import resource

        # macOS gives bytes, and the peak is the best that it has.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
