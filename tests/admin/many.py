"""
A shop after some years: any number of results and of live tasks, in seconds.

The shop's own rows are multiplied by one statement each, in the database's SQL.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from django.db import connection, transaction
from django.utils import timezone

from django_bgtasks.ids import new_id
from django_bgtasks.models import (
    BulkOperation,
    FailureCount,
    FailureGroup,
    FinishedTask,
    Queue,
    QueuedTask,
    Schedule,
    Worker,
)
from django_bgtasks.statistics.ledger import bucket, write_buckets
from django_bgtasks.statistics.tally import FIGURES
from tests.browser.shop import open_shop

#: From milliseconds and a number to an id of version 7, and to a time.
SQL = {
    "sqlite": (
        "printf('%%012x7%%03x8%%015x', {ms}, {n} %% 4096, ({n} * 2654435761 * 40503) "
        "& 1152921504606846975)",
        "strftime('%%Y-%%m-%%d %%H:%%M:%%S', ({ms}) / 1000, 'unixepoch') "
        "|| printf('.%%06d', ({ms}) %% 1000 * 1000)",
    ),
    "postgresql": (
        "(lpad(to_hex(({ms})::bigint), 12, '0') || '7' || lpad(to_hex(({n} %% 4096)::bigint), 3, "
        "'0') || '8' || lpad(to_hex(({n}::bigint * 2654435761 * 997) & 1152921504606846975), 15, "
        "'0'))::uuid",
        "to_timestamp(({ms}) / 1000.0)",
    ),
    "mysql": (
        "CONCAT(LPAD(LOWER(HEX({ms})), 12, '0'), '7', LPAD(LOWER(HEX({n} %% 4096)), 3, '0'), '8', "
        "LPAD(LOWER(HEX(({n} * 2654435761 * 997) & 1152921504606846975)), 15, '0'))",
        "TIMESTAMPADD(MICROSECOND, ({ms}) * 1000, '1970-01-01 00:00:00')",
    ),
}
#: How old the results are that workers keep.
HISTORY = timedelta(days=30)


def fill(*, results, live):
    """Fill the empty default database; return the superuser."""
    ann = open_shop(results=300)
    with transaction.atomic():
        _multiply(FinishedTask, results)
        _multiply(QueuedTask, live, status__in=["READY", "SCHEDULED"])
    days = 90 if results > 500_000 else 3
    _figures(days)
    _causes(200, days)
    _few_more()
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            tables = (FinishedTask._meta.db_table, QueuedTask._meta.db_table)
            cursor.execute(f"ANALYZE TABLE {', '.join(tables)}")
            cursor.fetchall()
        else:
            cursor.execute("ANALYZE")
    return ann


def _multiply(model, count, **which):
    """Copy the rows of a model, evenly in time, until there are count."""
    patterns = list(model.objects.filter(**which).order_by("?").values_list("pk", flat=True)[:40])
    each = -(-(count - model.objects.count()) // len(patterns))
    start = int((timezone.now() - HISTORY).timestamp() * 1000)
    step = HISTORY.total_seconds() * 1000 / each
    # Before the shop's own day, so that its rows are the newest ones.
    step *= 0.9
    id_sql, time_sql = SQL[connection.vendor]
    digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
    places = range(len(str(each)))
    numbers = " + ".join(f"{10**place} * n{place}.d" for place in places)
    joined = " CROSS JOIN ".join(f"({digits}) n{place}" for place in places)
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    for place, pk in enumerate(patterns):
        n = f"(({numbers}) * {len(patterns)} + {place})"
        ms = f"({start} + CAST(({numbers}) * {step:.3f} + {place} AS {_integer()}))"
        columns = {}
        for field in model._meta.fields:
            expression = f"t.{quote(field.column)}"
            if field.primary_key:
                expression = id_sql.format(ms=ms, n=n)
            elif field.name in ("enqueued_at", "started_at", "last_attempted_at", "finished_at"):
                expression = f"CASE WHEN {expression} IS NULL THEN NULL ELSE {{}} END".format(
                    time_sql.format(ms=ms)
                )
            columns[quote(field.column)] = expression
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} "
                f"FROM {table} t CROSS JOIN {joined} WHERE t.id = %s AND {numbers} < {each}",
                [model._meta.pk.get_db_prep_value(pk, connection)],
            )


def _integer():
    return "SIGNED" if connection.vendor == "mysql" else "BIGINT"


def _figures(days):
    """Buckets as they are after so many days: the older, the wider."""
    now = timezone.now().replace(second=0, microsecond=0)
    figures = [40, 2, 1, 1, 61.5, 9.0, *([2] * (FIGURES - 6))]
    paths = [(path, "default") for path in _paths()]
    edges = [(60, timedelta(0)), (300, timedelta(hours=2)), (900, timedelta(hours=8))]
    edges += [(3_600, timedelta(days=2)), (0, timedelta(days=days))]
    for (width, young), (_, old) in pairwise(edges):
        end = int((now - young).timestamp()) // width * width
        starts = range(int((now - old).timestamp()) // width * width, end, width)
        for begin in range(0, len(starts), 20):
            rows = [
                bucket(datetime.fromtimestamp(start, UTC), width, queue, path, "", figures)
                for start in starts[begin : begin + 20]
                for path, queue in paths
            ]
            write_buckets("default", rows)


def _paths():
    return sorted(set(FinishedTask.objects.values_list("task_path", flat=True)[:1_000]))[:8]


def _causes(count, days):
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    pattern = FailureGroup.objects.first()
    groups = []
    for number in range(count):
        values = {f.attname: getattr(pattern, f.attname) for f in FailureGroup._meta.fields}
        values["fingerprint"] = f"{number:032x}"
        values["last_seen"] = now - timedelta(minutes=number)
        groups.append(FailureGroup(**values))
    FailureGroup.objects.bulk_create(groups)
    FailureCount.objects.bulk_create(
        FailureCount(fingerprint=group.fingerprint, hour=now - timedelta(hours=hour), count=3)
        for group in groups
        for hour in range(0, 24 * min(days, 7), 2)
    )


def _few_more():
    """As many queues, workers, schedules and bulk operations as a large site has."""
    Queue.objects.bulk_create(Queue(name=f"queue-{n}") for n in range(20))
    for model, count in ((Worker, 30), (Schedule, 120), (BulkOperation, 120)):
        pattern = model.objects.first()
        rows = []
        for number in range(count):
            values = {f.attname: getattr(pattern, f.attname) for f in model._meta.fields}
            values["name"] = f"{model._meta.model_name}-{number}"
            values.pop("id")
            if model is not Schedule:
                values["id"] = new_id()
            rows.append(model(**values))
        model.objects.bulk_create(rows)
