"""Arguments, metadata and return values for people: masked, escaped, folded."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.debug import SafeExceptionReporterFilter, get_default_exception_reporter_filter

from .. import encryption, registry
from ..arguments import Signature
from ..compat import InvalidTaskBackend, task_backends
from ..models.record import TaskRecord
from ..workflows.placing import put
from .display import preformatted

HIDDEN = "••••••••"


def conf_of(row: TaskRecord) -> Any:
    """Return the options of the backend of a row, None if TASKS has no such backend of ours."""
    with suppress(InvalidTaskBackend):
        return getattr(task_backends[row.backend], "conf", None)
    return None


def task_of(row: TaskRecord) -> Any:
    """Return the Task of a row, None if this code doesn't have it."""
    conf = conf_of(row)
    try:
        return registry.resolve(
            row.task_path,
            aliases=getattr(conf, "aliases", None),
            modules=getattr(conf, "task_modules", ()),
        )
    except Exception:
        # Whatever the import of a module raises: the page of its task must open.
        return None


def mapping(value: Any) -> dict[str, Any]:
    """Return the object of a JSON column, {} for whatever else stands there."""
    return value if isinstance(value, dict) else {}


# What is secret


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


def is_hidden(name: str, task: Any, secret: re.Pattern[str]) -> bool:
    """Say whether an argument is shown to nobody: by its name, or because its task says so."""
    # Without its task nobody knows what hide_args says, nor how positional ones are named.
    if task is None or secret.search(name):
        return True
    return name.lstrip("*").partition("[")[0] in getattr(task, "hide_args", ())


# Values


def arguments(row: TaskRecord) -> SafeString | str:
    """Return the arguments of a row as "name = value", secrets masked."""
    try:
        args, kwargs = opened_arguments(row)
    except Exception:
        return sealed()
    found = named_arguments(row, args, kwargs)
    if not found:
        return _("None.")
    shown = _assignments(
        (name, HIDDEN if value == HIDDEN else as_json(value)) for name, value in found
    )
    if task_of(row) is None:
        note = _("This code has no such task: nobody knows which of its arguments are hidden.")
        return format_html("{}<div>{}</div>", shown, note)
    return shown


def opened_arguments(row: TaskRecord) -> tuple[Any, Any]:
    """Return the positional and the keyword arguments of a row. Raise if they are sealed."""
    conf = conf_of(row)
    return encryption.opened(row.args, conf), encryption.opened(row.kwargs, conf)


def named_arguments(row: TaskRecord, args: Any, kwargs: Any) -> list[tuple[str, Any]]:
    """Return the opened arguments of a row with their names, secrets masked."""
    _place_previous(row, args, kwargs)
    secret, task = secret_names(), task_of(row)
    return [
        (name, HIDDEN if is_hidden(name, task, secret) else redact(value, secret))
        for name, value in _named(args, kwargs, task)
    ]


def _place_previous(row: TaskRecord, args: Any, kwargs: Any) -> None:
    """Write "previous" where the results of others go when the task runs."""
    placed = mapping(mapping(getattr(row, "options", None)).get("workflow")).get("previous") or ()
    for path, source, keys in placed:
        name = {"": "previous", "!": "previous.failures"}.get(source, _("result"))
        with suppress(LookupError, TypeError):  # Whatever somebody wrote into the row.
            put(args, kwargs, path, name + "".join(f"[{key!r}]" for key in keys))


def _named(args: Any, kwargs: Any, task: Any) -> Iterator[tuple[str, Any]]:
    args = args if isinstance(args, list) else [args]
    kwargs = kwargs if isinstance(kwargs, dict) else {"**": kwargs}
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


def parameters_of(task: Any) -> list[str]:
    """Return the names of a task's parameters, without the context."""
    return list(Signature(task.func, takes_context=task.takes_context).names)


def metadata(row: TaskRecord) -> SafeString | str:
    """Return what the enqueuer gave along as "name = value", secrets masked."""
    secret = secret_names()
    return _assignments(
        (name, HIDDEN if secret.search(name) else as_json(redact(value, secret)))
        for name, value in mapping(mapping(getattr(row, "options", None)).get("metadata")).items()
    )


def _assignments(rows: Iterable[tuple[str, str]]) -> SafeString:
    return preformatted("\n".join(f"{name} = {text}" for name, text in rows))


def value(stored: Any, row: TaskRecord, *, most: int | None = None) -> SafeString | str:
    """Return what row's task returned as JSON, secrets masked; at most so many characters."""
    try:
        text = as_json(redacted_value(stored, row))
    except Exception:
        return sealed()
    if most is not None and len(text) > most:
        text = f"{text[:most]}…"
    return preformatted(text)


def redacted_value(stored: Any, row: TaskRecord) -> Any:
    """Return what row's task returned, secrets masked. Raise if it is sealed."""
    return redact(encryption.opened(stored, conf_of(row)), secret_names())


def sealed() -> str:
    """Return what is said of a value that can't be decrypted."""
    return _("It is encrypted with a key that OPTIONS['ENCRYPTION_KEYS'] does not hold.")


def as_json(value: Any) -> str:
    """Return a JSON value as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)
