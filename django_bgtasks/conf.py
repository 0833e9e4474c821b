"""
Every option of TASKS[alias]["OPTIONS"] once: name, default, unit, validator.

docs/reference/settings.md is compared with OPTIONS by a test.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean '...'?" when a known name is close, else ''."""
    close = difflib.get_close_matches(name, sorted(known), 1)
    if not close:
        close = [k for k in known if k.lower() == name.lower()]
    return f" Did you mean {close[0]!r}?" if close else ""


def _whole(minimum: int) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
            return None
        return f"must be a whole number of at least {minimum}"

    return problem


def _seconds(minimum: float) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= minimum:
            return None
        return f"must be seconds or a timedelta, at least {minimum:g} s"

    return problem


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be True or False"


def _alias(value: Any) -> str | None:
    from django.db import connections

    if value in connections.settings:
        return None
    return f"must be a key of DATABASES ({', '.join(connections.settings)})"


def _names(value: Any) -> str | None:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return None
    return "must be a list of strings"


def _function(value: Any) -> str | None:
    from django.utils.module_loading import import_string

    try:
        if isinstance(value, str) and callable(import_string(value)):
            return None
    except ImportError:
        pass
    return "must be the path of a function that can be imported, such as 'shop.progress.may_see'"


def _renames(value: Any) -> str | None:
    if isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in value.items()
    ):
        return None
    return "must be a dictionary of old task paths to new ones"


def _dictionaries(value: Any) -> str | None:
    if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
        return None
    return "must be a list of dictionaries"


@dataclass(frozen=True, slots=True)
class Option:
    """One option; problem(value) says what is wrong with a value, or None."""

    name: str
    default: Any
    unit: str
    meaning: str
    problem: Callable[[Any], str | None]
    optional: bool = False
    #: Whether no message shows its value.
    secret: bool = False


OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option(
            "DATABASE",
            None,
            "alias",
            "The database of the tasks. None: where the router writes django_bgtasks' models.",
            _alias,
            optional=True,
        ),
        Option(
            "MAX_ARGUMENT_SIZE",
            65_536,
            "bytes",
            "The most that the arguments of one task may take as JSON.",
            _whole(64),
        ),
        Option(
            "MAX_RESULT_SIZE",
            1_048_576,
            "bytes",
            "The most that a return value may take as JSON; a task that returns more fails.",
            _whole(64),
        ),
        Option(
            "MAX_WORKFLOW_SIZE",
            50_000,
            "tasks",
            "The most tasks that one workflow may have.",
            _whole(1),
        ),
        Option(
            "MAX_PREVIOUS_SIZE",
            8_388_608,
            "bytes",
            "The most that the results of its parents may take as JSON for one task of a workflow.",
            _whole(64),
        ),
        Option(
            "MAX_TRACEBACK_SIZE",
            65_536,
            "characters",
            "Longer tracebacks lose their middle.",
            _whole(1_000),
        ),
        Option(
            "PROCESSES",
            None,
            "processes",
            "Child processes of a worker. None: one a CPU, at most four.",
            _whole(1),
            optional=True,
        ),
        Option("THREADS", 1, "threads", "Tasks that a child process runs at once.", _whole(1)),
        Option(
            "ASYNC_CONCURRENCY",
            50,
            "tasks",
            "async def tasks that a child process runs at once.",
            _whole(1),
        ),
        Option(
            "LEASE",
            None,
            "seconds",
            "After this time without news of a worker, others take over its tasks. "
            "None: 30, on SQLite 60.",
            _seconds(1),
            optional=True,
        ),
        Option(
            "POLL_INTERVAL",
            1.0,
            "seconds",
            "How long an idle worker waits before it looks again, if nothing wakes it.",
            _seconds(0.01),
        ),
        Option(
            "SHUTDOWN_TIMEOUT",
            30.0,
            "seconds",
            "How long a stopping worker waits for its running tasks.",
            _seconds(0),
        ),
        Option(
            "LISTEN",
            True,
            "",
            "Use LISTEN and NOTIFY on PostgreSQL. False: poll only.",
            _boolean,
        ),
        Option(
            "MAX_LOST",
            3,
            "times",
            "A task whose process died this often under it fails with WorkerLost.",
            _whole(1),
        ),
        Option(
            "GRACE",
            10.0,
            "seconds",
            "How long after its timeout, or a forced cancel, a task may take to end before "
            "its process is killed.",
            _seconds(0),
        ),
        Option(
            "CAPTURE_LOG",
            16_384,
            "characters",
            "How much of what a task logs is kept with its attempt. 0: nothing.",
            _whole(0),
        ),
        Option(
            "LATENCY_TARGET",
            300.0,
            "seconds",
            "How long the oldest ready task of a queue may wait before the queue counts as late. "
            "The admin changes it for one queue.",
            _seconds(1),
        ),
        Option(
            "ENCRYPTION_KEYS",
            (),
            "",
            "Fernet keys: arguments, results and steps are stored encrypted with the first; "
            "the others decrypt what is older.",
            _names,
            secret=True,
        ),
        Option(
            "UNKNOWN_TASK_GRACE",
            None,
            "seconds",
            "How long a task that this code doesn't know is put off before it fails. "
            "None: for ever.",
            _seconds(0),
            optional=True,
        ),
        Option(
            "RETAIN_SUCCESSFUL",
            7 * 86_400.0,
            "seconds",
            "How long successful results are kept. None: for ever.",
            _seconds(0),
            optional=True,
        ),
        Option(
            "RETAIN_FAILED",
            30 * 86_400.0,
            "seconds",
            "How long failed and cancelled results are kept. None: for ever.",
            _seconds(0),
            optional=True,
        ),
        Option(
            "RECYCLE_TASKS",
            None,
            "tasks",
            "A child process that ran so many is replaced.",
            _whole(1),
            optional=True,
        ),
        Option(
            "RECYCLE_AFTER",
            None,
            "seconds",
            "A child process of this age is replaced.",
            _seconds(0.1),
            optional=True,
        ),
        Option(
            "RECYCLE_MEMORY",
            None,
            "bytes",
            "A child process with more resident memory is replaced.",
            _whole(1_048_576),
            optional=True,
        ),
        Option(
            "ALIASES",
            {},
            "",
            "Old task paths and what they are now, for tasks enqueued before a rename.",
            _renames,
        ),
        Option(
            "SCHEDULES",
            (),
            "",
            "Schedules, each a dictionary with task, when and the options of @schedule.",
            _dictionaries,
        ),
        Option(
            "TASK_MODULES",
            (),
            "",
            "Modules with tasks besides the tasks module of each app; imported by the worker.",
            _names,
        ),
        Option(
            "PROGRESS_PERMISSION",
            None,
            "",
            "A function of a request and a result that says whether the one may see how far the "
            "other is. None: for whom the link was made.",
            _function,
            optional=True,
        ),
        Option(
            "PROGRESS_DETAILS",
            None,
            "",
            "A function of a request and a result; what it returns, a dictionary, is added to the "
            "answer about progress.",
            _function,
            optional=True,
        ),
        Option(
            "PROGRESS_MAX_AGE",
            86_400.0,
            "seconds",
            "How long the address of a progress bar can be used. None: for ever.",
            _seconds(1),
            optional=True,
        ),
    )
}


class Options:
    """The options of one backend as attributes in lower case, durations in seconds."""

    database: str | None
    max_argument_size: int
    max_result_size: int
    max_workflow_size: int
    max_previous_size: int
    max_traceback_size: int
    processes: int | None
    threads: int
    async_concurrency: int
    lease: float | None
    poll_interval: float
    shutdown_timeout: float
    listen: bool
    max_lost: int
    grace: float
    capture_log: int
    latency_target: float
    encryption_keys: tuple[str, ...]
    unknown_task_grace: float | None
    retain_successful: float | None
    retain_failed: float | None
    recycle_tasks: int | None
    recycle_after: float | None
    recycle_memory: int | None
    aliases: Mapping[str, str]
    schedules: Sequence[Mapping[str, Any]]
    task_modules: tuple[str, ...]
    progress_permission: str | None
    progress_details: str | None
    progress_max_age: float | None

    def __init__(self, given: Mapping[str, Any]) -> None:
        for option in OPTIONS.values():
            value = given.get(option.name, option.default)
            if isinstance(value, timedelta):
                value = value.total_seconds()
            setattr(self, option.name.lower(), value)


def problems(alias: str, given: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each option of TASKS[alias] that is unknown or wrong."""
    found = []
    for name, value in given.items():
        option = OPTIONS.get(name)
        if option is None:
            found.append(
                f"Unknown option {name!r} in TASKS[{alias!r}]['OPTIONS']."
                f"{suggestion(str(name).upper(), OPTIONS)}"
            )
        elif not (value is None and option.optional) and (problem := option.problem(value)):
            shown = f"not a {type(value).__name__}" if option.secret else f"not {value!r}"
            found.append(f"TASKS[{alias!r}]['OPTIONS'][{name!r}] {problem}, {shown}.")
    return found
