"""The form of a schedule: what it says is checked where code and settings are, too."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .. import registry
from ..exceptions import InvalidSchedule
from ..models.schedule import Schedule
from ..schedules.specification import Specification
from . import payload
from .base import backends
from .display import visible
from .filters import configured_queues

#: The fields whose names differ from those of a Specification.
FIELDS = {
    "task": "task_path",
    "when": "expression",
    "tz": "time_zone",
    "start": "start_at",
    "end": "end_at",
}


class ArgumentsField(forms.JSONField):
    """JSON; also what Python's reader gives up on with other errors than those of JSON."""

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except (ValueError, RecursionError):
            # An integer of 5,000 digits; brackets within brackets within brackets.
            raise forms.ValidationError(
                self.error_messages["invalid"], code="invalid", params={"value": value}
            ) from None

    def prepare_value(self, value: Any) -> Any:
        # As JSON writes such characters, too: what is given back unchanged is the same.
        prepared = super().prepare_value(value)
        return visible(prepared) if isinstance(prepared, str) else prepared

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            return forms.fields.InvalidJSONInput(data)


class ScheduleForm(forms.ModelForm):
    """A schedule that is made in the admin."""

    #: The database of the rows; set by the page.
    alias: str | None = None

    task_path = forms.ChoiceField(label=_("Task"))
    time_zone = forms.ChoiceField(label=_("Time zone"))
    queue_name = forms.ChoiceField(label=_("Queue"), required=False)

    class Meta:
        model = Schedule
        fields = (
            "name",
            "expression",
            "time_zone",
            "enabled",
            "task_path",
            "args",
            "kwargs",
            "queue_name",
            "priority",
            "missed",
            "overlap",
            "start_at",
            "end_at",
            "max_runs",
            "jitter",
            "expires",
            "success_within",
        )
        field_classes = {"args": ArgumentsField, "kwargs": ArgumentsField}
        help_texts = {
            "expression": _(
                "Five fields as in cron, @daily, every 15 minutes, or at 2027-01-01 08:00."
            ),
            "args": _("A list in JSON, in the order of the function's parameters."),
            "kwargs": _("An object in JSON."),
            "jitter": _("Seconds by which starts are spread."),
            "expires": _("Seconds after the due time from which on a start is not worth it."),
            "success_within": _("Seconds; later it counts as a problem."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task_path" in self.fields:
            self._fill_choices()
        row = self.instance
        if row.pk and "args" in self.fields:
            self.initial["args"], self.initial["kwargs"] = _masked(row)

    def _fill_choices(self) -> None:
        row = self.instance
        paths = known_tasks()
        if row.task_path and row.task_path not in paths:
            paths = [row.task_path, *paths]
        self.fields["task_path"].choices = [("", "---------"), *((p, visible(p)) for p in paths)]  # type: ignore[attr-defined]
        zones = sorted(available_timezones())
        if row.time_zone and row.time_zone not in zones:
            zones = [row.time_zone, *zones]
        self.fields["time_zone"].choices = [(name, name) for name in zones]  # type: ignore[attr-defined]
        if not row.pk:
            self.initial.setdefault("time_zone", timezone.get_default_timezone_name())
        names = configured_queues()
        if row.queue_name and row.queue_name not in names:
            names = [row.queue_name, *names]
        queues = [("", _("The task's own")), *((name, visible(name)) for name in names)]
        self.fields["queue_name"].choices = queues  # type: ignore[attr-defined]

    def clean_args(self) -> Any:
        args = self.cleaned_data["args"]
        if args is None:
            return []
        return _unmasked(args, self.instance.args) if self.instance.pk else args

    def clean_kwargs(self) -> Any:
        kwargs = self.cleaned_data["kwargs"]
        if kwargs is None:
            return {}
        return _unmasked(kwargs, self.instance.kwargs) if self.instance.pk else kwargs

    def clean(self) -> Any:
        data = super().clean() or self.cleaned_data
        if "expression" not in data or "task_path" not in data:
            return data
        backend = next(iter(backends()), None)
        given = {
            "tz": data.get("time_zone"),
            "args": data.get("args", []),
            "kwargs": data.get("kwargs", {}),
            "backend": self.instance.backend if self.instance.pk else backend and backend.alias,
            "queue_name": data.get("queue_name") or None,
            "priority": data.get("priority"),
            "missed": data.get("missed"),
            "overlap": data.get("overlap"),
            "start": data.get("start_at"),
            "end": data.get("end_at"),
            "max_runs": data.get("max_runs"),
            "jitter": data.get("jitter"),
            "expires": data.get("expires"),
            "success_within": data.get("success_within"),
        }
        try:
            said = Specification.of(
                name=data.get("name", "-"),
                task=data["task_path"],
                when=data["expression"],
                **given,
            )
            # What has passed may still be given another name.
            times = {FIELDS.get(name, name) for name in ("when", "tz", "start", "end")}
            is_new = not self.instance.pk or bool(times & set(self.changed_data))
            found = said.problems(now=timezone.now() if is_new else None)
        except InvalidSchedule as error:
            found = error.problems
        else:
            data["expression"] = said.when
            data["jitter"] = said.jitter
            if backend is not None and not self.instance.pk:
                self.instance.backend = backend.alias
        for name, text in found.items():
            field = FIELDS.get(name, name)
            if field in self.errors:
                continue
            self.add_error(field if field in self.fields else None, visible(text))
        return data

    def validate_unique(self) -> None:
        rows = Schedule.objects.using(self.alias).filter(name=self.cleaned_data.get("name"))
        if rows.exclude(pk=self.instance.pk).exists():
            self.add_error("name", _("There is a schedule with this name already."))


def known_tasks() -> list[str]:
    """Return the paths of the tasks that the code has."""
    modules = [name for backend in backends() for name in backend.conf.task_modules]
    try:
        registry.load_task_modules(modules)
    except Exception:  # Whatever a module raises: the others have tasks, too.
        pass
    return registry.known_paths(modules)


def _masked(row: Schedule) -> tuple[Any, Any]:
    """Return the arguments without their secrets, at any depth."""
    secret = payload.secret_names()
    task = payload.task_of(row)  # type: ignore[arg-type]
    names = [] if task is None else payload.parameters_of(task)

    def shown(name: str, value: Any) -> Any:
        is_hidden = payload.is_hidden(name, task, secret)
        return payload.HIDDEN if is_hidden else payload.redact(value, secret)

    args, kwargs = row.args, row.kwargs
    if isinstance(args, list):
        args = [
            shown(names[place] if place < len(names) else "", value)
            for place, value in enumerate(args)
        ]
    if isinstance(kwargs, dict):
        kwargs = {name: shown(name, value) for name, value in kwargs.items()}
    return args, kwargs


def _unmasked(value: Any, stored: Any) -> Any:
    """Return value with what was masked and left alone as it is stored."""
    if isinstance(value, dict) and isinstance(stored, dict):
        return {
            name: _unmasked(item, stored[name]) if name in stored else item
            for name, item in value.items()
        }
    if isinstance(value, list) and isinstance(stored, list):
        return [
            _unmasked(item, stored[place]) if place < len(stored) else item
            for place, item in enumerate(value)
        ]
    return stored if value == payload.HIDDEN else value
