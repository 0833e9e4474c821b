"""Rows in the states that tests begin with, by the transitions that lead there."""

import json

from django.utils import timezone

from django_bgtasks.db import ClaimRequest, Ending, operations_for
from django_bgtasks.ids import new_id


def claim(queues=("default", "emails", "reports"), *, limit=10, alias="default", **options):
    """Claim READY tasks as a worker would; return them."""
    options = {"claim_id": new_id(), "worker_id": "w1", "lease": 30, **options}
    request = ClaimRequest(queues=queues, limit=limit, **options)
    return operations_for(alias).exchange([], request).claimed


def end(claimed, *, alias="default", value=None, error=None, reason=""):
    """End a claimed task: SUCCESSFUL with value, or FAILED with an exception's class path."""
    errors = None
    if error is not None:
        entry = {
            "attempt": claimed.attempt,
            "worker_id": claimed.worker_id,
            "started_at": None,
            "ended_at": None,
            "exception_class_path": error,
            "traceback": f"Traceback (most recent call last):\n{error}: as the worker saw it\n",
        }
        errors = json.dumps([*json.loads(claimed.errors or "[]"), entry])
    failed = error is not None or bool(reason)
    ending = Ending(
        id=claimed.id,
        claim_id=claimed.claim_id,
        status="FAILED" if failed else "SUCCESSFUL",
        finished_at=timezone.now(),
        return_value=None if failed else json.dumps(value),
        errors=errors,
        failures=int(error is not None),
        reason=reason,
    )
    assert operations_for(alias).exchange([ending], None).ended == {claimed.id}


def succeed(result, value=None):
    """Take result's task through a run that returns value."""
    end(_claimed(result), alias=result.database, value=value)
    return result


def fail(result, error="builtins.ValueError", *, reason=""):
    """Take result's task through a run that raises, or that ends for reason alone."""
    error = None if reason else error
    end(_claimed(result), alias=result.database, error=error, reason=reason)
    return result


def _claimed(result):
    (found,) = [
        row
        for row in claim((result.task.queue_name,), alias=result.database)
        if row.id == result.id
    ]
    return found
