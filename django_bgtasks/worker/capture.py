"""What a task logs: marked with the task, and kept with the attempt."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ..compat import TASKS_LOGGER
from ..context import running

#: What each record is given inside a task; empty texts outside of one.
FIELDS = ("task_id", "task_name", "attempt", "queue")


class TaskFilter(logging.Filter):
    """
    Gives each record task_id, task_name, attempt and queue, for formats that name them.

    The worker adds it to the handlers that there are. What a record has of its
    own stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        execution = running()
        facts = record.__dict__
        if execution is None:
            for name in FIELDS:
                facts.setdefault(name, "")
        else:
            row = execution.row
            facts.setdefault("task_id", row.id)
            facts.setdefault("task_name", row.task_path.rpartition(".")[2])
            facts.setdefault("attempt", row.attempt)
            facts.setdefault("queue", row.queue_name)
        return True


class LogBuffer:
    """Lines of one attempt, at most limit characters: the beginning and the end are kept."""

    __slots__ = ("_dropped", "_head", "_limit", "_room", "_size", "_tail")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head: list[str] = []
        self._room = limit // 2
        self._tail: deque[str] = deque()
        self._size = 0
        self._dropped = 0

    def add(self, line: str) -> None:
        """Append a line."""
        longest = max(1, self._limit // 4)
        if len(line) > longest:
            line = f"{line[:longest]}…"
        if self._room > 0 and not self._tail:
            self._room -= len(line) + 1
            self._head.append(line)
            return
        self._tail.append(line)
        self._size += len(line) + 1
        while self._size > self._limit // 2 and len(self._tail) > 1:
            self._size -= len(self._tail.popleft()) + 1
            self._dropped += 1

    def text(self) -> str:
        """Return what was kept."""
        left_out = [f"… {self._dropped:,} lines left out …"] if self._dropped else []
        return "\n".join([*self._head, *left_out, *self._tail])


class CaptureHandler(logging.Handler):
    """Puts what is logged inside a task into the buffer of its run."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(
            logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%X")
        )

    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort
        # As logging does where nobody listens: this handler is no listener. What the framework
        # says of a task, the worker says in its own words.
        if (
            last
            and record.levelno >= last.level
            and record.name != TASKS_LOGGER
            and not _has_another_handler(record.name, self)
        ):
            last.handle(record)
        execution = running()
        if execution is None or record.name.startswith(("django_bgtasks.", TASKS_LOGGER)):
            return
        try:
            execution.log(self.format(record))
        except Exception:
            self.handleError(record)


def _has_another_handler(name: str, handler: logging.Handler) -> bool:
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(other is not handler for other in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


class _Shown(logging.Filter):
    """Has formatters take a text for the traceback of a record."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text.rstrip("\n")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.exc_text = self.text
        return True


@contextmanager
def tracebacks_as(text: str) -> Iterator[None]:
    """Have the framework's lines about tasks show text for a traceback, within a with block."""
    framework = logging.getLogger(TASKS_LOGGER)
    shown = _Shown(text)
    framework.addFilter(shown)
    try:
        yield
    finally:
        framework.removeFilter(shown)


def install(limit: int) -> None:
    """Mark the records of this process, and keep those of tasks if limit is above 0."""
    marker = TaskFilter()
    seen = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in seen:
        for handler in getattr(logger, "handlers", ()):
            if not any(isinstance(f, TaskFilter) for f in handler.filters):
                handler.addFilter(marker)
    root = logging.getLogger()
    if limit and not any(isinstance(h, CaptureHandler) for h in root.handlers):
        root.addHandler(CaptureHandler())
