"""
Which tasks: what people type, addresses say and bulk operations keep, as one thing.

"queue:emails status:failed task:import_feed label:customer=7 error:Timeout"
names tasks by what is equal; a word alone is a part of a task's name. Nothing
of it is looked for in the text of a column.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from . import registry
from .conf import suggestion
from .db import operations_for
from .ids import first_id_of
from .models.failure import FailureGroup
from .models.finished import FinishedTask
from .models.schedule import ScheduleRun
from .models.workflow import Node
from .states import FinalStatus, LiveStatus
from .statistics.reading import task_names

#: Scheduled tasks that have failed before: no status of a row's, but people ask for it.
RETRYING = "RETRYING"
#: Groups of failures, tasks and runs of a schedule that a word or a name may stand for.
MOST = 1_000
#: Characters of a filter.
LONGEST = 1_000

_SINCE = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class BadFilter(ValueError):
    """What was typed is no filter; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """
    What tasks have in common; "" where that is nothing.

    task is a path, or the end of one; word a part of a task's name; error the
    begin of the name of an exception; label "name=value"; since an age such as
    "24h" of the enqueue; key the text of a unique or concurrency key.
    """

    status: str = ""
    queue: str = ""
    task: str = ""
    word: str = ""
    cause: str = ""
    error: str = ""
    key: str = ""
    label: str = ""
    schedule: str = ""
    workflow: str = ""
    since: str = ""

    def __bool__(self) -> bool:
        return bool(self.as_dict())

    def as_dict(self) -> dict[str, str]:
        """Return what is asked for, for JSON and addresses."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value}

    @property
    def is_of_live(self) -> bool | None:
        """Whether the status is one of live tasks; None if there is no status."""
        if not self.status:
            return None
        return self.status in (*LiveStatus.values, RETRYING)

    @property
    def needs_payload(self) -> bool:
        """Whether the answer tells something of arguments: keys are made of them."""
        return bool(self.key)

    def in_words(self) -> str:
        """Return the filter as a person would say it."""
        words = {
            "status": _("status %(value)s"),
            "queue": _("queue %(value)s"),
            "task": _("task %(value)s"),
            "word": _("task with %(value)s in its name"),
            "cause": _("cause %(value)s"),
            "error": _("error %(value)s"),
            "key": _("key %(value)s"),
            "label": _("label %(value)s"),
            "schedule": _("schedule %(value)s"),
            "workflow": _("workflow %(value)s"),
            "since": _("enqueued within %(value)s"),
        }
        parts = [
            words[name] % {"value": value.lower() if name == "status" else value}
            for name, value in self.as_dict().items()
        ]
        return ", ".join(parts) or _("all tasks")

    def apply(self, rows: QuerySet[Any], *, now: float | None = None) -> QuerySet[Any]:
        """Return those of rows, of either table, that match; now is time.time()."""
        condition = self._condition(rows.model, rows.db, time.time() if now is None else now)
        return rows.none() if condition is None else rows.filter(condition)

    def _condition(self, model: Any, alias: str, now: float) -> Q | None:
        """Return what rows must fulfil, None if none can."""
        is_finished = model is FinishedTask
        found = Q()
        if self.status == RETRYING:
            if is_finished:
                return None
            found &= Q(status=LiveStatus.SCHEDULED, failures__gt=0)
        elif self.status:
            if self.status not in (FinalStatus if is_finished else LiveStatus).values:
                return None
            found &= Q(status=self.status)
        if self.queue:
            found &= Q(queue_name=self.queue)
        if self.task or self.word:
            paths = self._paths(alias)
            if not paths:
                return None
            found &= Q(task_path__in=sorted(paths))
        causes = self._causes(alias)
        if causes is not None:
            if not is_finished or not causes:
                return None
            # Said twice, since SQLite takes a partial index only for its own condition.
            found &= Q(fingerprint__in=sorted(causes), fingerprint__gt="")
        if self.key:
            marks = "options__marks"
            found &= Q(**{f"{marks}__unique__1": self.key}) | Q(
                **{f"{marks}__concurrency__1": self.key}
            )
        if self.label:
            name, _sign, value = self.label.partition("=")
            found &= Q(**{f"notes__labels__{name}": value}) | Q(
                **{f"options__labels__{name}": value}
            )
        if self.schedule:
            runs = ScheduleRun.objects.using(alias).filter(
                schedule__name=self.schedule, task_id__isnull=False
            )
            ids = list(runs.order_by("-due_at").values_list("task_id", flat=True)[:MOST])
            found &= Q(pk__in=ids)
        if self.workflow:
            members = Node.objects.using(alias).filter(workflow_id=UUID(self.workflow))
            found &= Q(pk__in=members.values("pk"))
        if self.since:
            found &= Q(pk__gte=first_id_of(now - seconds_of(self.since)))
        return found

    def _paths(self, alias: str) -> set[str]:
        """Return the paths of tasks that task and word may mean."""
        if self.task and "." in self.task and not self.word:
            return {self.task}
        now = operations_for(alias).now()
        known = {*registry.known_paths(), *task_names(alias, now=now, limit=MOST)}
        if self.task:
            known = {p for p in known if p == self.task or p.endswith(f".{self.task}")}
        if self.word:
            known = {p for p in known if self.word.lower() in p.rpartition(".")[2].lower()}
        return known

    def _causes(self, alias: str) -> set[str] | None:
        """Return fingerprints, None where that is not asked for."""
        causes = {self.cause} if self.cause else None
        if self.error:
            groups = FailureGroup.objects.using(alias).order_by("-last_seen")
            wanted = self.error.lower()
            named = {
                pk
                for pk, name in groups.values_list("pk", "exception_class")[:MOST]
                if name.lower() == wanted or name.rpartition(".")[2].lower().startswith(wanted)
            }
            causes = named if causes is None else causes & named
        return causes


#: What may stand before a colon.
QUALIFIERS = tuple(f.name for f in fields(TaskFilter) if f.name != "word")


def parse(text: str) -> TaskFilter:
    """Return the filter that somebody typed. Raise BadFilter."""
    found = TaskFilter()
    try:
        words = shlex.split(text[: LONGEST + 1])
    except ValueError:
        raise BadFilter(_("A quotation mark is missing.")) from None
    for word in words:
        name, colon, value = word.partition(":")
        if not colon:
            if found.word:
                raise BadFilter(
                    _("Search for one name of a task, not for %(one)r and %(other)r.")
                    % {"one": found.word, "other": word}
                )
            found = replace(found, word=word)
            continue
        found = with_qualifier(found, name.lower(), value)
    return found


def typed(given: Mapping[str, Any]) -> str:
    """Return what as_dict() gave as it is typed into a search box, "" for what never was typed."""
    words = [
        str(value) if name == "word" else f"{name}:{value}"
        for name, value in given.items()
        if value
    ]
    text = " ".join(map(shlex.quote, words))
    return text if len(text) <= LONGEST and text.isprintable() else ""


def with_qualifier(before: TaskFilter, name: str, value: str) -> TaskFilter:
    """Return a filter with one more qualifier. Raise BadFilter."""
    if name not in QUALIFIERS:
        raise BadFilter(
            _("Unknown qualifier %(name)r.") % {"name": name}
            + suggestion(name, QUALIFIERS)
            + " "
            + _("There are: %(names)s.") % {"names": ", ".join(f"{n}:" for n in QUALIFIERS)}
        )
    if len(value) > LONGEST:
        raise BadFilter(
            _("What follows %(name)s: has more than %(count)d characters.")
            % {"name": name, "count": LONGEST}
        )
    if not value:
        raise BadFilter(_("What follows %(name)s: is missing.") % {"name": name})
    if name == "status":
        value = _status(value)
    elif name == "workflow":
        value = _workflow(value)
    elif name == "label" and not re.fullmatch(r"[^=\s_]+(?:_[^=\s_]+)*=.*", value):
        raise BadFilter(_("A label is asked for as label:name=value."))
    elif name == "since":
        seconds_of(value)
    return replace(before, **{name: value})


def from_mapping(given: Mapping[str, Any]) -> TaskFilter:
    """Return the filter of as_dict(), or of an address. Raise BadFilter."""
    found = TaskFilter(word=str(given.get("word", "")))
    for name in QUALIFIERS:
        if value := given.get(name):
            found = with_qualifier(found, name, str(value))
    return found


def seconds_of(age: str) -> float:
    """Return the seconds of an age such as "90s", "15m", "24h", "7d". Raise BadFilter."""
    found = _SINCE.fullmatch(age.strip().lower())
    if found is None:
        raise BadFilter(
            _("%(age)r is no age. Type a number and a unit, such as 30m, 24h or 7d.") % {"age": age}
        )
    return float(found[1]) * _UNITS[found[2]]


def is_filter(text: str) -> bool:
    """Say whether a text looks like a filter rather than an id."""
    return ":" in text or not re.fullmatch(r"[0-9a-fA-F-]+", text.strip())


def _status(value: str) -> str:
    known = [*LiveStatus.values, RETRYING, *FinalStatus.values]
    if value.upper() not in known:
        names = [name.lower() for name in known]
        raise BadFilter(
            _("Unknown status %(value)r.") % {"value": value}
            + suggestion(value.lower(), names)
            + " "
            + _("There are: %(names)s.") % {"names": ", ".join(names)}
        )
    return value.upper()


def _workflow(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise BadFilter(_("%(value)r is no id of a workflow.") % {"value": value}) from None
