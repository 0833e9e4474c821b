"""The only place that asks which database it is."""

from __future__ import annotations

from functools import cache

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .base import DatabaseOperations
from .exchanges import ChangeDetector, ClaimedTask, ClaimRequest, Ending, Exchange
from .failures import FailureKind, classify, is_closed, is_missing_table

__all__ = [
    "ChangeDetector",
    "ClaimRequest",
    "ClaimedTask",
    "DatabaseOperations",
    "Ending",
    "Exchange",
    "FailureKind",
    "classify",
    "is_closed",
    "is_missing_table",
    "operations_for",
]


@cache
def operations_for(alias: str) -> DatabaseOperations:
    """Return the operations of a database alias; they keep no state of a thread."""
    vendor = connections[alias].vendor
    if vendor == "postgresql":
        from .postgresql import PostgreSQLOperations

        return PostgreSQLOperations(alias)
    if vendor == "mysql":
        from .mysql import MySQLOperations

        return MySQLOperations(alias)
    if vendor == "sqlite":
        from .sqlite import SQLiteOperations

        return SQLiteOperations(alias)
    raise ImproperlyConfigured(
        f"django_bgtasks can't keep tasks in database {alias!r}, which is {vendor}. "
        "It knows PostgreSQL, MariaDB, MySQL and SQLite. Set OPTIONS['DATABASE'] to another alias."
    )
