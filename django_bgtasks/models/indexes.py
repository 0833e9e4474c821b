"""An index over the rows that a condition selects, where the database can have one."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class PartialIndex(models.Index):
    """
    Index with a condition on PostgreSQL and SQLite, without on MariaDB and MySQL.

    Django's own Index(condition=...) would warn every MySQL project
    (models.W037) of what is meant to be so here.
    """

    def __init__(self, *, where: models.Q, **kwargs: Any) -> None:
        self.where = where
        super().__init__(**kwargs)

    def deconstruct(self) -> tuple[str, Any, dict[str, Any]]:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "where": self.where}

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Any:
        if not schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor, using, **kwargs)
        index = models.Index(fields=self.fields, name=self.name, condition=self.where)
        return index.create_sql(model, schema_editor, using, **kwargs)
