"""One class for each failure that a caller may want to tell apart."""

from __future__ import annotations

from collections.abc import Mapping


class InvalidArguments(TypeError):
    """The arguments of an enqueue don't fit the function or can't be stored as JSON."""


class ArgumentsTooLarge(InvalidArguments):
    """The arguments of an enqueue take more bytes than MAX_ARGUMENT_SIZE."""


class ResultNotStorable(Exception):
    """What a task returned can't be stored as JSON; the task has failed."""


class InvalidSchedule(ValueError):
    """
    What a schedule says can't be right.

    problems has a sentence for each field that is wrong.
    """

    def __init__(self, name: str, problems: Mapping[str, str]) -> None:
        super().__init__(f"Schedule {name!r}: {' '.join(problems.values())}")
        self.problems = dict(problems)


class TablesMissing(Exception):
    """The tables of django_bgtasks don't exist in the database of the backend."""


class TaskFailed(Exception):
    """The task whose value was asked for has failed. Its traceback is a note of this."""


class TaskCancelled(TaskFailed):
    """The task whose value was asked for has been cancelled."""


class WaitTimeout(TimeoutError):
    """The task didn't finish within the time that the caller was ready to wait."""


class WaitInTransaction(RuntimeError):
    """The task waited for was enqueued in the transaction that is still open."""


class WorkerLost(Exception):
    """The process that ran the task died, or nothing was heard of it for a whole lease."""


class UnknownTask(Exception):
    """No Task is found at the path that is stored with the row."""


class WrongState(Exception):
    """The transition asked for doesn't start from the state that the task is in."""


class DuplicateTask(Exception):
    """
    A task of the same unique key waits, runs, or was enqueued within the period.

    result is that one's.
    """

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result


class TaskInterrupted(BaseException):
    """
    What is raised in a task that shall end. Catch it to clean up; raise it again.

    No Exception, so that a loop that logs each Exception and goes on ends, too.
    """


class TaskTimeout(TaskInterrupted):
    """The attempt takes longer than its timeout."""


class CancelRequested(TaskInterrupted):
    """The task is to be cancelled."""


class ClaimLost(TaskInterrupted):
    """Others have taken the task over: nothing that this attempt does counts any more."""


class RetryRequested(TaskInterrupted):
    """
    context.retry() or context.snooze() was called.

    delay is in seconds, None for the task's own backoff; spends_attempt says
    whether this counts against max_attempts.
    """

    def __init__(self, delay: float | None, reason: str, *, spends_attempt: bool) -> None:
        super().__init__(reason)
        self.delay = delay
        self.reason = reason
        self.spends_attempt = spends_attempt


class InvalidWorkflow(ValueError):
    """A chain, group or graph can't be enqueued as it is; nothing was written."""


class WorkflowTooLarge(InvalidWorkflow):
    """A workflow has more tasks than MAX_WORKFLOW_SIZE."""


class NotInWorkflow(RuntimeError):
    """context.workflow was asked for by a task that belongs to none."""

    ADVICE = (
        "This task belongs to no workflow. Enqueue it as chain(task.with_args(...)), so that it "
        "can add tasks to its own."
    )


class WorkflowDoesNotExist(LookupError):
    """There is no workflow of this id, or it was pruned."""


class PreviousNotUsable(Exception):
    """What the parents of a task returned can't be put where `previous` stands."""


class StepFailed(Exception):
    """A step can't be kept: its name was used before in this attempt, or its value isn't JSON."""


class Undecipherable(Exception):
    """A stored value is encrypted with a key that isn't in OPTIONS["ENCRYPTION_KEYS"]."""
