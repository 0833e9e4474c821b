"""A second session of a database: what is not committed can't be seen there."""

from contextlib import closing

from django.db import connections

from django_bgtasks.models import FinishedTask, QueuedTask


def committed_ids(alias="default"):
    """Return the ids of live tasks that a second connection sees."""
    return _ids(QueuedTask, alias)


def committed_finished_ids(alias="default"):
    """Return the ids of finished tasks that a second connection sees."""
    return _ids(FinishedTask, alias)


def _ids(model, alias):
    with closing(connections[alias].copy()) as other, other.cursor() as cursor:
        assert other.connection is not connections[alias].connection
        cursor.execute(f"SELECT id FROM {model._meta.db_table}")
        return {str(row[0]).replace("-", "") for row in cursor.fetchall()}


def is_committed(result):
    """Say whether a second connection sees the live row of result."""
    return result.id.replace("-", "") in committed_ids(result.database)
