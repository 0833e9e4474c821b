"""Which tasks are meant: from an address or a stored filter to rows and to words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..states import FinalStatus, LiveStatus

#: A state that is shown, and is no status: SCHEDULED after an attempt that failed.
RETRYING = "RETRYING"
#: Characters of a value.
LONGEST = 255


class InvalidSelection(ValueError):
    """A filter that can't be read, or means something that is not understood here."""


@dataclass(frozen=True, slots=True)
class Selection:
    """
    Tasks of one table: all of them that fit what is not empty.

    cause is a fingerprint and belongs to finished tasks; error is the path of
    the exception's class that the latest attempt of a live task ended with.
    since and before are aware and about when a task was enqueued.
    """

    finished: bool
    status: str = ""
    queue: str = ""
    task: str = ""
    cause: str = ""
    error: str = ""
    since: datetime | None = None
    before: datetime | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any], *, finished: bool) -> Selection:
        """
        Return what a mapping of texts says, such as the query of an address.

        Raise InvalidSelection for what isn't understood: to leave a part of a
        filter out would mean more tasks than somebody saw.
        """
        values: dict[str, Any] = {}
        known = [field.name for field in fields(cls) if field.name != "finished"]
        for name, value in given.items():
            if name not in known or (name == ("error" if finished else "cause") and value):
                raise InvalidSelection(
                    _("The filter “%(name)s” can't be used here. Known are: %(known)s.")
                    % {"name": name, "known": ", ".join(known)}
                )
            if not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
                raise InvalidSelection(_("The value of “%(name)s” is no filter.") % {"name": name})
            if value:
                values[name] = _time(name, value) if name in ("since", "before") else value
        status = values.get("status", "")
        if status and status not in statuses(finished=finished):
            raise InvalidSelection(
                _("“%(status)s” is no status. Known are: %(known)s.")
                % {"status": status, "known": ", ".join(statuses(finished=finished))}
            )
        return cls(finished=finished, **values)

    def stored(self) -> dict[str, str]:
        """Return what read() reads, as JSON has it."""
        found = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "finished" and value:
                found[field.name] = value.isoformat() if isinstance(value, datetime) else value
        return found

    @property
    def model(self) -> type[QueuedTask] | type[FinishedTask]:
        return FinishedTask if self.finished else QueuedTask

    def rows(self, alias: str) -> QuerySet[Any]:
        """Return the rows, in no order. What error says is for accepts() to tell."""
        rows = self.model._default_manager.using(alias).order_by()
        return rows.filter(**self.range(), **self.conditions())

    def range(self) -> dict[str, Any]:
        """Return the conditions on the primary key, which is the time of the enqueue."""
        found = {}
        if self.since is not None:
            found["pk__gte"] = first_id(self.since)
        if self.before is not None:
            found["pk__lt"] = first_id(self.before)
        return found

    def conditions(self) -> dict[str, Any]:
        """Return all other conditions."""
        found: dict[str, Any] = {}
        if self.status == RETRYING:
            found.update(status=LiveStatus.SCHEDULED, failures__gt=0)
        elif self.status:
            found["status"] = self.status
        if self.queue:
            found["queue_name"] = self.queue
        if self.task:
            found["task_path"] = self.task
        if self.cause:
            found["fingerprint"] = self.cause
        return found

    def accepts(self, errors: Any) -> bool:
        """Say whether the errors of a row are those that are meant."""
        if not self.error:
            return True
        last = errors[-1] if isinstance(errors, list) and errors else None
        return isinstance(last, dict) and last.get("exception_class_path") == self.error

    def words(self) -> str:
        """Return it as people read it; untrusted text is not escaped."""
        parts = [_("Results") if self.finished else _("Tasks")]
        if self.status:
            parts.append(_("status: %(value)s") % {"value": status_in_words(self.status)})
        for value, text in (
            (self.queue, _("queue: %(value)s")),
            (self.task, _("task: %(value)s")),
            (self.cause, _("cause: %(value)s")),
            (self.error, _("last error: %(value)s")),
        ):
            if value:
                parts.append(text % {"value": value})
        for moment, text in (
            (self.since, _("enqueued since %(value)s")),
            (self.before, _("enqueued before %(value)s")),
        ):
            if moment is not None:
                local = timezone.localtime(moment)
                parts.append(text % {"value": date_format(local, "Y-m-d H:i:s e")})
        if len(parts) == 1:
            return _("All results") if self.finished else _("All tasks")
        return " · ".join(parts)


def statuses(*, finished: bool) -> list[str]:
    """Return the statuses of a table that a filter may name."""
    return list(FinalStatus.values) if finished else [*LiveStatus.values, RETRYING]


def status_in_words(status: str) -> str:
    """Return a status, of either table, as people read it."""
    if status == RETRYING:
        return _("Waiting to retry")
    labels = {**dict(LiveStatus.choices), **dict(FinalStatus.choices)}
    return str(labels.get(status, status))


def first_id(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 of an aware moment."""
    milliseconds = max(0, int(moment.timestamp() * 1000)) & (2**48 - 1)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62)


def _time(name: str, text: str) -> datetime:
    try:
        # An address has a space where somebody has typed a plus.
        found = parse_datetime(text.replace(" ", "+"))
    except ValueError:
        found = None
    if found is None or timezone.is_naive(found):
        raise InvalidSelection(
            _("“%(value)s” of “%(name)s” is no time. Write 2026-01-31T14:00:00+00:00.")
            % {"value": text, "name": name}
        )
    return found
