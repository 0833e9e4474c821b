"""Which tasks are meant: one table's that a filter of filtering.py lets through."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _

from ..filtering import BadFilter, TaskFilter, from_mapping, is_filter, parse
from ..models.failure import FailureGroup
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask

#: Parameters of the addresses of lists that say where in the list one is, and not of what.
PLACES = frozenset({"p", "o", "e", "all", "before", "_changelist_filters", "_popup", "_to_field"})


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Tasks that a filter lets through: results if finished, else live ones.

    asked_at, a time.time(), is what the filter's ages count from.
    """

    finished: bool
    filter: TaskFilter
    asked_at: float

    @classmethod
    def stored(cls, given: Mapping[str, Any], *, finished: bool, asked_at: datetime) -> Selection:
        """Return the selection of a row of BulkOperation. Raise BadFilter."""
        _refuse_unknown(given)
        return cls.of(from_mapping(given), finished=finished, asked_at=asked_at.timestamp())

    @classmethod
    def of_address(cls, query: Mapping[str, str], *, finished: bool) -> Selection:
        """
        Return what the list at an address with this query shows. Raise BadFilter.

        What isn't understood is refused: to leave a part of a filter out would
        mean more tasks than somebody saw.
        """
        given = {name: text for name, text in query.items() if name not in PLACES}
        typed = given.pop("q", "").strip()
        _refuse_unknown(given)
        found = from_mapping(given)
        if typed:
            if not is_filter(typed):
                raise BadFilter(_("An id means one task: act on its own page."))
            for name, value in parse(typed).as_dict().items():
                before = getattr(found, name)
                if before and before != value:
                    raise BadFilter(
                        _("%(name)s can't be both %(one)r and %(other)r.")
                        % {"name": name, "one": before, "other": value}
                    )
                found = replace(found, **{name: value})
        return cls.of(found, finished=finished)

    @classmethod
    def of(cls, wanted: TaskFilter, *, finished: bool, asked_at: float | None = None) -> Selection:
        """Return the selection of a filter. Raise BadFilter for one of the other table alone."""
        if wanted.is_of_live is finished:
            raise BadFilter(
                _("No result has the status %(status)s.") % {"status": wanted.status.lower()}
                if finished
                else _("No live task has the status %(status)s.")
                % {"status": wanted.status.lower()}
            )
        if wanted.cause and not finished:
            raise BadFilter(_("A cause is that of results, not of live tasks."))
        return cls(finished, wanted, time.time() if asked_at is None else asked_at)

    @property
    def model(self) -> type[QueuedTask] | type[FinishedTask]:
        return FinishedTask if self.finished else QueuedTask

    @property
    def asks_errors(self) -> bool:
        """Whether accepts() is to be asked of each row: a live task has its error in JSON."""
        return bool(self.filter.error) and not self.finished

    def rows(self, alias: str) -> QuerySet[Any]:
        """Return the rows, in no order."""
        wanted = replace(self.filter, error="") if self.asks_errors else self.filter
        return wanted.apply(self.table(alias), now=self.asked_at)

    def table(self, alias: str) -> QuerySet[Any]:
        """Return all rows of the table, in no order."""
        return self.model._default_manager.using(alias).order_by()

    def accepts(self, errors: Any) -> bool:
        """Say whether the latest error of a live task is the one that is asked for."""
        if not self.asks_errors:
            return True
        last = errors[-1] if isinstance(errors, list) and errors else None
        name = str(last.get("exception_class_path", "")) if isinstance(last, dict) else ""
        wanted = self.filter.error.lower()
        return name.lower() == wanted or name.rpartition(".")[2].lower().startswith(wanted)

    def in_words(self, alias: str) -> str:
        """Return it as people read it; untrusted text is not escaped."""
        if not self.filter:
            return _("all results") if self.finished else _("all tasks")
        said = self.filter
        if said.cause:
            group = FailureGroup.objects.using(alias).defer("traceback").filter(pk=said.cause)
            said = replace(said, cause=str(group.first() or said.cause))
        kind = _("results: %(filter)s") if self.finished else _("tasks: %(filter)s")
        return kind % {"filter": said.in_words()}


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    known = TaskFilter.__slots__
    for name, value in given.items():
        if name not in known or not isinstance(value, str):
            raise BadFilter(
                _("%(name)r is no filter that is known here. There are: %(known)s.")
                % {"name": name, "known": ", ".join(known)}
            )
