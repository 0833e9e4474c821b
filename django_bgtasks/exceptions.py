"""One class for each failure that a caller may want to tell apart."""


class InvalidArguments(TypeError):
    """The arguments of an enqueue don't fit the function or can't be stored as JSON."""


class ArgumentsTooLarge(InvalidArguments):
    """The arguments of an enqueue take more bytes than MAX_ARGUMENT_SIZE."""


class ResultNotStorable(Exception):
    """What a task returned can't be stored as JSON; the task has failed."""


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
