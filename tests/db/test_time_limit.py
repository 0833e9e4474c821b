"""Statements that take too long are ended; what comes after them is not."""

import pytest
from django.db import DatabaseError, connection

from django_bgtasks.db import operations_for

pytestmark = pytest.mark.django_db(transaction=True)

SLOW = {
    "postgresql": "SELECT pg_sleep(5)",
    "mysql": "SELECT COUNT(*) FROM information_schema.columns a, information_schema.columns b, "
    "information_schema.columns c",
    "sqlite": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 100000000) "
    "SELECT COUNT(*) FROM t",
}


def run(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def test_a_statement_over_the_limit_is_ended():
    with pytest.raises(DatabaseError), operations_for("default").time_limit(0.2):
        run(SLOW[connection.vendor])
    assert run("SELECT 1")[0][0] == 1


def test_the_limit_ends_with_its_block():
    with operations_for("default").time_limit(0.2):
        assert run("SELECT 1")[0][0] == 1
    sleep = {"postgresql": "SELECT pg_sleep(0.4)", "mysql": "SELECT SLEEP(0.4)"}
    run(sleep.get(connection.vendor, "SELECT 1"))
