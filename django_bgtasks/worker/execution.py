"""One claimed task, from the call to what came of it."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.db import connections
from django.utils import timezone

from .. import registry
from ..arguments import encode_result
from ..compat import TASKS_LOGGER, TaskResultStatus, task_finished, task_started
from ..context import DatabaseTaskContext, enter, leave
from ..db import ClaimedTask, Ending, is_closed
from ..exceptions import ResultNotStorable, UnknownTask
from ..results import DatabaseTaskResult, build_result
from ..signals import task_retried
from ..states import LiveStatus

logger = logging.getLogger("django_bgtasks.worker")
_framework_logger = logging.getLogger(TASKS_LOGGER)

#: Errors before the last so many lose their traceback, so that a row stays small.
KEPT_TRACEBACKS = 10
#: An unknown task is put off for 30 s, 60 s, ... at most 10 minutes.
UNKNOWN_DELAYS = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0)


class Execution:
    """
    A task that a child holds.

    run() or arun() calls the function and never raises; afterwards ending,
    retry_delay or put_off_delay says what is to be written, and announce()
    tells the world once that is written.
    """

    __slots__ = (
        "_result",
        "backend",
        "began",
        "ending",
        "errors",
        "exception",
        "failures",
        "place",
        "put_off_delay",
        "reason",
        "retry_delay",
        "row",
        "seconds",
        "task",
    )

    def __init__(self, row: ClaimedTask, backend: Any, place: int) -> None:
        self.row = row
        self.backend = backend
        self.place = place
        self.task: Any = None
        self.began: datetime | None = None
        self.seconds = 0.0
        self.exception: BaseException | None = None
        self.ending: Ending | None = None
        self.retry_delay: float | None = None
        self.put_off_delay: float | None = None
        self.failures = row.failures
        self.errors = row.errors
        self.reason = ""
        self._result: DatabaseTaskResult | None = None

    def resolve(self) -> None:
        """Find the task; what went wrong is kept for run()."""
        row = self.row
        conf = self.backend.conf
        try:
            self.task = registry.resolve(
                row.task_path, aliases=conf.aliases, modules=conf.task_modules
            )
            if row.options:
                self.task = registry.restore(row.task_path, json.loads(row.options))
        except BaseException as error:
            self.exception = error

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return self.task is not None and _is_coroutine_function(self.task.func)

    @property
    def result(self) -> DatabaseTaskResult:
        """What signals and the context are given; made when it is first asked for."""
        if self._result is None:
            row = self.row
            errors = json.loads(row.errors) if row.errors else []
            self._result = build_result(
                task=registry.restore(
                    row.task_path,
                    json.loads(row.options) if row.options else None,
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
                args=json.loads(row.args),
                kwargs=json.loads(row.kwargs),
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
            value = contextvars.copy_context().run(self._call)
            self.seconds = time.perf_counter() - clock
            self._succeed(value)
        except BaseException as error:  # SystemExit, too, is the task's failure.
            self.seconds = time.perf_counter() - clock
            self._fail(error)
        finally:
            clean_connections()
            if directory is not None and _working_directory() != directory:
                with suppress(OSError):
                    os.chdir(directory)

    def _call(self) -> Any:
        args, kwargs = self._prepare()
        token = enter(self)
        try:
            return self.task.func(*args, **kwargs)
        finally:
            leave(token)

    async def arun(self) -> None:
        """Await the function of an async task; never raise."""
        from asgiref.sync import sync_to_async

        self.began = timezone.now()
        clock = time.perf_counter()
        try:
            args, kwargs = self._prepare(send=False)
            if is_observed(task_started):
                await task_started.asend_robust(type(self.backend), task_result=self.result)
            token = enter(self)
            try:
                value = await self.task.func(*args, **kwargs)
            finally:
                leave(token)
            self.seconds = time.perf_counter() - clock
            self._succeed(value)
        except BaseException as error:  # A CancelledError that nobody asked for, too.
            self.seconds = time.perf_counter() - clock
            self._fail(error)
        finally:
            await sync_to_async(clean_connections, thread_sensitive=True)()

    def _prepare(self, *, send: bool = True) -> tuple[list[Any], dict[str, Any]]:
        row = self.row
        args = json.loads(row.args) if row.args != "[]" else []
        kwargs = json.loads(row.kwargs) if row.kwargs != "{}" else {}
        if self.task.takes_context:
            args.insert(0, self.context())
        if send and is_observed(task_started):
            _log_receiver_errors(
                task_started.send_robust(type(self.backend), task_result=self.result)
            )
        return args, kwargs

    def context(self) -> DatabaseTaskContext:
        """Return the context of this run."""
        return DatabaseTaskContext(task_result=self.result, failures=self.row.failures)

    # What came of it

    def _succeed(self, value: Any) -> None:
        if value is None:
            encoded = None
        else:
            try:
                encoded = encode_result(
                    self.task.func.__name__, value, self.backend.conf.max_result_size
                )
            except ValueError as error:
                # From None: the chain would end in our own code.
                raise ResultNotStorable(str(error)) from None
        self.ending = Ending(
            id=self.row.id,
            claim_id=self.row.claim_id,
            status="SUCCESSFUL",
            finished_at=timezone.now(),
            return_value=encoded,
            errors=self.errors,
            failures=self.row.failures,
            lost_count=self.row.lost_count,
            began=self.began,
        )

    def _fail(self, error: BaseException) -> None:
        self.exception = error
        if isinstance(error, UnknownTask) and self.task is None and self._put_off(error):
            return
        self.failures = self.row.failures + 1
        policy = getattr(self.task, "policy", None)
        delay = None
        if policy is not None:
            try:
                delay = policy.delay(self.failures, error)
            except Exception as broken:
                broken.__context__ = error
                error = self.exception = broken
        self.errors = self._with_error(error)
        self.reason = one_line(error)
        if delay is not None:
            self.retry_delay = delay
            return
        self.ending = self.failed_ending()

    def failed_ending(self) -> Ending:
        """Return the ending of a task that is not tried again."""
        return Ending(
            id=self.row.id,
            claim_id=self.row.claim_id,
            status="FAILED",
            finished_at=timezone.now(),
            errors=self.errors,
            failures=self.failures,
            lost_count=self.row.lost_count,
            began=self.began,
            reason=self.reason,
        )

    def fail_unstorable(self, error: BaseException) -> None:
        """Replace an outcome that the database refused by one that it can't refuse."""
        text = str(error).encode("ascii", "backslashreplace").decode()[:2_000]
        self.exception = ResultNotStorable(f"The database refused what the task returned: {text}")
        self.retry_delay = None
        self.failures = self.row.failures + 1
        self.errors = self._with_error(self.exception)
        self.reason = one_line(self.exception)
        self.ending = self.failed_ending()

    def _put_off(self, error: UnknownTask) -> bool:
        """Wait for a deploy that knows the task; say whether it is worth waiting."""
        row = self.row
        age = (timezone.now() - (row.run_after or row.enqueued_at)).total_seconds()
        grace = self.backend.conf.unknown_task_grace
        if age >= grace:
            return False
        delay = next((d for d in UNKNOWN_DELAYS if d > age / 2), UNKNOWN_DELAYS[-1])
        self.put_off_delay = min(delay, max(0.05, grace - age))
        self.reason = one_line(error)
        return True

    def _with_error(self, error: BaseException) -> str:
        row = self.row
        errors = json.loads(row.errors) if row.errors else []
        for old in errors[: -(KEPT_TRACEBACKS - 1)]:
            old["traceback"] = ""
        cls = type(error)
        errors.append(
            {
                "attempt": row.attempt,
                "worker_id": row.worker_id,
                "started_at": self.began and self.began.isoformat(),
                "ended_at": timezone.now().astimezone(UTC).isoformat(),
                "exception_class_path": storable(f"{cls.__module__}.{cls.__qualname__}"),
                "traceback": format_error(error, self.backend.conf.max_traceback_size),
            }
        )
        return json.dumps(errors)

    # Telling

    def announce(self) -> None:
        """Send the signal of an outcome that is written."""
        sender = type(self.backend)
        if self.retry_delay is not None:
            _log_receiver_errors(
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
            _log_receiver_errors(
                task_finished.send_robust(sender, task_result=self._final_result())
            )

        if self.exception is None:
            send()
            return
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
                status=TaskResultStatus[self.ending.status],
                state=self.ending.status,
                finished_at=self.ending.finished_at,
                reason=self.ending.reason,
            )
            if self.ending.return_value is not None:
                changes["_return_value"] = json.loads(self.ending.return_value)
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


