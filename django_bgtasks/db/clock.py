"""The database's clock, the same on each of them: UTC, whatever the server's time zone."""

from __future__ import annotations

from typing import Any

from django.db.models import DateTimeField, Func


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
