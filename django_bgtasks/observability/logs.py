"""
What a worker writes: one line for an event, for a terminal, a log file or a machine.

Receivers of the signals make the records, formatters the lines. If the project
configures the loggers django_bgtasks or django.tasks itself, the records are
made all the same, and no handler is added.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from django.conf import settings
from django.utils import timezone
from django.views.debug import SafeExceptionReporterFilter

from ..compat import TASKS_LOGGER, TaskResultStatus, task_finished, task_started
from ..signals import task_retried

logger = logging.getLogger("django_bgtasks.tasks")

_HIDDEN = SafeExceptionReporterFilter.hidden_settings
_MASK = "••••"
#: Arguments on a line are cut here.
ARGUMENT_WIDTH = 60
#: The message of an exception, here.
ERROR_WIDTH = 200
#: Hidden arguments of fewer characters are not looked for in messages.
SHORTEST_SECRET = 4

_SIGNS = {"start": "▶", "success": "✓", "retry": "↻", "failure": "✗"}
_ASCII_SIGNS = {"start": ">", "success": "ok", "retry": "retry", "failure": "FAILED"}
_COLORS = {"start": "34", "success": "32", "retry": "33", "failure": "31"}


class FromFramework(logging.Filter):
    """Keeps Django's own lines about tasks from a console that shows ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != TASKS_LOGGER


