"""
What pages cost, whatever the size of the tables: few statements, none that reads a table.

BGTASKS_CONSOLE_ROWS=1000000 fills as many results, and a tenth of it live tasks,
and prints what each page takes:

    BGTASKS_CONSOLE_ROWS=1000000 python -m pytest -s tests/admin/test_cost.py
"""

import os
import re
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_bgtasks.models import FinishedTask, QueuedTask

from .addresses import addresses, urls
from .many import fill

RESULTS = int(os.environ.get("BGTASKS_CONSOLE_ROWS", "20000"))
LIVE = max(2_000, RESULTS // 10)
#: Statements of a page, those of Django's session and user among them.
LIST, DETAIL = 15, 12
#: For a task, whose page has the graph if it is in a workflow.
TASK = 14
#: Ways to ask for a list, besides its first page.
QUESTIONS = {
    "queuedtask": (
        *("?status=READY", "?status=SCHEDULED", "?queue=emails", "?p=2", "?p=100"),
        *("?q=queue:emails", "?q=status:ready", "?q=send_receipt", "?q={short}"),
    ),
    "finishedtask": (
        *("?status=FAILED", "?status=SUCCESSFUL", "?queue=emails", "?p=2", "?p=100"),
        *("?q=queue:emails status:failed", "?q=status:failed", "?q=send_receipt"),
        *("?q=error:FeedError", "?q=label:team=sales", "?q={short}", "?before={middle}"),
    ),
    "dashboard": ("?h=1", "?h=6", "?h=24", "?h=168"),
    "failuregroup": ("?state=open", "?p=2"),
    "schedule": ("?p=2",),
}
TASKS = ("bgtasks_queuedtask", "bgtasks_finishedtask")

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Cost:
    """What one page took; slowest and server are milliseconds."""

    page: str
    queries: int
    server: float
    slowest: float
    status: int

    def __str__(self):
        return (
            f"{self.page:58} {self.status} {self.queries:8} {self.server:9.1f} {self.slowest:11.1f}"
        )


def problems_of(statement):
    """Return what a statement does that costs the more the larger the tables are."""
    sql = statement.upper()
    if "BGTASKS_" not in sql:
        return []
    found = []
    names_tasks = any(name.upper() in sql for name in TASKS)
    if "COUNT(" in sql and names_tasks and " LIMIT " not in sql:
        found.append("counts without a limit")
    if names_tasks and "DISTINCT" in sql:
        found.append("DISTINCT on tasks")
    if re.search(r"LIKE (BINARY )?'%", sql):
        found.append("LIKE '%")
    if any(int(n) > 10_000 for n in re.findall(r"OFFSET (\d+)", sql)):
        found.append("a deep OFFSET")
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT COUNT(*) FROM bgtasks_finishedtask",
        'SELECT DISTINCT "queue_name" FROM "bgtasks_queuedtask" LIMIT 5',
        "SELECT 1 FROM bgtasks_queuedtask WHERE task_path LIKE '%x%'",
        "SELECT 1 FROM bgtasks_queuedtask LIMIT 100 OFFSET 10100",
    ],
)
def test_the_reader_of_statements_sees_what_costs(statement):
    assert len(problems_of(statement)) == 1
    assert problems_of("SELECT COUNT(*) FROM (SELECT 1 FROM bgtasks_queuedtask LIMIT 9) s") == []


@contextmanager
def stopwatch(times):
    def timed(execute, *args):
        began = time.perf_counter()
        try:
            return execute(*args)
        finally:
            times.append(1000 * (time.perf_counter() - began))

    with connection.execute_wrapper(timed):
        yield


def pages():
    """Yield name, url and budget of every page that can be looked at."""
    ids = list(FinishedTask.objects.order_by("-pk").values_list("pk", flat=True)[:200])
    words = {"short": str(ids[7])[-8:], "middle": str(ids[-1])}
    for address in addresses():
        budget = DETAIL if address.needs_row else LIST
        if address.name == "change" and address.model in (QueuedTask, FinishedTask):
            budget = TASK
        for number, url in enumerate(urls(address, most=1)):
            yield f"{address} {number}" if number else str(address), url, budget
            if address.name == "changelist":
                for query in QUESTIONS.get(address.model._meta.model_name, ()):
                    yield f"{address} {query}", url + query.format(**words), budget


def measure(client, name, url, repeats):
    """Return the Cost of a page and its statements; Cost is None for what can't be looked at."""
    response = client.get(url)
    if response.status_code not in (200, 302):
        return None, []
    with CaptureQueriesContext(connection) as captured:
        client.get(url)
    # The next request forgets them.
    statements = [query["sql"] for query in captured]
    server, slowest = [], []
    for _ in range(repeats):
        times = []
        began = time.perf_counter()
        with stopwatch(times):
            answer = client.get(url)
            b"".join(answer) if answer.streaming else answer.content
        server.append(1000 * (time.perf_counter() - began))
        slowest.append(max(times, default=0.0))
    cost = Cost(
        name,
        len(statements),
        statistics.median(server),
        statistics.median(slowest),
        response.status_code,
    )
    return cost, statements


def test_pages_cost_little_whatever_the_size_of_the_tables(client):
    began = time.monotonic()
    client.force_login(fill(results=RESULTS, live=LIVE))
    # At most: the shop's own rows are among them.
    assert FinishedTask.objects.count() >= RESULTS
    assert QueuedTask.objects.count() >= LIVE
    filled = time.monotonic() - began
    large = RESULTS > 100_000
    costs, wrong = [], []
    for name, url, budget in pages():
        cost, statements = measure(client, name, url, 5 if large else 1)
        if cost is None:
            continue
        costs.append(cost)
        if cost.queries > budget:
            wrong.append(f"{name}: {cost.queries} statements, allowed are {budget}")
        for statement in statements:
            wrong += [f"{name} {problem}: {statement}" for problem in problems_of(statement)]
    head = f"{'page':62} {'queries':>8} {'server ms':>9} {'slowest ms':>11}"
    database = f"{connection.vendor}: {RESULTS:,} results, {LIVE:,} live tasks"
    print(f"\n{database}, filled in {filled:.0f} s", head, *costs, sep="\n")  # noqa: T201
    assert len(costs) > 30
    assert wrong == []
