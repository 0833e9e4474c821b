"""One claimed task, from the call to what came of it."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.utils import timezone

from .. import fingerprints, registry
from ..arguments import encode_result, secrets_in, without_secrets
from ..compat import TaskResultStatus, task_finished, task_started
from ..context import DatabaseTaskContext, enter, leave
from ..db import ClaimedTask, Ending, operations_for
from ..encryption import UNREADABLE, opened, readable, sealer
from ..exceptions import (
    CancelRequested,
    ClaimLost,
    ResultNotStorable,
    RetryRequested,
    TaskInterrupted,
    Undecipherable,
    UnknownTask,
)
from ..results import DatabaseTaskResult, build_result
from ..signals import task_retried
from ..states import FinalStatus, LiveStatus
from ..transitions import end, is_member
from ..workflows import values
from .capture import tracebacks_as
from .connections import clean_connections, reset_connections
from .observers import is_observed, log_receiver_errors
from .run import State, WorkersRun, is_coroutine_function
from .tracebacks import format_error, one_line, storable

logger = logging.getLogger("django_bgtasks.worker")

#: Errors before the last so many lose their traceback, so that a row stays small.
KEPT_TRACEBACKS = 10
#: An unknown task is put off for 30 s, 60 s, ... at most 10 minutes.
UNKNOWN_DELAYS = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0)

_made = threading.Lock()


class Execution(WorkersRun):
    """
    A task that a child holds.

    run() or arun() calls the function and never raises; afterwards ending,
    retry_delay or put_off_delay says what is to be written, unless written or
    superseded says that nothing is, and announce() tells the world once that
    is written.
    """

    __slots__ = (
        "_result",
        "ending",
        "errors",
        "exception",
        "failures",
        "filled",
        "has_run",
        "holds_a_place",
        "noted",
        "place",
        "put_off_delay",
        "reason",
        "retry_delay",
        "seconds",
        "superseded",
        "thread",
        "written",
    )

    def __init__(self, row: ClaimedTask, backend: Any, place: int) -> None:
        self.row = row
        self.backend = backend
        self.place = place
        self.task: Any = None
        self.options: Mapping[str, Any] | None = None
        self.began: datetime | None = None
        self.seconds = 0.0
        self.exception: BaseException | None = None
        self.ending: Ending | None = None
        self.retry_delay: float | None = None
        self.put_off_delay: float | None = None
        self.failures = row.failures
        self.errors = row.errors
        self.reason = ""
        self.has_run = False
        #: Whether others wait for its end at a concurrency key.
        self.holds_a_place = False
        #: Its outcome, if that is no ending, is written.
        self.noted = False
        #: Whether the task's own code runs, and where: in a thread, or a loop's task.
        self.interruptible = False
        self.thread: int | None = None
        self.coroutine: tuple[Any, Any] | None = None
        #: The outcome is in the database already, with the task's own work.
        self.written = False
        #: Others have the task: nothing is to be written.
        self.superseded = False
        #: The arguments with what parents returned in their places.
        self.filled: tuple[list[Any], dict[str, Any]] | None = None
        self._result: DatabaseTaskResult | None = None
        self._state: State | None = None

    def resolve(self) -> None:
        """Find the task; what went wrong is kept for run()."""
        row = self.row
        conf = self.backend.conf
        try:
            self.task = registry.resolve(
                row.task_path, aliases=conf.aliases, modules=conf.task_modules
            )
            if row.options:
                self.options = json.loads(row.options)
                self.task = registry.restore(row.task_path, self.options)
        except BaseException as error:
            self.exception = error

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return self.task is not None and is_coroutine_function(self.task.func)

    @property
    def result(self) -> DatabaseTaskResult:
        """What signals and the context are given; made when it is first asked for."""
        if self._result is None:
            row = self.row
            errors = json.loads(row.errors) if row.errors else []
            conf = self.backend.conf
            self._result = build_result(
                task=registry.restore(
                    row.task_path,
                    self.options,
                    priority=row.priority,
                    queue_name=row.queue_name,
                    backend=row.backend,
                    run_after=row.run_after,
                ),
                id=row.id,
                state=LiveStatus.RUNNING,
                enqueued_at=row.enqueued_at,
                started_at=row.started_at,
                last_attempted_at=row.last_attempted_at,
                args=readable(json.loads(row.args), conf, [UNREADABLE]),
                kwargs=readable(json.loads(row.kwargs), conf, {}),
                backend=row.backend,
                database=self.backend.database,
                errors=errors,
                worker_ids=[*(error["worker_id"] for error in errors), row.worker_id],
            )
        return self._result

    # Running

    def run(self) -> None:
        """Call the function of a sync task in this thread; never raise."""
        self.began = timezone.now()
        clock = time.perf_counter()
        directory = _working_directory()
        try:
            if self.exception is not None:
                raise self.exception
            if self._is_worth_starting():
                value = contextvars.copy_context().run(self._call)
                self.seconds = time.perf_counter() - clock
                if not self.written:
                    self._succeed(value)
        except BaseException as error:  # SystemExit, too, is the task's failure.
            self.seconds = time.perf_counter() - clock
            self._fail(error)
        finally:
            self.has_run = True
            if self._state is not None and self._state.interrupt is not None:
                reset_connections()
            self.leave_connections()
            if directory is not None and _working_directory() != directory:
                with suppress(OSError):
                    os.chdir(directory)

    def _call(self) -> Any:
        args, kwargs = self._prepare()
        token = enter(self)
        try:
            # A task of another backend that was enqueued with .using() has no options of ours.
            if getattr(self.task, "atomic", False):
                operations = operations_for(self.backend.database)
                # A conflict with another transaction undid all: it is called again.
                return operations.retrying(partial(self._call_atomic, operations, args, kwargs))
            return self._call_function(args, kwargs)
        finally:
            leave(token)

    def _call_atomic(self, operations: Any, args: Any, kwargs: Any) -> Any:
        """Call the function and write what came of it in one transaction, under the claim."""
        if self._state is not None and self._state.steps is not None:
            # Those of a call that was undone were undone with it.
            self._state.steps.used.clear()
        if self._state is not None and self._state.growth is not None:
            self._state.growth.plans.clear()
        with operations.write():
            value = self._call_function(args, kwargs)
            self._succeed(value)
            assert self.ending is not None
            if end(self.backend.database, [self.ending]) != {self.row.id}:
                raise ClaimLost("Others have taken the task over; its work is undone.")
        self.written = True
        return value

    def _call_function(self, args: Any, kwargs: Any) -> Any:
        self.thread = threading.get_ident()
        try:
            self.interruptible = True
            if self._state is not None and self._state.interrupt is not None:
                raise self._state.interrupt
            return self.task.func(*args, **kwargs)
        finally:
            self.interruptible = False
            if self._state is not None:
                # Whoever interrupts holds the lock while it does.
                with self._state.lock:
                    pass
                # An asynchronous exception that was on its way arrives here.
                for _ in (1, 2, 3):
                    pass

    async def arun(self) -> None:
        """Await the function of an async task; never raise."""
        import asyncio

        from asgiref.sync import sync_to_async

        self.began = timezone.now()
        clock = time.perf_counter()
        try:
            # What parents returned, and until when it is worth starting, stands in the database.
            ask = sync_to_async if is_member(self.options) else _at_once
            if await ask(self._is_worth_starting)():
                args, kwargs = await ask(self._prepare)(send=False)
                if is_observed(task_started):
                    await task_started.asend_robust(type(self.backend), task_result=self.result)
                token = enter(self)
                try:
                    self.coroutine = (asyncio.get_running_loop(), asyncio.current_task())
                    self.interruptible = True
                    if (error := self._shall_end) is not None:
                        raise error
                    value = await self.task.func(*args, **kwargs)
                finally:
                    self.interruptible = False
                    leave(token)
                self.seconds = time.perf_counter() - clock
                self._succeed(value)
        except BaseException as error:  # A CancelledError that nobody asked for, too.
            self.seconds = time.perf_counter() - clock
            if isinstance(error, asyncio.CancelledError) and self._shall_end is not None:
                error = self._shall_end.with_traceback(error.__traceback__)
            self._fail(error)
        finally:
            self.has_run = True
            try:
                await sync_to_async(self.leave_connections, thread_sensitive=True)()
            except asyncio.CancelledError:
                # It came too late to end anything but this.
                await sync_to_async(self.leave_connections, thread_sensitive=True)()

    def leave_connections(self) -> None:
        """Leave this thread's connections as a new task expects them."""
        clean_connections()

    def _is_worth_starting(self) -> bool:
        """Say whether to call the function; else its ending is made."""
        if self._state is not None and self._state.cancelled is not None:
            self.ending = self._ending(FinalStatus.CANCELLED.value, self._state.cancelled)
            return False
        expires = self._expires_at()
        if expires is not None and self.began is not None:
            late = self.began - expires
            if late > timedelta(0):
                until = expires.astimezone(UTC).isoformat(" ")[:19]
                reason = f"Expired: it could not start before {until} UTC."
                self.ending = self._ending(FinalStatus.CANCELLED.value, reason)
                return False
        return True

    def _expires_at(self) -> datetime | None:
        options = self.options or {}
        if "expires_at" in options:
            return datetime.fromisoformat(options["expires_at"])
        if is_member(options) and "expires_in" in options["workflow"]:
            # Its time begins when what it waited for has ended.
            opened_at = values.opened_at(self.backend.database, options["workflow"]["barrier"])
            if opened_at is not None:
                begins = max(opened_at, self.row.run_after or opened_at)
                return begins + timedelta(seconds=options["workflow"]["expires_in"])
        return None

    def _prepare(self, *, send: bool = True) -> tuple[list[Any], dict[str, Any]]:
        row = self.row
        args = json.loads(row.args) if row.args != "[]" else []
        kwargs = json.loads(row.kwargs) if row.kwargs != "{}" else {}
        if type(args) is dict or "$encrypted" in kwargs:
            conf = self.backend.conf
            args, kwargs = opened(args, conf), opened(kwargs, conf)
        if is_member(self.options):
            assert self.options is not None
            placed = self.options["workflow"].get("previous")
            if placed:
                values.fill(
                    self.backend.database, self.backend.conf, self.options["workflow"],
                    args, kwargs, what=f"{self.task.func.__name__}()",
                    is_secret=sealer(self.backend.conf) is not None
                    or bool(getattr(self.task, "hide_args", ())),
                )  # fmt: skip
                self.filled = (list(args), dict(kwargs))
        if self.task.takes_context:
            args.insert(0, self.context())
        if send and is_observed(task_started):
            log_receiver_errors(
                task_started.send_robust(type(self.backend), task_result=self.result)
            )
        return args, kwargs

    # What a context asks

    def context(self) -> DatabaseTaskContext:
        """Return the context of this run."""
        return DatabaseTaskContext(task_result=self.result, failures=self.row.failures, run=self)

    # What came of it

    def _ending(self, status: str, reason: str, **more: Any) -> Ending:
        return Ending(
            id=self.row.id,
            claim_id=self.row.claim_id,
            status=status,
            finished_at=timezone.now(),
            errors=self.errors,
            failures=self.failures,
            lost_count=self.row.lost_count,
            began=self.began,
            reason=reason[:255],
            notes=self.notes(final=True),
            is_member=is_member(self.options),
            **more,
        )

    def _succeed(self, value: Any) -> None:
        if value is None:
            encoded = None
        else:
            conf = self.backend.conf
            try:
                encoded = encode_result(f"{self.task.func.__name__}()", value, conf.max_result_size)
            except ValueError as error:
                # From None: the chain would end in our own code.
                raise ResultNotStorable(str(error)) from None
            seal = sealer(conf)
            if seal is not None:
                encoded = seal(encoded)
        grow = None if self._state is None else self._state.grow
        self.ending = self._ending(
            "SUCCESSFUL",
            "",
            return_value=encoded,
            grow=grow,
            refuse=None if grow is None else self._refuse_growth,
        )

    def _refuse_growth(self, error: Exception) -> None:
        """Make the ending that is being written that of a failure."""
        ending = self.ending
        assert ending is not None
        self.exception = error
        self.failures = ending.failures = self.row.failures + 1
        self.errors = ending.errors = self._with_error(error)
        self.reason = one_line(error, mask=self.masked)
        ending.status, ending.reason, ending.return_value = "FAILED", self.reason[:255], None
        ending.fingerprint = fingerprints.of_exception(self.row.task_path, error)

    def _fail(self, error: BaseException) -> None:
        self.ending = None
        state = self._state
        if (
            isinstance(error, TaskInterrupted)
            and state is not None
            and state.interrupt is not None
            and type(error) is type(state.interrupt)
        ):
            # An asynchronous exception has a class and no words.
            error = state.interrupt.with_traceback(error.__traceback__)
        self.exception = error
        if isinstance(error, ClaimLost):
            self.superseded = True
        elif isinstance(error, UnknownTask) and self.task is None and self._put_off(error):
            pass
        elif isinstance(error, Undecipherable):
            self.put_off_delay, self.reason = UNKNOWN_DELAYS[0], one_line(error)
        elif state is not None and state.cancelled is not None:
            if not isinstance(error, CancelRequested):
                self.errors = self._with_error(error)
            self.reason = state.cancelled
            self.ending = self._ending(FinalStatus.CANCELLED.value, state.cancelled)
        elif isinstance(error, RetryRequested) and not error.spends_attempt:
            self.put_off_delay, self.reason = error.delay, self.masked(error.reason)
        else:
            self._fail_attempt(error)

    def _fail_attempt(self, error: BaseException) -> None:
        self.failures = self.row.failures + 1
        delay = None
        policy = getattr(self.task, "policy", None)
        if policy is not None:
            try:
                delay = policy.delay(self.failures, error)
            except Exception as broken:
                broken.__context__ = error
                error = self.exception = broken
        self.errors = self._with_error(error)
        self.reason = one_line(error, mask=self.masked)
        if delay is not None:
            self.retry_delay = delay
            return
        self.ending = self.failed_ending()

    def failed_ending(self) -> Ending:
        """Return the ending of a task that is not tried again."""
        assert self.exception is not None
        cause = fingerprints.of_exception(self.row.task_path, self.exception)
        return self._ending("FAILED", self.reason, fingerprint=cause)

    def fail_unstorable(self, error: BaseException) -> None:
        """Replace an outcome that the database refused by one that it can't refuse."""
        text = self.masked(str(error)).encode("ascii", "backslashreplace").decode()[:2_000]
        self.exception = ResultNotStorable(f"The database refused what the task returned: {text}")
        self.retry_delay = None
        self._state = None
        self.failures = self.row.failures + 1
        self.errors = self._with_error(self.exception)
        self.reason = one_line(self.exception, mask=self.masked)
        self.ending = self.failed_ending()

    def _put_off(self, error: UnknownTask) -> bool:
        """Wait for a deploy that knows the task; say whether it is worth waiting."""
        row = self.row
        age = (timezone.now() - (row.run_after or row.enqueued_at)).total_seconds()
        grace = self.backend.conf.unknown_task_grace
        if grace is not None and age >= grace:
            return False
        delay = next((d for d in UNKNOWN_DELAYS if d > age / 2), UNKNOWN_DELAYS[-1])
        self.put_off_delay = delay if grace is None else min(delay, max(0.05, grace - age))
        self.reason = one_line(error)
        return True

    def _with_error(self, error: BaseException) -> str:
        row = self.row
        errors = json.loads(row.errors) if row.errors else []
        for old in errors[: -(KEPT_TRACEBACKS - 1)]:
            old["traceback"] = ""
            old.pop("log", None)
        cls = type(error)
        entry = {
            "attempt": row.attempt,
            "worker_id": row.worker_id,
            "started_at": self.began and self.began.isoformat(),
            "ended_at": timezone.now().astimezone(UTC).isoformat(),
            "exception_class_path": storable(f"{cls.__module__}.{cls.__qualname__}"),
            "traceback": format_error(
                error, self.backend.conf.max_traceback_size, mask=self.masked
            ),
        }
        if self._state is not None and self._state.log is not None:
            entry["log"] = self._state.log.text()
        errors.append(entry)
        return json.dumps(errors)

    def masked(self, text: str) -> str:
        """Return text without the values of hide_args."""
        hidden = getattr(self.task, "hide_args", ())
        if not hidden:
            return text
        try:
            conf = self.backend.conf
            args, kwargs = self.filled or (
                opened(json.loads(self.row.args), conf),
                opened(json.loads(self.row.kwargs), conf),
            )
        except Undecipherable:
            return text
        named = self.task.signature.named(args, kwargs)
        return without_secrets(
            text,
            [secret for name, value in named if name in hidden for secret in secrets_in(value)],
        )

    # Telling

    def announce(self) -> None:
        """Send the signal of an outcome that is written."""
        sender = type(self.backend)
        if self.retry_delay is not None:
            log_receiver_errors(
                task_retried.send_robust(
                    sender,
                    task_result=self._final_result(),
                    exception=self.exception,
                    delay=self.retry_delay,
                )
            )
        elif self.ending is not None:
            self._announce_end(sender)

    def _announce_end(self, sender: type) -> None:
        def send() -> None:
            log_receiver_errors(task_finished.send_robust(sender, task_result=self._final_result()))

        if self.exception is None:
            send()
            return
        shown = json.loads(self.errors or "[{}]")[-1].get("traceback", "")
        hides = bool(getattr(self.task, "hide_args", ()))
        with tracebacks_as(shown) if hides else nullcontext():
            try:
                # Receivers of Django's signal read sys.exc_info().
                raise self.exception
            except BaseException:
                send()

    def _final_result(self) -> DatabaseTaskResult:
        result = self.result
        changes: dict[str, Any] = {"last_attempted_at": self.began or result.last_attempted_at}
        if self.row.attempt <= 1:
            changes["started_at"] = self.began or result.started_at
        if self.ending is not None:
            changes.update(
                status=(
                    TaskResultStatus.SUCCESSFUL
                    if self.ending.status == "SUCCESSFUL"
                    else TaskResultStatus.FAILED
                ),
                state=self.ending.status,
                finished_at=self.ending.finished_at,
                reason=self.ending.reason,
            )
            if self.ending.return_value is not None:
                changes["_return_value"] = opened(
                    json.loads(self.ending.return_value), self.backend.conf
                )
        else:
            changes.update(status=TaskResultStatus.READY, state=str(LiveStatus.SCHEDULED))
        if self.errors and self.exception is not None:
            from ..compat import TaskError

            changes["errors"] = [
                TaskError(
                    exception_class_path=error["exception_class_path"],
                    traceback=error["traceback"],
                )
                for error in json.loads(self.errors)
            ]
        for name, value in changes.items():
            object.__setattr__(result, name, value)
        return result


def _at_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return function as a coroutine function that calls it here."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None