def configure(plan: Any) -> None:
    """Set up the logging of one of a worker's processes as plan says."""
    from ..worker.observers import framework_log_is_heard

    own = logging.getLogger("django_bgtasks")
    configured = (getattr(settings, "LOGGING", None) or {}).get("loggers", {})
    if not any(
        name.split(".")[0] == "django_bgtasks" or name == TASKS_LOGGER for name in configured
    ):
        for old in [h for h in own.handlers if isinstance(h, LineHandler)]:
            own.removeHandler(old)
        own.addHandler(LineHandler(plan))
        own.propagate = False
        own.setLevel({0: logging.ERROR, 1: logging.INFO}.get(plan.verbosity, logging.DEBUG))
        for handler in logging.getLogger("django").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.addFilter(FromFramework())
    if logger.isEnabledFor(logging.INFO):
        task_started.connect(log_started, dispatch_uid="django_bgtasks.logs")
        task_finished.connect(log_finished, dispatch_uid="django_bgtasks.logs")
        task_retried.connect(log_retried, dispatch_uid="django_bgtasks.logs")
    framework_log_is_heard.cache_clear()


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes to standard output, a whole line at a time."""

    def __init__(self, plan: Any) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(_FORMATTERS[plan.log_format](plan))


# Receivers


def _facts(task_result: Any, event: str, **more: Any) -> dict[str, Any]:
    task = task_result.task
    return {
        "event": event,
        "task_id": task_result.id,
        "task_path": task.module_path,
        "task_name": task.name,
        "queue": task.queue_name,
        "attempt": task_result.attempts,
        "max_attempts": getattr(task, "max_attempts", 1),
        "worker": task_result.worker_ids[-1] if task_result.worker_ids else "",
        **more,
    }


def log_started(*, task_result: Any, **kwargs: Any) -> None:
    """Log that an attempt begins."""
    logger.info(
        "started",
        extra=_facts(task_result, "start", call=call_in_words(task_result)),
    )


def log_finished(*, task_result: Any, **kwargs: Any) -> None:
    """Log how a task ended."""
    ok = task_result.status == TaskResultStatus.SUCCESSFUL
    facts = _facts(task_result, "success" if ok else "failure", **_times(task_result))
    error = None if ok else sys.exc_info()[1]
    if not ok:
        facts["error"] = task_result.reason
        facts["traceback_text"] = task_result.errors[-1].traceback if task_result.errors else ""
        # Its message, and its frames, may hold what hide_args hides.
        facts["exception"] = None if _hide_args(task_result) else error
    logger.log(logging.INFO if ok else logging.ERROR, "finished", extra=facts)


def log_retried(*, task_result: Any, exception: BaseException, delay: float, **kw: Any) -> None:
    """Log that an attempt raised and another one follows."""
    from ..worker.tracebacks import one_line

    # Masked before it is cut: half a secret would not be found.
    error = without_hidden(task_result, one_line(exception, 10_000))
    error = error if len(error) <= ERROR_WIDTH else f"{error[: ERROR_WIDTH - 1]}…"
    facts = _facts(task_result, "retry", error=error, next=delay)
    facts["took"] = (timezone.now() - task_result.last_attempted_at).total_seconds()
    logger.warning("will be retried", extra=facts)


def _times(result: Any) -> dict[str, float]:
    began, ended = result.last_attempted_at, result.finished_at
    since = result.task.run_after or result.enqueued_at
    times = {}
    if began and ended:
        times["took"] = max(0.0, (ended - began).total_seconds())
    if began and since:
        times["wait"] = max(0.0, (began - max(since, result.enqueued_at)).total_seconds())
    return times


def call_in_words(result: Any) -> str:
    """Return the arguments with their names, masked and cut: hide_args and what looks secret."""
    hidden = _hide_args(result)
    text = " ".join(
        f"{name}={_MASK if name in hidden else masked(name, value)!r}"
        for name, value in _named(result)
    )
    return text if len(text) <= ARGUMENT_WIDTH else f"{text[: ARGUMENT_WIDTH - 1]}…"


def _named(result: Any) -> Iterable[tuple[str, Any]]:
    signature = getattr(result.task, "signature", None)
    if signature is None:
        return [*((str(i), v) for i, v in enumerate(result.args)), *result.kwargs.items()]
    return signature.named(result.args, result.kwargs)


def _hide_args(result: Any) -> tuple[str, ...]:
    return getattr(result.task, "hide_args", ())


def without_hidden(result: Any, text: str) -> str:
    """Return text, such as the message of an exception, without the values of hide_args."""
    hidden = _hide_args(result)
    if not hidden:
        return text
    secrets = {
        # In the one line of a message whitespace is joined.
        " ".join(secret.split())
        for name, value in _named(result)
        if name in hidden
        for secret in _texts_in(value)
    }
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, _MASK)
    return text


def _texts_in(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts_in(item)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def masked(name: Any, value: Any) -> Any:
    """Return value with all masked whose name looks like a secret's, at any depth."""
    if isinstance(name, str) and _HIDDEN.search(name):
        return _MASK
    if isinstance(value, Mapping):
        return {key: masked(key, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked("", item) for item in value]
    return value


# Lines


def duration(seconds: float) -> str:
    """Return seconds as a person reads them."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: Any) -> str:
    """Return text without what would forge lines or move a terminal's cursor."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", str(text)).replace("\n", "\\n")


def project_frames(text: str) -> str:
    """Return a traceback without the frames of installed packages and of Python itself."""
    kept, skipping = [], False
    for line in text.splitlines():
        if line.startswith('  File "'):
            skipping = any(part in line for part in ("site-packages", "/lib/python", "<frozen"))
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return "\n".join(kept)


class PrettyFormatter(logging.Formatter):
    """For a terminal: aligned, with a sign for the state."""

    def __init__(self, plan: Any) -> None:
        super().__init__()
        self.signs = _ASCII_SIGNS if plan.ascii else _SIGNS
        self.width = 6 if plan.ascii else 1
        self.color = plan.color
        self.verbosity = plan.verbosity
        self.ellipsis = "..." if plan.ascii else "…"

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        event: str | None = getattr(record, "event", None)
        if event is None:
            text = safe(record.getMessage())
            if record.levelno >= logging.WARNING:
                text = self._colored("33" if record.levelno == logging.WARNING else "31", text)
            if record.exc_info and record.exc_info[0]:
                text += "\n" + self.formatException(record.exc_info).rstrip()
            return self._encodable(f"{at}  {text}")
        facts: dict[str, Any] = record.__dict__
        name = safe(facts["task_name"])
        sign = self._colored(_COLORS[event], f"{self.signs[event]:<{self.width}}")
        line = f"{at}  {sign} {name:<18} {facts['task_id'][-8:]}  {self._details(event, facts)}"
        if facts["attempt"] > 1 and event == "start":
            line = f"{line:<64} attempt {_attempts(facts)}"
        trace = facts.get("traceback_text")
        if trace:
            shown = trace if self.verbosity > 1 else project_frames(trace)
            line += "\n" + "\n".join(f"          {safe(row)}" for row in shown.splitlines())
        return self._encodable(line.rstrip())

    def _details(self, event: str, facts: dict[str, Any]) -> str:
        if event == "start":
            return safe(facts["call"])
        took = duration(facts["took"]) if "took" in facts else ""
        if event == "success":
            return f"{took}, waited {duration(facts.get('wait', 0.0))}"
        if event == "retry":
            return f"{took:<7} {safe(facts['error'])}, again in {duration(facts['next'])}"
        return f"{took:<7} {safe(facts['error'])}"

    def _colored(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def _encodable(self, text: str) -> str:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _attempts(facts: dict[str, Any]) -> str:
    return f"{facts['attempt']}/{max(facts['attempt'], facts['max_attempts'])}"


_NAMES = {"start": "started", "success": "finished", "failure": "failed", "retry": "retry"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a line for text and JSON, in order."""
    fields: dict[str, Any] = {
        "ts": datetime.fromtimestamp(record.created, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
    }
    event = getattr(record, "event", None)
    if event is None:
        fields["event"] = "worker"
        fields["message"] = record.getMessage()
        for name, field in (("task_name", "task"), ("task_id", "id"), ("queue", "queue")):
            if getattr(record, name, ""):
                fields[field] = getattr(record, name)
        if record.exc_info and record.exc_info[0]:
            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return fields
    facts = record.__dict__
    fields.update(
        event=f"task.{_NAMES[event]}",
        task=facts["task_path"],
        id=facts["task_id"],
        queue=facts["queue"],
        attempt=_attempts(facts),
    )
    for name in ("took", "wait", "next"):
        if name in facts:
            fields[name] = round(facts[name], 3)
    fields["worker"] = facts["worker"]
    if event == "start" and facts["call"]:
        fields["args"] = facts["call"]
    if facts.get("error"):
        fields["error"] = facts["error"]
    if facts.get("traceback_text"):
        fields["traceback"] = facts["traceback_text"]
    return fields


class TextFormatter(logging.Formatter):
    """For a log file: one line of key=value."""

    def __init__(self, plan: Any) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        head = " ".join(str(fields.pop(key)) for key in ("ts", "level", "logger", "event"))
        text = fields.pop("traceback", "")
        if "message" in fields:
            rest = [safe(fields.pop("message"))]
        else:
            rest = []
        for key, value in fields.items():
            shown = safe(value)
            rest.append(
                f"{key}={json.dumps(shown, ensure_ascii=False)}"
                if " " in shown
                else f"{key}={shown}"
            )
        line = " ".join([head, *rest])
        return f"{line}\n{text.rstrip()}" if text else line


class JSONFormatter(logging.Formatter):
    """For a machine: one object a line."""

    def __init__(self, plan: Any = None) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record), default=str)


_FORMATTERS: dict[str, type[Any]] = {
    "pretty": PrettyFormatter,
    "text": TextFormatter,
    "json": JSONFormatter,
}
