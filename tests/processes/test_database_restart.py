"""A worker outlives its database."""

import os
import time

import pytest

from .conftest import until
from .servers import MariaDB, PostgreSQL, manage

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

#: The outage of the issue lasts 20 s; by default a shorter one is tried.
OUTAGE = float(os.environ.get("BGTASKS_OUTAGE_SECONDS", "4"))

ENQUEUE = (
    "from tests.tasks import count_through_outages as count; "
    "count.enqueue_many([('{name}', n, 0.02) for n in range({count})])"
)
COUNT = (
    "from tests.models import Effect; from django_bgtasks.models import *; "
    "print(FinishedTask.objects.filter(status='SUCCESSFUL').count(), "
    "FinishedTask.objects.exclude(status='SUCCESSFUL').count(), QueuedTask.objects.count(), "
    "Effect.objects.values('name', 'number').distinct().count())"
)


@pytest.fixture(params=[PostgreSQL, MariaDB], ids=["postgresql", "mariadb"])
def server(request):
    if not request.param.available():
        pytest.skip(f"{request.param.__name__}'s server is not installed.")
    if "BGTASKS_RESTART" not in os.environ and not os.environ.get("DATABASE_URL"):
        pytest.skip("Servers are restarted where DATABASE_URL names one.")
    if request.param.__name__.lower()[:3] not in os.environ.get(
        "DATABASE_URL", "postgresql mariadb"
    ).replace("mysql", "mariadb"):
        pytest.skip("This server's turn is with its own DATABASE_URL.")
    made = request.param()
    yield made
    made.close()


def test_a_worker_waits_for_its_database_and_goes_on(server, start_worker):
    manage(server.url, "migrate", "--run-syncdb", "-v0", BGTASKS_TEST_NAME="x")
    manage(server.url, "shell", "-v0", "-c", ENQUEUE.format(name="before", count=400))
    worker = start_worker(
        "-p", 2, "-v", 1, "--log-format", "pretty",
        settings="tests.settings", DATABASE_URL=server.url, PYTHONWARNINGS="ignore",
    )  # fmt: skip
    worker.says("▶ count_through")
    began = time.monotonic()
    server.stop()
    worker.says("The database can't be reached; waiting for it")
    while time.monotonic() - began < OUTAGE:
        assert worker.process.poll() is None
        time.sleep(0.1)
    server.start()
    manage(server.url, "shell", "-v0", "-c", ENQUEUE.format(name="after", count=100))
    worker.says("The database is back")

    def counts():
        return [int(n) for n in manage(server.url, "shell", "-v0", "-c", COUNT).split()]

    until(lambda: counts()[0] == 500, timeout=90, message=f"not all ended: {counts()}")
    assert counts() == [500, 0, 0, 500]
    assert worker.stop() == 0
