"""About how many rows a table has, without reading them."""

import pytest
from django.db import connection

from django_bgtasks.db import operations_for
from django_bgtasks.ids import new_id
from django_bgtasks.models import FinishedTask

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_estimate_is_about_right_once_the_database_has_looked(django_assert_num_queries):
    now = operations_for("default").now()
    FinishedTask.objects.bulk_create(
        FinishedTask(id=new_id(), task_path="t", queue_name="q", priority=0, backend="default",
                     enqueued_at=now, finished_at=now, status="SUCCESSFUL")
        for _ in range(600)
    )  # fmt: skip
    if connection.vendor != "sqlite":
        table = connection.ops.quote_name(FinishedTask._meta.db_table)
        what = "TABLE " if connection.vendor == "mysql" else ""
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {what}{table}")
    with django_assert_num_queries(1):
        assert 400 <= operations_for("default").estimate(FinishedTask) <= 900
