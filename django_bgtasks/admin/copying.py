"""A copy of a task with other arguments: the form, what it starts with, what becomes of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import registry
from ..arguments import Signature
from ..compat import InvalidTask
from ..definition import DatabaseTask
from ..exceptions import DuplicateTask, InvalidArguments
from ..models.record import TaskRecord
from . import payload
from .display import visible

#: Characters of the arguments that a form can hold.
LARGEST = 200_000
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class NoCopy(Exception):
    """A task can't be copied; the text says why."""


class Original:
    """
    The task that is copied. Raise NoCopy where that can't be.

    Its arguments are an object by the names of the parameters; what *args take
    stands in a list under "*args", whatever its name is.
    """

    def __init__(self, row: TaskRecord) -> None:
        self.row = row
        self.task = payload.task_of(row)
        if self.task is None or payload.conf_of(row) is None:
            raise NoCopy(_("This code has no such task, so nothing can be enqueued."))
        try:
            args, kwargs = payload.opened_arguments(row)
        except Exception:
            raise NoCopy(payload.sealed()) from None
        if len(str(args)) + len(str(kwargs)) > LARGEST:
            raise NoCopy(_("Its arguments are too large to be edited here."))
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise NoCopy(_("Its arguments are of no shape that can be passed."))
        parameters = list(inspect.signature(self.task.func).parameters.values())
        if self.task.takes_context:
            parameters = parameters[1:]
        self._parameters = parameters
        names = [p.name for p in parameters if p.kind in _POSITIONAL]
        self._rest = next((f"*{p.name}" for p in parameters if p.kind is p.VAR_POSITIONAL), "")
        self.values: dict[str, Any] = dict(zip(names, args, strict=False))
        if self._rest and args[len(names) :]:
            self.values[self._rest] = args[len(names) :]
        self.values.update(kwargs)

    @property
    def has_places(self) -> bool:
        """Whether results of other tasks of its workflow are put into its arguments."""
        place = payload.mapping(payload.mapping(self.row.options).get("workflow"))
        return bool(place.get("previous"))

    def masked(self) -> dict[str, Any]:
        """Return the arguments without their secrets."""
        secret = payload.secret_names()
        return {
            name: payload.HIDDEN
            if payload.is_hidden(name, self.task, secret)
            else payload.redact(value, secret)
            for name, value in self.values.items()
        }

    def unmasked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return given with the stored values of secrets that were left alone. Raise ValueError."""
        masked = self.masked()
        return {
            name: _restored(value, masked.get(name), self.values.get(name), name)
            for name, value in given.items()
        }

    def call(self, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the keyword arguments. Raise ValueError."""
        values = dict(values)
        rest = values.pop(self._rest, []) if self._rest else []
        if not isinstance(rest, list):
            raise ValueError(_("%(name)s must be a list.") % {"name": self._rest})
        args: list[Any] = []
        for parameter in self._parameters:
            if parameter.kind not in _POSITIONAL or parameter.name not in values:
                break
            if rest or parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(values.pop(parameter.name))
        return [*args, *rest], values

    def check(self, values: dict[str, Any]) -> None:
        """Raise ValueError or InvalidArguments unless the function can be called so."""
        args, kwargs = self.call(values)
        Signature(self.task.func, takes_context=self.task.takes_context).bind(args, kwargs)

    def enqueue(self, values: dict[str, Any], *, by: str) -> Any:
        """
        Enqueue the copy, with the options of the original but its time; return its result.

        Raise InvalidArguments, InvalidTask or DuplicateTask.
        """
        row, options = self.row, payload.mapping(self.row.options)
        args, kwargs = self.call(values)
        task = registry.restore(
            row.task_path,
            options,
            priority=row.priority,
            queue_name=row.queue_name,
            backend=row.backend,
        )
        metadata = payload.mapping(options.get("metadata"))
        if metadata and isinstance(task, DatabaseTask):
            task = task.using(metadata=metadata)
        origin = {"origin": {"copy_of": str(row.pk), "user": by}}
        return task.get_backend().enqueue_as(task, args, kwargs, origin)


def _restored(value: Any, masked: Any, stored: Any, where: str) -> Any:
    if _is_same(value, masked):
        return stored
    if isinstance(value, dict):
        known = masked if isinstance(masked, dict) else {}
        kept = stored if isinstance(stored, dict) else {}
        return {
            key: _restored(item, known.get(key), kept.get(key), f"{where}[{key!r}]")
            for key, item in value.items()
        }
    if isinstance(value, list):
        # Only items that are as they were, and where they were: a secret must not move to
        # another one's item.
        is_known = isinstance(masked, list) and len(masked) == len(value)
        return [
            stored[place]
            if is_known and _is_same(item, masked[place])
            else _restored(item, None, None, f"{where}[{place}]")
            for place, item in enumerate(value)
        ]
    if value == payload.HIDDEN:
        raise ValueError(_("%(where)s is hidden: type its value.") % {"where": where})
    return value


def _is_same(one: Any, other: Any) -> bool:
    # To Python true is 1.
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


class CopyForm(forms.Form):
    """The arguments as JSON."""

    arguments = forms.CharField(
        label=gettext_lazy("Arguments"),
        strip=False,
        widget=forms.Textarea(attrs={"rows": 14, "spellcheck": "false"}),
    )

    def __init__(self, data: Any, *, original: Original, by: str) -> None:
        self._original, self._by = original, by
        #: The result of the new task, once enqueue() has returned True.
        self.result: Any = None
        text = json.dumps(original.masked(), indent=2, ensure_ascii=False)
        # What visible() writes, \\uXXXX, means the same character in JSON.
        super().__init__(data, initial={"arguments": visible(text)})

    def clean_arguments(self) -> dict[str, Any]:
        """Return the arguments with their secrets."""
        try:
            given = json.loads(self.cleaned_data["arguments"])
        except (ValueError, RecursionError) as error:
            text = _("This is no JSON: %(error)s.") % {"error": error}
            raise forms.ValidationError(visible(text)) from None
        if not isinstance(given, dict):
            raise forms.ValidationError(_("Give an object, which is {} without arguments."))
        try:
            values = self._original.unmasked(given)
            self._original.check(values)
        except (ValueError, RecursionError, InvalidArguments) as error:
            raise forms.ValidationError(visible(error)) from None
        return values

    def enqueue(self) -> bool:
        """Enqueue the copy, and say whether that was done; else the errors say why."""
        try:
            self.result = self._original.enqueue(self.cleaned_data["arguments"], by=self._by)
        except (InvalidArguments, InvalidTask, DuplicateTask) as error:
            self.add_error("arguments", visible(error))
            return False
        return True
