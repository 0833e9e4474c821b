"""The database's clock, the same on each of them: UTC, whatever the server's time zone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from django.db.models import DateTimeField, Func, Value

_instead: ContextVar[Callable[[], datetime] | None] = ContextVar("bgtasks_clock", default=None)


@contextmanager
def told_by(clock: Callable[[], datetime]) -> Iterator[None]:
    """Have clock tell the database's time in this block: for tests, which travel through time."""
    token = _instead.set(clock)
    try:
        yield
    finally:
        _instead.reset(token)


def told() -> datetime | None:
    """Return the time that told_by()'s clock tells, None where the database's own does."""
    clock = _instead.get()
    return None if clock is None else clock()


class GivenNow(Value):
    """A time that is given in the place of the database's."""

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # A bare parameter in a SELECT comes back as text.
        sql, params = self.as_sql(compiler, connection)
        return f"CAST({sql} AS DATETIME(6))", params


class DatabaseNow(Func):
    """
    The database's current time.

    Django's own Now() is the server's local time on MariaDB and MySQL, so that
    an offset of five hours made a task due five hours early.
    """

    template = "CURRENT_TIMESTAMP"
    arity = 0
    output_field = DateTimeField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="STATEMENT_TIMESTAMP()", **context)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(
            compiler,
            connection,
            # Doubled, since Django fills in parameters by %.
            template="STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f', 'NOW')",
            **context,
        )
