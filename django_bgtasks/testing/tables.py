"""What stands in tables, comparable between two pasts of the same database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import connections
from django.db.models import AutoField, Model

#: A row of values, by column, as texts that can be compared and shown.
Row = tuple[tuple[str, str], ...]
#: A table: the alias of its database, and its name.
Table = tuple[str, str]

#: In the place of a key that a table gave to a row when it was inserted.
NEW = "a new row"
#: Differences of a table that are told.
TOLD = 5


@dataclass
class Contents:
    """
    Rows of one table.

    kept are those that were there at the start, by primary key; made counts
    the others by what they hold. keys are the primary keys of these, which differ
    from one past to the next: a sequence goes on after a rollback.
    """

    kept: dict[str, Row] = field(default_factory=dict)
    made: Counter[Row] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)

    def without(self, keys: set[str]) -> Contents:
        """Return it with NEW in the place of each value that is one of keys."""

        def masked(row: Row) -> Row:
            return tuple((name, NEW if value in keys else value) for name, value in row)

        made: Counter[Row] = Counter()
        for row, count in self.made.items():
            made[masked(row)] += count
        return Contents({key: masked(row) for key, row in self.kept.items()}, made)


def _model_of(table: str) -> type[Model] | None:
    for model in apps.get_models(include_auto_created=True):
        if model._meta.db_table == table and not model._meta.proxy:
            return model
    return None


def name_of(table: Table) -> str:
    """Return what a table is called in a message: its model."""
    model = _model_of(table[1])
    return table[1] if model is None else model._meta.label


class Reader:
    """
    Reads tables of databases.

    ignored are "app.Model" or "app.Model.field". Rows and keys that were there
    at the start are known by start(), which comes before read().
    """

    def __init__(self, ignored: Iterable[str]) -> None:
        """Raise ValueError for what is neither a model nor a field of one."""
        self._ignored = set(ignored)
        self._at_start: dict[Table, set[Any]] = {}
        for name in self._ignored:
            label, _, column = name.rpartition(".")
            try:
                if "." not in label:
                    apps.get_model(name)
                else:
                    apps.get_model(label)._meta.get_field(column)
            except Exception as error:
                raise ValueError(
                    f'ignore={name!r} is neither "app.Model" nor "app.Model.field".'
                ) from error

    def start(self, tables: Iterable[Table]) -> None:
        """Note the keys of the rows that are there, and of those that these may point to."""
        for alias, table in tables:
            model = _model_of(table)
            if model is not None:
                self._note(alias, model)
                for column in model._meta.concrete_fields:
                    if column.is_relation and isinstance(column.related_model, type):
                        self._note(alias, column.related_model)

    def _note(self, alias: str, model: type[Model]) -> None:
        table = (alias, model._meta.db_table)
        if table not in self._at_start:
            keys = model._base_manager.using(alias).values_list("pk", flat=True)
            self._at_start[table] = set(keys)

    def is_ignored(self, table: Table) -> bool:
        """Say whether a table is not to be compared."""
        model = _model_of(table[1])
        return model is not None and (
            model._meta.label in self._ignored or model._meta.app_label == "bgtasks"
        )

    def read(self, table: Table) -> Contents:
        """Return what stands in a table."""
        model = _model_of(table[1])
        contents = Contents()
        if model is None:
            for row in _raw_rows(table):
                contents.made[row] += 1
            return contents
        label, keys = model._meta.label, self._at_start[table]
        fields = [
            f for f in model._meta.concrete_fields if f"{label}.{f.name}" not in self._ignored
        ]
        for values in model._base_manager.using(table[0]).values():
            key = values[model._meta.pk.attname]
            is_kept = key in keys
            row = tuple(
                (f.attname, self._shown(table[0], f, values[f.attname]))
                for f in fields
                if is_kept or not _is_given(f)
            )
            if is_kept:
                contents.kept[repr(key)] = row
            else:
                contents.made[row] += 1
                if _is_given(model._meta.pk):
                    contents.keys |= {repr(key), repr(str(key))}
        return contents

    def _shown(self, alias: str, column: Any, value: Any) -> str:
        related: Any = column.related_model if column.is_relation else None
        if isinstance(related, type) and issubclass(related, Model) and value is not None:
            target = (alias, related._meta.db_table)
            if _is_given(related._meta.pk) and value not in self._at_start.get(target, ()):
                return NEW
        return repr(value)


def _is_given(column: Any) -> bool:
    """Say whether a primary key has no meaning of its own: a number, or a random default."""
    return column.primary_key and (isinstance(column, AutoField) or column.has_default())


def _raw_rows(table: Table) -> Iterator[Row]:
    connection = connections[table[0]]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table[1])}")
        names = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            yield tuple((name, repr(value)) for name, value in zip(names, row, strict=True))


def differences(once: Mapping[Table, Contents], again: Mapping[Table, Contents]) -> Iterator[str]:
    """Yield what is different in again, a line each."""
    for table in sorted(again):
        lines = list(_different(name_of(table), once.get(table, Contents()), again[table]))
        yield from lines[:TOLD]
        if len(lines) > TOLD:
            yield f"{name_of(table)}: {len(lines) - TOLD:,} more"


def _different(name: str, once: Contents, again: Contents) -> Iterator[str]:
    for key in sorted({*once.kept, *again.kept}):
        before, after = once.kept.get(key), again.kept.get(key)
        if before is None or after is None:
            yield f"{name} {key} is {'there' if before is None else 'gone'}"
        else:
            for (column, was), (_, now) in zip(before, after, strict=True):
                if was != now:
                    yield f"{name} {key}: {column} is {now}, after one run {was}"
    for row in sorted({*once.made, *again.made}):
        count, first = again.made[row], once.made[row]
        if count != first:
            shown = ", ".join(f"{column}={value}" for column, value in row)
            yield f"{name}({shown}): {_rows(count)}, after one run {_rows(first)}"


def _rows(count: int) -> str:
    return "no row" if not count else "1 row" if count == 1 else f"{count:,} rows"
