"""What an exception of the database means for the statement that met it."""

from __future__ import annotations

from enum import Enum
from typing import Any

from django.db import DataError, Error, InterfaceError, OperationalError


class FailureKind(Enum):
    """TRANSIENT: try again. DATA: the value can't be stored. BUG: neither."""

    TRANSIENT = "transient"
    DATA = "data"
    BUG = "bug"


# By class: connection, resources, shutdown, rollback; read-only after a
# failover, idle in transaction, lock not available.
_TRANSIENT_STATES = ("08", "53", "57P", "40", "25006", "25P03", "55P03", "57014")
_DATA_STATES = ("22", "54")
_MYSQL_TRANSIENT = frozenset(
    {1020, 1021, 1040, 1053, 1114, 1158, 1159, 1160, 1161, 1180, 1205, 1213, 1290, 1927}
    | {2002, 2003, 2006, 2013, 2055, 3572}
)
# 1153 comes before 2006 and 2013 when a packet is too large: trying again is an endless loop.
_MYSQL_DATA = frozenset({1153, 1406, 3140, 4025, 1366, 1301})
_SQLITE_TRANSIENT = ("is locked", "is busy", "disk i/o", "disk is full", "unable to open")


def classify(error: BaseException) -> FailureKind:
    """Return what kind of failure an exception raised by a statement is."""
    if isinstance(error, UnicodeError | RecursionError | OverflowError):
        return FailureKind.DATA
    cause = error.__cause__ if isinstance(error, Error) and error.__cause__ else error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state:
        if state.startswith(_TRANSIENT_STATES):
            return FailureKind.TRANSIENT
        return FailureKind.DATA if state.startswith(_DATA_STATES) else FailureKind.BUG
    number = cause.args[0] if cause.args and isinstance(cause.args[0], int) else None
    if number is not None:
        if number in _MYSQL_DATA:
            return FailureKind.DATA
        if number in _MYSQL_TRANSIENT:
            return FailureKind.TRANSIENT
        return FailureKind.DATA if isinstance(error, DataError) else FailureKind.BUG
    text = str(cause).lower()
    if any(words in text for words in _SQLITE_TRANSIENT):
        return FailureKind.TRANSIENT
    if "no such table" in text:
        return FailureKind.BUG
    if isinstance(error, DataError):
        return FailureKind.DATA
    # A connection that broke has no SQLSTATE: "the connection is closed", "server closed ...".
    if isinstance(error, InterfaceError | OperationalError):
        return FailureKind.TRANSIENT
    return FailureKind.BUG


def is_missing_table(error: BaseException) -> bool:
    """Say whether a statement failed because migrate was not run."""
    cause = error.__cause__ or error
    if getattr(cause, "sqlstate", None) == "42P01":
        return True
    if cause.args and cause.args[0] == 1146:
        return True
    return "no such table: bgtasks_" in str(cause)


def is_closed(raw: Any) -> bool:
    """
    Say whether a driver's connection was closed behind Django's back, without a round trip.

    Each driver tells in its own way: psycopg has closed, mysqlclient has open,
    and sqlite3 raises.
    """
    if hasattr(raw, "closed"):
        return bool(raw.closed)
    if hasattr(raw, "open"):
        return not raw.open
    try:
        raw.total_changes  # noqa: B018
    except AttributeError:
        return False
    except Exception:
        return True
    return False
