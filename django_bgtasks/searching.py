"""
From what a person types to the ids of tasks, without reading the table.

An id, a start of it (a range of the primary key), or its last digits, which
are looked for among the newest rows.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.db.models import CharField, Min, QuerySet, Value
from django.db.models.functions import Cast, Replace, Right

#: Rows whose last digits are looked at.
NEWEST = 100_000
#: Ids that are found at most.
MOST = 100
#: Characters that make a start; fewer are an end.
START = 13
END = 6

# The smallest and the largest UUIDv7.
_FIRST = "00000000000070008000000000000000"
_LAST = "ffffffffffff7fffbfffffffffffffff"
_ID_LIKE = re.compile("[0-9a-f-]+")


def matches(term: str, rows: QuerySet[Any]) -> list[UUID] | None:
    """Return the ids among rows that term may mean, None if it is no id."""
    term = term.strip().lower()
    digits = term.replace("-", "")
    if not _ID_LIKE.fullmatch(term) or not END <= len(digits) <= 32:
        return None
    rows = rows.order_by("-pk")
    if len(digits) == 32:
        return list(rows.filter(pk=UUID(digits)).values_list("pk", flat=True))
    found: list[UUID] = []
    size = len(digits)
    # Of other versions there is none, and a database may sort them by other digits.
    is_version_7 = digits[12:13] in ("", "7") and digits[16:17] in ("", "8", "9", "a", "b")
    if len(term) >= START and is_version_7:
        first, last = UUID(digits + _FIRST[size:]), UUID(digits + _LAST[size:])
        found = list(rows.filter(pk__gte=first, pk__lte=last).values_list("pk", flat=True)[:MOST])
    return found or _ending_in(digits, rows)


def _ending_in(digits: str, rows: QuerySet[Any]) -> list[UUID]:
    text = Cast("pk", CharField(max_length=36))
    # As text: PostgreSQL before 18 has no MIN() of UUIDs.
    oldest = rows.annotate(text=text)[:NEWEST].aggregate(Min("text"))["text__min"]
    if oldest is None:
        return []
    return list(
        rows.filter(pk__gte=UUID(oldest))
        .annotate(end=Right(Replace(text, Value("-"), Value("")), len(digits)))
        .filter(end=digits)
        .values_list("pk", flat=True)[:MOST]
    )