def _is_coroutine_function(func: Callable[..., Any]) -> bool:
    return bool(func.__code__.co_flags & 0x80) if hasattr(func, "__code__") else False


def is_observed(signal: Any) -> bool:
    """
    Say whether anybody but Django's own logging listens to a signal, or that is heard.

    What a receiver is given costs more to make than a short task to run.
    """
    return len(signal.receivers) > 1 or (bool(signal.receivers) and framework_log_is_heard())


@lru_cache(maxsize=1)
def framework_log_is_heard() -> bool:
    """Say whether a handler takes what Django's receivers log of a success."""
    if not _framework_logger.isEnabledFor(logging.INFO):
        return False
    record = logging.LogRecord(TASKS_LOGGER, logging.INFO, __file__, 0, "", (), None)
    heard: logging.Logger | None = _framework_logger
    while heard is not None:
        if any(h.level <= logging.INFO and h.filter(record) for h in heard.handlers):
            return True
        heard = heard.parent if heard.propagate else None
    return False


def _log_receiver_errors(responses: Any) -> None:
    for receiver, response in responses:
        if isinstance(response, Exception):
            logger.error(
                "A signal receiver failed: %r",
                receiver,
                exc_info=(type(response), response, response.__traceback__),
            )


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def clean_connections() -> None:
    """
    Leave this thread's connections as a new task expects them.

    They stay open, whatever CONN_MAX_AGE says (runworker's children set it); a
    transaction that was left open is rolled back, a broken connection closed.
    """
    for connection in connections.all(initialized_only=True):
        try:
            _clean(connection)
        except Exception:
            reset_connection(connection)


