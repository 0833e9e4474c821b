"""Arguments, return values and tracebacks for people: masked, escaped, folded."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.debug import SafeExceptionReporterFilter, get_default_exception_reporter_filter

from .. import registry
from ..arguments import Signature
from ..compat import InvalidTaskBackend, task_backends
from ..models.record import TaskRecord
from .display import duration, preformatted, visible

HIDDEN = "••••••••"


def task_of(row: TaskRecord) -> Any:
    """Return the Task of a row, None if this code doesn't have it."""
    conf: Any = None
    with suppress(InvalidTaskBackend):
        conf = getattr(task_backends[row.backend], "conf", None)
    try:
        return registry.resolve(
            row.task_path,
            aliases=getattr(conf, "aliases", None),
            modules=getattr(conf, "task_modules", ()),
        )
    except Exception:
        # Whatever the import of a module raises: the page of its task must open.
        return None


def secret_names() -> re.Pattern[str]:
    """Return what the names of secrets match, as on Django's error pages."""
    own = get_default_exception_reporter_filter()
    return getattr(own, "hidden_settings", SafeExceptionReporterFilter.hidden_settings)


def redact(value: Any, secret: re.Pattern[str]) -> Any:
    """Return a JSON value with the values of secret keys masked, at any depth."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if secret.search(key) else redact(item, secret)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redact(item, secret) for item in value]
    return value


def arguments(row: TaskRecord) -> SafeString | str:
    """Return the arguments of a row as "name = value", secrets masked."""
    secret = secret_names()
    task = task_of(row)
    rows = []
    for name, value in _named(row, task):
        if secret.search(name):
            text = HIDDEN
        elif task is None and name.startswith("["):
            # Its name may be one that is masked.
            text = HIDDEN
        else:
            text = _json(redact(value, secret))
        rows.append(f"{name} = {text}")
    if not rows:
        return _("None.")
    shown = preformatted("\n".join(rows))
    if task is None and row.args:
        note = _("This code has no such task: the names of positional arguments are unknown.")
        return format_html("{}<div>{}</div>", shown, note)
    return shown


def _named(row: TaskRecord, task: Any) -> Iterator[tuple[str, Any]]:
    args = row.args if isinstance(row.args, list) else [row.args]
    kwargs = row.kwargs if isinstance(row.kwargs, dict) else {"**": row.kwargs}
    if task is None:
        yield from ((f"[{index}]", value) for index, value in enumerate(args))
        yield from kwargs.items()
        return
    signature = Signature(task.func, takes_context=task.takes_context)
    rest = next(
        (
            parameter.name
            for parameter in inspect.signature(task.func).parameters.values()
            if parameter.kind is parameter.VAR_POSITIONAL
        ),
        "args",
    )
    for name, value in signature.named(args, kwargs):
        yield (f"*{rest}{name[5:]}" if name.startswith("*args[") else name), value


def return_value(row: Any) -> SafeString:
    """Return the return value of a finished row as JSON, secrets masked."""
    return preformatted(_json(redact(row.return_value, secret_names())))


def attempts(row: TaskRecord, *, with_traceback: bool) -> SafeString | str:
    """Return what went wrong in each attempt, newest first."""
    errors = [error for error in row.errors or () if isinstance(error, dict)]
    shown = []
    for index, error in enumerate(reversed(errors)):
        parts = [
            _("Attempt %(number)s") % {"number": error.get("attempt", "?")},
            error.get("exception_class_path") or "?",
            error.get("worker_id") or "",
            _took(error),
        ]
        summary = " · ".join(visible(part) for part in parts if part)
        if with_traceback:
            shown.append(
                format_html(
                    "<details{}><summary>{}</summary><pre>{}</pre></details>",
                    SafeString("" if index else " open"),
                    summary,
                    visible(error.get("traceback") or ""),
                )
            )
        else:
            shown.append(format_html("<div>{}</div>", summary))
    if not shown:
        return _("None.")
    if not with_traceback:
        shown.append(format_html("<div>{}</div>", _("You may not see tracebacks.")))
    return format_html_join("", "{}", ((part,) for part in shown))


def _took(error: dict[str, Any]) -> str:
    try:
        begin, end = (datetime.fromisoformat(error[key]) for key in ("started_at", "ended_at"))
        return duration((end - begin).total_seconds())
    except (KeyError, TypeError, ValueError):
        return ""


def retry_policy(row: TaskRecord) -> str:
    """Return how often the task is run at most if it raises."""
    task = task_of(row)
    most = (row.options or {}).get("max_attempts") or getattr(task, "max_attempts", None)
    if most is None:
        return "-"
    return ngettext("At most %(count)d attempt.", "At most %(count)d attempts.", most) % {
        "count": most
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
