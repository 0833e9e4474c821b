"""The connections of a thread that runs tasks: kept open, and left clean."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from django.db import connections

from ..db import is_closed

logger = logging.getLogger("django_bgtasks.worker")


def clean_connections() -> None:
    """
    Leave this thread's connections as a new task expects them.

    They stay open, whatever CONN_MAX_AGE says (runworker's children set it); a
    transaction that was left open is rolled back, a broken connection closed.
    """
    for connection in connections.all(initialized_only=True):
        try:
            _clean(connection)
        except Exception:
            reset_connection(connection)


def _clean(connection: Any) -> None:
    raw = connection.connection
    if raw is not None and is_closed(raw):
        reset_connection(connection)
    elif (
        connection.in_atomic_block
        or connection.needs_rollback
        or (raw is not None and not connection.get_autocommit())
    ):
        logger.warning(
            "A task left a transaction open on database %r; it is rolled back.", connection.alias
        )
        reset_connection(connection)
    elif raw is not None:
        connection.close_if_unusable_or_obsolete()


def reset_connection(connection: Any) -> None:
    """Close a connection, whatever state it is in."""
    connection.in_atomic_block = False
    connection.atomic_blocks = []
    connection.savepoint_ids = []
    connection.needs_rollback = False
    connection.closed_in_transaction = False
    connection.run_on_commit = []
    try:
        connection.close()
    except Exception:  # The server is gone; there is nothing left to close.
        connection.connection = None


def reset_connections() -> None:
    """
    Close this thread's connections: a task was interrupted, perhaps within a query.

    Where the driver can, the query is ended on the server, too: it would run on there.
    """
    for connection in connections.all(initialized_only=True):
        cancel = getattr(connection.connection, "cancel_safe", None)
        if cancel is not None:
            with suppress(Exception):
                cancel(timeout=2.0)
        reset_connection(connection)
