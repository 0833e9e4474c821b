"""Durable steps: what a task has done, kept with the work itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError
from django.utils import timezone

from .arguments import encode_result
from .db import operations_for
from .encryption import opened, sealer
from .exceptions import ClaimLost, StepFailed
from .models.queued import QueuedTask
from .models.step import Step
from .states import LiveStatus


@dataclass(slots=True)
class Steps:
    """The steps of one attempt, which holds task_id under claim_id."""

    alias: str
    task_id: str
    claim_id: str
    attempt: int
    conf: Any
    used: set[str] = field(default_factory=set)

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """
        Return what function returned when it completed first; call it if it never did.

        In one transaction: function's own work, the note, and the question
        whether the claim is still ours.
        """
        found, value = self.kept(name)
        if found:
            return value
        operations = operations_for(self.alias)
        nested = operations.connection.in_atomic_block

        def unit() -> Any:
            with operations.step():
                return self._keep(name, function(), nested=nested)

        # A conflict with another transaction undid it: it is made again.
        return unit() if nested else operations.retrying(unit)

    def keep(self, name: str, value: Any) -> Any:
        """Note a step that has completed; return its value as later attempts are given it."""
        with operations_for(self.alias).step():
            return self._keep(name, value, nested=False)

    def kept(self, name: str) -> tuple[bool, Any]:
        """Return whether a step completed in an earlier attempt, and its value."""
        if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
            raise StepFailed(f"A step needs a name of 1 to 100 printable characters, not {name!r}.")
        if name in self.used:
            raise StepFailed(
                f"The step {name!r} was taken before in this attempt. Give each its own name, "
                f'such as f"{name}-{{number}}" in a loop.'
            )
        self.used.add(name)
        row = Step.objects.using(self.alias).filter(task_id=self.task_id, name=name).first()
        return (False, None) if row is None else (True, opened(row.value, self.conf))

    def _keep(self, name: str, value: Any, *, nested: bool) -> Any:
        try:
            encoded = encode_result(f"The step {name!r}", value, self.conf.max_result_size)
        except ValueError as error:
            raise StepFailed(str(error)) from None
        mine = QueuedTask.objects.using(self.alias).filter(
            pk=self.task_id, claim_id=self.claim_id, status=LiveStatus.RUNNING
        )
        if not nested:
            # Locked until the commit, which follows: nobody takes the task over in
            # between. Within a longer transaction the lock would keep the worker from
            # renewing its leases; there two that note the same step can't both commit.
            mine = mine.select_for_update()
        if not mine.values_list("pk", flat=True):
            raise ClaimLost(f"Others have taken the task over; the step {name!r} is undone.")
        seal = sealer(self.conf)
        try:
            Step.objects.using(self.alias).create(
                task_id=self.task_id,
                name=name,
                value=json.loads(seal(encoded) if seal else encoded),
                attempt=self.attempt,
                made_at=timezone.now(),
            )
        except IntegrityError:
            raise ClaimLost(f"Another attempt has made the step {name!r}; it is undone.") from None
        return json.loads(encoded)
