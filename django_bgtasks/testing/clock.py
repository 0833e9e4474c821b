"""The one clock of a test: what timezone.now() tells, the database tells, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any
from unittest import mock

from django.utils import timezone

from ..db.clock import told_by


class Clock:
    """
    timezone.now(), moved forward; with frozen it stands still.

    It goes on from whatever timezone.now() tells when it is started: a time that
    freezegun, time-machine or a mock has set, for one.
    """

    def __init__(self, *, frozen: bool = False) -> None:
        self._given = timezone.now
        self._asks = False
        self._shift = timedelta(0)
        self._stands_at = self._real() if frozen else None

    def now(self) -> datetime:
        """Return the time, aware."""
        return (self._stands_at or self._real()) + self._shift

    def _real(self) -> datetime:
        self._asks = True
        try:
            return self._given()
        finally:
            self._asks = False

    def forward_to(self, moment: datetime) -> None:
        """Make it moment, unless it is later already."""
        self._shift += max(timedelta(0), moment - self.now())

    @contextmanager
    def running(self) -> Iterator[Clock]:
        """Have timezone.now() and the database's time be this clock's in this block."""
        # The class besides: default=timezone.now has kept the function itself.
        with (
            mock.patch.object(timezone, "now", self.now),
            mock.patch.object(timezone, "datetime", self._datetime_told()),
            told_by(self.now),
        ):
            yield self

    def _datetime_told(self) -> type:
        """Return the class that timezone.now() asks, with a now() that is this clock's."""
        clock, given = self, vars(timezone)["datetime"]

        class AnyDatetime(type(given)):  # type: ignore[misc]
            def __instancecheck__(cls, instance: Any) -> bool:
                return isinstance(instance, given)

        class Datetime(given, metaclass=AnyDatetime):  # type: ignore[misc, valid-type]
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return given.now(tz) if clock._asks else clock.now().astimezone(tz)

        return Datetime
