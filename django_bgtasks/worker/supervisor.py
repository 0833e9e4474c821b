"""
The parent of the child processes. It runs no task.

One thread waits for signals, children, wake-ups and timers, and does what is
due; all that it writes is guarded by claims, or idempotent.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, connections

from .. import limits, transitions, wakeups
from ..bulk import running as bulk
from ..db import FailureKind, classify, operations_for
from ..exceptions import InvalidSchedule
from ..models.worker import WorkerRequest, WorkerState
from ..schedules.firing import Scheduler
from ..schedules.sync import log_changes, sync
from ..signals import worker_started, worker_stopped
from ..statistics.ledger import Ledger
from ..statistics.tally import Tally
from . import maintenance
from .board import Stage
from .connections import reset_connection
from .heartbeat import Heartbeat
from .leases import Contact, Fence, boot_clock
from .memory import resident_memory
from .plan import WorkerPlan
from .processes import ChildProcess, launcher
from .recovery import Recovery
from .requests import SignalRequests
from .watchdog import Watchdog

logger = logging.getLogger("django_bgtasks.worker")

#: Exit codes of runworker (docs/reference/commands.md).
FINISHED, CRASHED, FORCED, RELOAD = 0, 1, 4, 30
#: A child that dies within this time of its start is replaced with growing pauses.
YOUNG = 2.0
#: Seconds between two writes of what was counted.
STATISTICS_INTERVAL = 10.0
#: Seconds between the looks of two children that are woken by one hint: mostly it
#: means one task, and claims of all at once would be in each other's way.
STAGGER = 0.003


class Timer:
    """A duty that is due at intervals."""

    def __init__(self, interval: float, action: Callable[[], float | None]) -> None:
        self.interval = interval
        self.action = action
        self.due_at = time.monotonic()

    def run(self) -> None:
        """Do the duty; it may say in how many seconds it is due again."""
        self.due_at = time.monotonic() + self.interval
        sooner = self.action()
        if sooner is not None:
            self.due_at = time.monotonic() + max(0.001, min(self.interval, sooner))


class Supervisor:
    """Children, leases, shutdown, maintenance. No user code."""

    def __init__(self, plan: WorkerPlan, backend: Any) -> None:
        self.plan = plan
        self.backend = backend
        self.sender = type(backend)
        self.alias = plan.database
        self.operations = operations_for(plan.database)
        # First of all: children are forked from what there is now.
        self.launcher = launcher(plan)
        self.children: list[ChildProcess] = []
        self.contact = Contact()
        self.fence = Fence(self.contact, plan.lease, self._holders, self._fenced)
        self.watchdog = Watchdog(lambda: self.children)
        self.heartbeat = Heartbeat(plan)
        self.ledger = Ledger(plan.database, str(self.heartbeat.worker.id))
        self.statistics = Timer(STATISTICS_INTERVAL, self._write_statistics)
        #: Fingerprints of failures that were heard of.
        self.causes: set[str] = set()
        self.detector = self.operations.change_detector(self._queues, listen=backend.conf.listen)
        self.selector = selectors.DefaultSelector()
        self.paused: set[str] = set()
        # Whether connections keep their session, as the detector found.
        self.own_session = False
        #: Queues in which fair keys take turns.
        self.fair: frozenset[str] = frozenset()
        # What children were told to end: (task, by force).
        self.told_to_end: set[tuple[str, bool]] = set()
        # How many tasks had ended when the live table was last tidied.
        self.tidied_at = 0
        # Where the next sweep of the limits begins.
        self.sweep_after = ""
        self.state = WorkerState.RUNNING
        self.exit_code = FINISHED
        self.stop_at: float | None = None
        self.requests = SignalRequests()
        self.stop_heard = False
        self.ended_counts = {"successful": 0, "failed": 0, "cancelled": 0, "retried": 0}
        self.respawn_at = 0.0
        self.early_deaths = 0
        self.children_were_ready = False
        # Ids for a child to send signals about.
        self.unannounced: list[str] = []
        self.enqueued: list[str] = []
        self.recovery = Recovery(plan.database, backend, self._task_failed)
        self.scheduler = Scheduler(plan.database, [plan.backend])
        self.beats = Timer(min(5.0, plan.lease / 3), self._beat)
        self.started_at = time.monotonic()
        self.down = False
        self._detector_fd: int | None = None
        self._source_snapshot: dict[str, float] | None = None

    # Life

    def run(self) -> int:
        """Work until told to stop; return the exit code."""
        self.requests.install()
        self.selector.register(self.requests, selectors.EVENT_READ, self.requests.heard)
        try:
            self._guarded(self._come_up)
            for _ in range(self.plan.processes):
                self._spawn()
            timers = self._timers()
            self.fence.start()
            self.watchdog.start()
            worker_started.send_robust(self.sender, worker=self.heartbeat.worker)
            while self.children or not self._may_end():
                self._wait(timers)
                self._obey_signals()
                for timer in timers:
                    if time.monotonic() >= timer.due_at:
                        self._guarded(timer.run)
                self._replace_children()
                self._drive_shutdown()
        finally:
            self.fence.stop()
            self.watchdog.stop()
            for child in self.children:
                child.kill()
            self.launcher.close()
            self._guarded(self._go_down)
            self.detector.close()
            worker_stopped.send_robust(self.sender, worker=self.heartbeat.worker)
        return self.exit_code

    def _come_up(self) -> None:
        self.heartbeat.begin(self.operations.now())
        self._read_queues()
        if self.plan.scheduler:
            try:
                log_changes(sync(self.backend))
            except InvalidSchedule as error:
                # Those that are there already go on.
                logger.error("The schedules are not brought up to date: %s", error)

    def _go_down(self) -> None:
        self.recovery.go_on()
        self.ledger.write()
        self.heartbeat.end(self.totals())

    def _may_end(self) -> bool:
        return self.state == WorkerState.STOPPING

    def totals(self) -> dict[str, int]:
        """Return how many tasks of this worker ended how."""
        totals = dict(self.ended_counts)
        for child in self.children:
            for name, count in child.counts.items():
                totals[name] += count
        return totals

    def _timers(self) -> list[Timer]:
        lease = self.plan.lease
        timers = [
            Timer(lease / 6, self._renew),
            self.beats,
            Timer(1.0, self._read_queues),
            Timer(0.5, self._read_cancellations),
            Timer(1.0, self.recovery.go_on),
            Timer(1.0, self._watch_limits),
            self.statistics,
        ]
        if self.plan.maintenance:
            timers += [
                Timer(1.0, self._promote),
                Timer(1.0, self._sweep_limits),
                Timer(lease / 3, self._reap),
                Timer(5.0, self._prune),
                Timer(2.0, self._tidy),
                Timer(1.0, self._work_in_bulk),
            ]
        if self.plan.scheduler:
            timers.append(Timer(1.0, self._fire_schedules))
        if self.plan.reload:
            timers.append(Timer(1.0, self._watch_source))
        return timers

    # Waiting

    def _wait(self, timers: list[Timer]) -> None:
        """Wait until a timer is due, a child or a signal is heard, or there may be work."""
        until = min(timer.due_at for timer in timers)
        if self.stop_at is not None:
            until = min(until, self.stop_at, time.monotonic() + 0.1)
        if self._missing() > 0:
            until = min(until, time.monotonic() + 0.05)
        self._watch_detector()
        # An idle worker goes round here over a hundred times a second.
        interval = None if self.down else self.detector.interval
        select, changed, clock = self.selector.select, self.detector.changed, time.monotonic
        while True:
            timeout = until - clock()
            if interval is not None and interval < timeout:
                timeout = interval
            events = select(timeout if timeout > 0 else 0)
            for key, _ in events:
                if key.data is not None:
                    key.data()
            if not self.down:
                try:
                    if changed():
                        self._wake()
                        return
                except DatabaseError as error:
                    self._failed(error)
                    return
            if events or clock() >= until:
                return

    def _watch_detector(self) -> None:
        fd = self.detector.fileno()
        if fd != self._detector_fd:
            if self._detector_fd is not None:
                try:
                    self.selector.unregister(self._detector_fd)
                except (KeyError, ValueError, OSError):
                    pass
            self._detector_fd = fd
            if fd is not None:
                self.selector.register(fd, selectors.EVENT_READ, None)

    def _wake(self) -> None:
        """Have the idlest child look for work at once, and each other one a little later."""
        listening = [child for child in self.children if child.ready and not child.retiring]
        listening.sort(key=lambda child: child.board.held)
        for place, child in enumerate(listening):
            child.send("wake", place * STAGGER)

    # Children

    def _spawn(self) -> None:
        child = self.launcher.start()
        self.children.append(child)
        self.selector.register(child.pipe, selectors.EVENT_READ, lambda: self._hear(child))
        watched = self.launcher.watched(child)
        if watched not in self.selector.get_map():
            self.selector.register(watched, selectors.EVENT_READ, self._bury_the_dead)
        child.send("queues", self._queues_for_children())
        if self.fair:
            child.send("fair", self.fair)
        if self.own_session:
            child.send("session", True)
        if self.state == WorkerState.QUIET:
            child.send("quiet")
        # What the launcher heard of others' ends meanwhile, it won't hear again.
        self._bury_the_dead()

    def _hear(self, child: ChildProcess) -> None:
        if child not in self.children:
            return  # Buried by an event of the same round.
        messages = child.received()
        if not messages:
            # Its end of the pipe is closed; how it ended is told soon.
            self._unregister(child.pipe)
        for kind, *details in messages:
            if kind == "ready":
                if not self.children_were_ready:
                    self.beats.due_at = time.monotonic()
                child.ready = self.children_were_ready = True
                self.early_deaths = 0
                self._announce()
            elif kind in ("retiring", "replaced"):
                child.retiring = True
                # Who knows whether it will end: another takes its place at once.
                child.replaced = kind == "replaced"
                logger.info("Child %d is replaced: %s.", child.pid, details[0])
            elif kind == "counts":
                self._take_counts(child, *details)

    def _take_counts(
        self, child: ChildProcess, counts: dict[str, int], running: int, tally: Tally
    ) -> None:
        child.counts, child.running = counts, running
        if any(fingerprint not in self.causes for fingerprint in tally.failures):
            # A cause that is new is shown soon.
            if len(self.causes) > 1_000:
                self.causes.clear()
            self.causes.update(tally.failures)
            self.statistics.due_at = min(self.statistics.due_at, time.monotonic() + 1.0)
        self.ledger.pending.merge(tally)

    def _bury_the_dead(self) -> None:
        for child in self.launcher.ended():
            self._bury(child)
        if not self.launcher.works:
            logger.critical("The process that children are forked from has died.")
            self.exit_code = CRASHED
            self._stop(0.0)

    def _unregister(self, watched: Any) -> None:
        try:
            self.selector.unregister(watched)
        except (KeyError, ValueError, OSError):
            pass

    def _bury(self, child: ChildProcess) -> None:
        """Give back what a child that has ended held, and forget it."""
        if child not in self.children:
            return
        for kind, *details in child.received():
            if kind == "counts":
                self._take_counts(child, *details)
            elif kind in ("retiring", "replaced"):
                child.retiring = True
        self._forget(child)
        entries = child.entries()
        claim = child.board.announced_claim()
        fenced = child.pid in self.fence.killed
        self.fence.killed.discard(child.pid)
        overdue = self.watchdog.killed.pop(child.pid, frozenset())
        how = child.how_it_ended()
        if fenced:
            how = "was ended, as its leases could not be renewed"
        elif overdue:
            how = "was killed, as another task in it did not end in time"
        asked = child.retiring or self.state == WorkerState.STOPPING
        if not overdue and (entries or not (asked or self.plan.burst)):
            logger.warning("Child process %d %s.", child.pid, how)
        if not child.ready:
            self.early_deaths += 1
        if time.monotonic() - child.started_at < YOUNG and self.early_deaths and not asked:
            self.respawn_at = time.monotonic() + min(0.1 * 2**self.early_deaths, 30.0)
        if entries or claim is not None:
            # Fenced tasks did no harm: others run them again, and no loss is counted.
            # Nor did the neighbours of a task that was killed.
            self.recovery.add(
                entries,
                claim,
                f"its process {how}.",
                interrupted=fenced or bool(overdue),
                overdue=overdue,
            )
            self._guarded(self._recover)
        if self.early_deaths >= 5 and not self.children_were_ready:
            logger.critical("No child process came up; see above for why.")
            self.exit_code = CRASHED
            self._stop(0.0)
        if self.plan.burst and not self.children:
            self._stop(0.0)

    def _forget(self, child: ChildProcess) -> None:
        for name, count in child.counts.items():
            self.ended_counts[name] += count
        self.children.remove(child)
        self._unregister(child.pipe)
        child.pipe.close()

    def _replace_children(self) -> None:
        if self.state == WorkerState.STOPPING or time.monotonic() < self.respawn_at:
            return
        if self.plan.burst:
            return
        for _ in range(self._missing()):
            self._spawn()

    def _missing(self) -> int:
        return self.plan.processes - sum(not child.replaced for child in self.children)

    def _task_failed(self, task_id: str) -> None:
        """Have a child announce a task that failed because its process died."""
        self.ended_counts["failed"] += 1
        self.ledger.lost.append(task_id)
        self.unannounced.append(task_id)
        self._announce()

    def _announce(self) -> None:
        """Have a child send task_finished for what no child could announce."""
        listener = next((c for c in self.children if c.ready and not c.retiring), None)
        if listener is not None:
            for task_id in self.unannounced:
                listener.send("announce", task_id)
            self.unannounced.clear()
            if self.enqueued:
                listener.send("enqueued", self.enqueued)
                self.enqueued = []

    def _recover(self) -> None:
        self.recovery.go_on()
        self._wake()

    # Duties

    def _held(self) -> dict[str, str]:
        return {e.id: e.claim_id for child in self.children for e in child.entries()}

    def _holders(self) -> list[int]:
        return [child.pid for child in list(self.children) if child.entries()]

    def _renew(self) -> None:
        asked_at = boot_clock()
        held = self._held()
        if held:
            kept = self.operations.renew(held.items(), self.plan.lease)
            if len(kept) < len(held):
                self._lost_claims(set(held) - kept, held)
            self.operations.pause()
        elif self.down:
            self.operations.now()
        self.contact.made(asked_at)

    def _lost_claims(self, ids: set[str], held: dict[str, str]) -> None:
        """End children that run what others have taken over."""
        for child in self.children:
            for entry in child.entries():
                # What has ended meanwhile is no loss.
                if (
                    entry.id in ids
                    and entry.claim_id == held[entry.id]
                    and entry.stage == Stage.STARTED
                    and not self.operations.renew([(entry.id, entry.claim_id)], self.plan.lease)
                    and any(e == entry for e in child.entries())
                ):
                    logger.error(
                        "Others have taken over task %s; its process %d is ended.",
                        entry.id,
                        child.pid,
                    )
                    child.kill()
                    break

    def _fenced(self, silence: float) -> None:
        logger.error(
            "No lease could be renewed for %.1f s: the running tasks are ended, "
            "before others take them over.",
            silence,
        )

    def _beat(self) -> None:
        before = time.time()
        now = self.operations.now()
        self.heartbeat.beat(
            now,
            self.state,
            sum(child.running for child in self.children),
            self.totals(),
            memory=self._memory(),
            clock_offset=(before + time.time()) / 2 - now.timestamp(),
            is_up=self.children_were_ready,
        )
        self._obey_request(*self.heartbeat.request())

    def _read_queues(self) -> None:
        paused = self.heartbeat.paused_queues(self.plan.queues)
        if paused != self.paused:
            for name in sorted(paused - self.paused):
                logger.info("Queue %r is paused.", name)
            for name in sorted(self.paused - paused):
                logger.info("Queue %r is resumed.", name)
            self.paused = paused
            for child in self.children:
                child.send("queues", self._queues_for_children())
        if self.detector.keeps_session != self.own_session:
            self.own_session = self.detector.keeps_session
            for child in self.children:
                child.send("session", self.own_session)
        if any(child.board.held for child in self.children):
            # Nobody's turn matters while nothing runs.
            self._look_for_fair_keys()

    def _look_for_fair_keys(self) -> None:
        fair = frozenset(name for name in self._queues() if self.operations.has_fair(name))
        if fair != self.fair:
            self.fair = fair
            for child in self.children:
                child.send("fair", fair)

    def _read_cancellations(self) -> None:
        """Tell children which of their tasks somebody has asked to end."""
        held = {e.id: child for child in self.children for e in child.entries()}
        self.told_to_end = {told for told in self.told_to_end if told[0] in held}
        if not held:
            return
        for task_id, reason, force in transitions.requests_to_end(self.alias, held):
            if (task_id, force) not in self.told_to_end:
                self.told_to_end.add((task_id, force))
                held[task_id].send("cancel", task_id, reason, force)

    def _queues(self) -> list[str]:
        """Return the queues that are served now."""
        if self.plan.any_queue:
            away = {*self.paused, *self.plan.excluded}
            return [name for name in self.operations.queue_names() if name not in away]
        return [name for name in self.plan.queues if name not in self.paused]

    def _queues_for_children(self) -> list[str]:
        if self.plan.any_queue:
            return sorted({*self.paused, *self.plan.excluded})
        return self._queues()

    def _promote(self) -> float | None:
        queues, next_due = maintenance.promote_due(self.alias)
        if queues:
            self._wake()
            wakeups.wake(self.alias, *queues)
            self.operations.pause()
        return next_due

    def _fire_schedules(self) -> float | None:
        if self.state == WorkerState.STOPPING:
            return None
        fired = self.scheduler.fire_due()
        if fired.ids:
            # The receivers of signals are the project's code, which runs in children alone.
            self.enqueued += fired.ids
            self._announce()
        if fired.queues:
            self._wake()
            wakeups.wake(self.alias, *fired.queues)
        if fired.ids:
            self.operations.pause()
        return fired.next_in

    def _sweep_limits(self) -> None:
        queues, self.sweep_after = limits.sweep(
            self.alias,
            self._queues_for_children(),
            self.sweep_after,
            any_but=self.plan.any_queue,
        )
        if queues:
            self._wake()
            wakeups.wake(self.alias, *queues)
            self.operations.pause()

    def _reap(self) -> None:
        # Only after a lease of contact, and never again if it fails: right after an
        # outage no lease is fresh.
        if self.contact.unbroken() < self.plan.lease:
            return
        count, rescue = maintenance.reap(
            self.alias, lease=self.plan.lease, max_lost=self.backend.conf.max_lost
        )
        if count:
            self.recovery.tell(rescue, "nothing was heard of its worker for a whole lease.")
            self._wake()

    def _prune(self) -> None:
        conf = self.backend.conf
        if not maintenance.take_duty(self.alias, "prune", maintenance.PRUNE_INTERVAL):
            return
        count = maintenance.prune(
            self.alias, successful=conf.retain_successful, failed=conf.retain_failed
        )
        maintenance.forget_workers(self.alias)
        maintenance.forget_keys(self.alias)
        maintenance.forget_runs(self.alias)
        maintenance.merge_statistics(self.alias)
        if count:
            logger.info("Pruned %d old results.", count)

    def _work_in_bulk(self) -> float | None:
        batch = None if self.state == WorkerState.STOPPING else bulk.work(self.alias)
        if batch is None:
            return None
        if batch.done:
            self._wake()
        return batch.more_in

    def _write_statistics(self) -> None:
        self.ledger.write()

    def _tidy(self) -> None:
        ended = sum(self.totals().values())
        if ended - self.tidied_at >= maintenance.TIDY_TASKS:
            self.tidied_at = ended
            maintenance.tidy(self.alias)

    def _watch_limits(self) -> None:
        plan = self.plan
        if self.state == WorkerState.STOPPING:
            return
        ended = sum(self.totals().values())
        if plan.max_tasks is not None and ended >= plan.max_tasks:
            why = f"{ended} task{'s have' if ended != 1 else ' has'} run"
        elif (
            plan.max_runtime is not None and time.monotonic() - self.started_at >= plan.max_runtime
        ):
            why = f"it ran for {plan.max_runtime:g} s"
        elif plan.max_memory is not None and self._memory() > plan.max_memory:
            why = f"it takes {self._memory() / 2**20:.0f} MiB of memory"
        else:
            return
        logger.info("The worker finishes: %s.", why)
        self._stop(plan.shutdown_timeout)

    def _memory(self) -> int:
        return sum(resident_memory(pid) for pid in (os.getpid(), *(c.pid for c in self.children)))

    def _watch_source(self) -> None:
        from .reloading import changed_file, snapshot

        if self._source_snapshot is None:
            self._source_snapshot = snapshot()
        elif self.state != WorkerState.STOPPING:
            path = changed_file(self._source_snapshot)
            if path is not None:
                logger.info("%s changed; the worker restarts.", path)
                self.exit_code = RELOAD
                self._stop(self.plan.shutdown_timeout)

    # When the database fails

    def _guarded(self, duty: Callable[[], Any]) -> None:
        """Do a duty; outlive what it raises."""
        try:
            duty()
        except Exception as error:
            self._failed(error)
        else:
            if self.down and self.contact.lost_at is None:
                self.down = False
                logger.warning("The database is back.")
                self._wake()

    def _failed(self, error: Exception) -> None:
        reset_connection(connections[self.alias])
        self.contact.lost()
        if classify(error) is not FailureKind.TRANSIENT:
            logger.error("A duty of the supervisor failed.", exc_info=error)
        elif not self.down:
            logger.warning("The database can't be reached; waiting for it: %s", error)
        self.down = True

    # Signals and shutdown

    def _obey_signals(self) -> None:
        requests = self.requests
        if requests.stacks:
            requests.stacks = False
            faulthandler.dump_traceback(all_threads=True)
            for child in self.children:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGUSR2)
        if requests.quiet:
            self._become_quiet()
        if requests.at_once or requests.stops > 1:
            if self.exit_code != FORCED:
                self.exit_code = FORCED
                self._stop(0.0)
        elif requests.stops and not self.stop_heard:
            self.stop_heard = True
            self._finish("the same signal again hands them back")

    def _obey_request(self, request: str, by: str) -> None:
        """Do what somebody asks for in the worker's row."""
        who = by or "Somebody"
        if request == WorkerRequest.QUIET and self.state == WorkerState.RUNNING:
            logger.info("%s asks this worker to take no more tasks.", who)
            self._become_quiet()
        elif request == WorkerRequest.STOP and self.state != WorkerState.STOPPING:
            logger.info("%s asks this worker to stop.", who)
            self._finish("SIGTERM twice hands them back")
            self._guarded(self._beat)

    def _become_quiet(self) -> None:
        if self.state != WorkerState.RUNNING:
            return
        self.state = WorkerState.QUIET
        logger.info("Quiet: no more tasks are taken.")
        for child in self.children:
            child.send("quiet")
        self._guarded(self._beat)

    def _finish(self, how_to_hurry: str) -> None:
        running = sum(
            entry.stage == Stage.STARTED for child in self.children for entry in child.entries()
        )
        if running:
            logger.info(
                "Finishing %d running task%s (%s) …",
                running,
                "" if running == 1 else "s",
                how_to_hurry,
            )
        self._stop(self.plan.shutdown_timeout)

    def _stop(self, patience: float) -> None:
        """Have the children finish, for at most patience seconds."""
        at = time.monotonic() + patience
        self.stop_at = at if self.stop_at is None else min(self.stop_at, at)
        if self.state != WorkerState.STOPPING:
            self.state = WorkerState.STOPPING
            for child in self.children:
                child.send("stop")

    def _drive_shutdown(self) -> None:
        if self.stop_at is None or time.monotonic() < self.stop_at:
            return
        # All are killed first, and forgotten as those are that die by themselves,
        # but what they ran is handed back unharmed.
        for child in self.children:
            child.kill()
        deadline = time.monotonic() + 5
        dead: list[ChildProcess] = []
        while len(dead) < len(self.children) and time.monotonic() < deadline:
            dead += self.launcher.ended()
            time.sleep(0.005)
        for child in list(self.children):
            for kind, *details in child.received():
                if kind == "counts":
                    self._take_counts(child, *details)
            entries = child.entries()
            claim = child.board.announced_claim()
            if entries:
                count = len(entries)
                logger.info("Handing back %d task%s.", count, "" if count == 1 else "s")
            self.recovery.add(entries, claim, "the worker was stopped.", interrupted=True)
            self._forget(child)
        self._guarded(self._recover)
