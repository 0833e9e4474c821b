"""What children that died held: given back unharmed, run again, or failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .. import transitions
from ..models import QueuedTask
from ..signals import task_released, task_rescued
from . import maintenance
from .board import Entry, Stage

logger = logging.getLogger("django_bgtasks.worker")

#: How long a claim whose child died may still be committed by the server, in seconds.
DOUBT = 10.0


class Recovery:
    """
    Rescues for one supervisor.

    What fails with the database is kept, and done when go_on() is called
    again. failed is called with the id of a task that has failed by this.
    """

    def __init__(self, alias: str, backend: Any, failed: Callable[[str], None]) -> None:
        self._alias = alias
        self._backend = backend
        self._failed = failed
        self._pending: list[Callable[[], None]] = []
        # Claims that were on their way when their child died, until when, known ids.
        self._doubtful: list[tuple[str, float, list[str]]] = []

    def add(
        self,
        entries: Sequence[Entry],
        claim: str | None,
        why: str,
        *,
        interrupted: bool = False,
        overdue: Collection[str] = (),
    ) -> None:
        """
        Take over what a dead child held.

        What had not begun is unharmed; with interrupted, what had begun is, too.
        overdue are the ids of those for which the child was killed. claim is the
        claim that was on its way.
        """
        unharmed: list[Entry] = []
        lost: list[Entry] = []
        late: list[Entry] = []
        for entry in entries:
            if entry.id in overdue:
                late.append(entry)
                continue
            begun = entry.stage == Stage.STARTED and not interrupted
            (lost if begun else unharmed).append(entry)
        if late:
            self._pending.append(lambda: self._end_overdue(late))
        if unharmed or lost:
            self._pending.append(lambda: self._give_back(unharmed, lost, why, interrupted))
        if claim is not None:
            known = [entry.id for entry in entries]
            self._doubtful.append((claim, time.monotonic() + DOUBT, known))

    def go_on(self) -> None:
        """Do what is pending; look again for claims that the server committed late."""
        while self._pending:
            self._pending[0]()
            self._pending.pop(0)
        for claim, _, known in self._doubtful:
            transitions.release_claim(self._alias, claim, known=known)
        now = time.monotonic()
        self._doubtful = [doubt for doubt in self._doubtful if doubt[1] > now]

    def _give_back(
        self, unharmed: list[Entry], lost: list[Entry], why: str, interrupted: bool
    ) -> None:
        keep = self._must_not_run_again(unharmed)
        back = [(e.id, e.claim_id) for e in unharmed if e.id not in keep]
        reason = why if interrupted else ""
        if back and transitions.release(self._alias, back, reason=reason):
            task_released.send_robust(
                type(self._backend), task_ids=[pk for pk, _ in back], reason=why
            )
        gone = [(e.id, e.claim_id) for e in [*lost, *(u for u in unharmed if u.id in keep)]]
        if gone:
            self.tell(
                transitions.rescue(
                    self._alias,
                    gone,
                    why=why,
                    max_lost=self._backend.conf.max_lost,
                    fails_when_lost=maintenance.fails_when_lost,
                ),
                why,
            )

    def _end_overdue(self, late: list[Entry]) -> None:
        why = "It did not end within the grace after its timeout, or when told to; its process "
        ended = transitions.end_overdue(
            self._alias,
            [(entry.id, entry.claim_id) for entry in late],
            why=f"{why}was killed.",
            pause=maintenance.pause_after_timeout,
        )
        for task_id in ended.again:
            logger.warning("Task %s will be retried.", task_id, extra={"task_id": task_id})
        for task_id in ended.failed:
            self._failed(task_id)

    def _must_not_run_again(self, unharmed: list[Entry]) -> set[str]:
        """Return ids of tasks that ran unrecorded and have on_lost="fail"."""
        ran = sorted(entry.id for entry in unharmed if entry.stage != Stage.CLAIMED)
        if not ran:
            return set()
        rows = QueuedTask.objects.using(self._alias).filter(pk__in=ran)
        return {str(row.pk) for row in rows if maintenance.fails_when_lost(row)}

    def tell(self, rescue: transitions.Rescue, why: str) -> None:
        """Log and announce a rescue."""
        for task_id in rescue.again:
            logger.warning("Task %s runs again: %s", task_id, why, extra={"task_id": task_id})
        for task_id in rescue.failed:
            logger.error("Task %s failed: %s", task_id, why, extra={"task_id": task_id})
            self._failed(task_id)
        ids = [*rescue.again, *rescue.failed]
        if ids:
            task_rescued.send_robust(type(self._backend), task_ids=ids, reason=why)
