"""Texts that are compared letter by letter, on each database."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class ExactCharField(models.CharField):
    """
    A CharField whose values differ in the case of their letters, too.

    By default MariaDB and MySQL take "Nightly" and "nightly" for the same.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        found: dict[str, Any] = super().db_parameters(connection)
        # Where LIKE has to be told of the case of letters, = ignores it.
        if "BINARY" in connection.operators["contains"]:  # type: ignore[attr-defined]
            found["collation"] = "utf8mb4_bin"
        return found
