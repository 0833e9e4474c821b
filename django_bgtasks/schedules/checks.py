"""The system check of schedules in settings; those in code raise while they are imported."""

from __future__ import annotations

from typing import Any

from django.core import checks

from .. import queues
from ..conf import problems
from ..exceptions import InvalidSchedule
from .declarations import from_settings


def register() -> None:
    """Register the check."""
    checks.register(check_schedules)


def check_schedules(**kwargs: Any) -> list[checks.CheckMessage]:
    """Check each item of OPTIONS["SCHEDULES"], and that no two of a database have the same name."""
    found: list[checks.CheckMessage] = []
    names: dict[tuple[str, str], str] = {}
    for backend in queues.backends():
        if problems(backend.alias, backend.options):
            continue  # bgtasks.E002 says so.
        for number, given in enumerate(backend.conf.schedules):
            try:
                declaration = from_settings(backend.alias, number, given)
            except InvalidSchedule as error:
                found.append(_error(str(error)))
                continue
            name = declaration.specification.name
            there = names.setdefault((backend.database, name), declaration.where)
            if there != declaration.where:
                text = f"{declaration.where} and {there} have the same name, {name!r}."
                found.append(_error(text))
    return found


def _error(text: str) -> checks.CheckMessage:
    return checks.Error(text, hint="docs/schedules.md says what is allowed.", id="bgtasks.E010")
