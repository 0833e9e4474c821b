"""Databases as a task uses them: its statements seen, and its process dead after one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import DatabaseError, connections, transaction

from .tables import Table

_WRITES = re.compile(
    r"\s*(?:/\*.*?\*/\s*)*(?:WITH\b.*?\)\s*)?"
    r"(?:INSERT\s+(?:IGNORE\s+|OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE|DELETE\s+(?:[\"`]?\w+[\"`]?\s+)?FROM)\s+"
    r"(?:ONLY\s+)?[\"`]?(\w+)[\"`]?",
    re.IGNORECASE | re.DOTALL,
)
# What begins or undoes work is no point of its own to die at; RELEASE, which keeps it, is.
_PASSES = ("SAVEPOINT", "ROLLBACK", "SET ", "SHOW ")


class Crash(BaseException):
    """The process of the task has died. No Exception: nothing in a task is to survive it."""


class Witness:
    """
    Sees the statements of one run, and ends it after the one of this number.

    Every later statement ends it, too: what is dead asks nothing. statements
    has the texts of those that are counted, tables what was written to.
    """

    def __init__(self, crash_after: int | None = None) -> None:
        self._crash_after = crash_after
        self.statements: list[str] = []
        self.tables: set[Table] = set()
        self.crashed = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See what is done in this block, on each connection of this thread."""
        with ExitStack() as stack:
            for connection in connections.all():
                stack.enter_context(connection.execute_wrapper(self._execute))
            yield

    def watching_on(self) -> Any:
        """See what later runs write to; they don't die, and their statements aren't counted."""
        later = Witness()
        later.tables = self.tables
        return later.watching()

    def _execute(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = sql if isinstance(sql, str) else str(sql)
        if text.upper().startswith(_PASSES):
            return execute(sql, params, many, context)
        if self.crashed:
            if text.upper().startswith("RELEASE"):  # Of what was rolled back before.
                return execute(sql, params, many, context)
            raise Crash
        written = _WRITES.match(text)
        if written is not None:
            self.tables.add((context["connection"].alias, written[1]))
        value = execute(sql, params, many, context)
        self.statements.append(text)
        if len(self.statements) == self._crash_after:
            self.crashed = True
            raise Crash
        return value


@contextmanager
def undone() -> Iterator[None]:
    """Undo in the end what is done in this block, on each connection that is in use."""
    with ExitStack() as stack:
        for connection in connections.all():
            if _is_allowed(connection):
                stack.enter_context(_undone(connection))
        yield


def _is_allowed(connection: Any) -> bool:
    """Say whether this test may use a connection; Django's test cases have some refuse."""
    try:
        connection.cursor().close()
    except (AssertionError, DatabaseError):
        return False
    return True


@contextmanager
def _undone(connection: Any) -> Iterator[None]:
    if connection.in_atomic_block:
        mark = connection.savepoint()
        try:
            yield
        finally:
            connection.needs_rollback = False
            connection.savepoint_rollback(mark)
        return
    block = transaction.atomic(using=connection.alias)
    # As a test case's own: what runs in it may ask for a transaction that is durable.
    block._from_testcase = True
    with block:
        try:
            yield
        finally:
            transaction.set_rollback(True, using=connection.alias)