def _clean(connection: Any) -> None:
    raw = connection.connection
    if raw is not None and is_closed(raw):
        reset_connection(connection)
    elif (
        connection.in_atomic_block
        or connection.needs_rollback
        or (raw is not None and not connection.get_autocommit())
    ):
        logger.warning(
            "A task left a transaction open on database %r; it is rolled back.", connection.alias
        )
        reset_connection(connection)
    elif raw is not None:
        connection.close_if_unusable_or_obsolete()


def reset_connection(connection: Any) -> None:
    """Close a connection, whatever state it is in."""
    connection.in_atomic_block = False
    connection.atomic_blocks = []
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.closed_in_transaction = False
    connection.run_on_commit = []
    try:
        connection.close()
    except Exception:  # The server is gone; there is nothing left to close.
        connection.connection = None


def storable(text: str) -> str:
    """Return text with what a database refuses replaced by U+FFFD."""
    return (
        text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return class and message of an exception for a column of a list."""
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be shown)"
    message = " ".join(storable(message[: 2 * limit]).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def format_error(error: BaseException, limit: int) -> str:
    """Return the traceback, without our own frames and without its middle if it is too long."""
    try:
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
            tb = tb.tb_next
        text = "".join(traceback.format_exception(type(error), error, tb or error.__traceback__))
    except BaseException as broken:
        text = (
            f"{type(error).__module__}.{type(error).__qualname__} (its traceback can't be "
            f"formatted: {type(broken).__name__})\n"
        )
    if len(text) > limit:
        cut = f"\n… {len(text) - limit:,} characters left out …\n"
        half = max(0, limit - len(cut)) // 2
        text = f"{text[:half]}{cut}{text[-half:]}"
    return storable(text)
