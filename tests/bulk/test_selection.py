"""From an address to tasks, to words, and to about how many there are."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_bgtasks.bulk import estimating
from django_bgtasks.bulk.estimating import estimate, rounded
from django_bgtasks.bulk.selection import InvalidSelection, Selection, first_id
from django_bgtasks.bulk.verbs import VERBS, in_words
from django_bgtasks.db import operations_for
from django_bgtasks.models import FinishedTask

from .. import factories
from ..admin.pages import assert_bounded
from .rows import FINGERPRINT, finished, group, queued

pytestmark = pytest.mark.django_db

TABLE = FinishedTask._meta.db_table
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_is_stored_is_read_again():
    given = {
        "status": "FAILED",
        "queue": "emails",
        "task": "shop.tasks.one",
        "cause": FINGERPRINT,
        "since": NOON.isoformat(),
        "before": (NOON + timedelta(days=1)).isoformat(),
    }
    found = Selection.read(given, finished=True)
    assert found.since == NOON
    assert found.stored() == given
    assert Selection.read({"queue": ""}, finished=True) == Selection(True)


@pytest.mark.parametrize(
    ("given", "finished", "text"),
    [
        ({"workflow": "1"}, True, "The filter “workflow” can't be used here."),
        ({"cause": "f"}, False, "The filter “cause” can't be used here."),
        ({"error": "x.E"}, True, "The filter “error” can't be used here."),
        ({"status": "READY"}, True, "“READY” is no status. Known are: SUCCESSFUL, FAILED"),
        ({"status": "FAILED"}, False, "“FAILED” is no status."),
        ({"since": "yesterday"}, True, "“yesterday” of “since” is no time."),
        ({"since": "2026-01-01T00:00:00"}, True, "is no time. Write 2026-01-31T14:00:00+00:00."),
        ({"queue": "a" * 256}, True, "The value of “queue” is no filter."),
        ({"queue": "a\x00"}, True, "The value of “queue” is no filter."),
        ({"queue": ["a"]}, True, "The value of “queue” is no filter."),
    ],
)
def test_what_is_not_understood_is_refused_and_not_left_out(given, finished, text):
    with pytest.raises(InvalidSelection) as caught:
        Selection.read(given, finished=finished)
    assert text in str(caught.value)


def test_rows_are_those_that_fit_all_of_it():
    queued(2, status="SCHEDULED", failures=1)
    queued(1, status="SCHEDULED")
    queued(1, status="SCHEDULED", failures=1, queue_name="emails")
    assert Selection(False, status="RETRYING", queue="default").rows("default").count() == 2
    (old,) = finished(1, id=first_id(NOON - timedelta(seconds=1)))
    (new,) = finished(1, id=first_id(NOON))
    assert Selection(True, since=NOON).rows("default").get().pk == new.pk
    assert Selection(True, before=NOON).rows("default").get().pk == old.pk


def test_a_filter_is_said_in_words():
    selection = Selection(True, status="FAILED", queue="emails", task="shop.tasks.one", since=NOON)
    assert selection.words() == (
        "Results · status: Failed · queue: emails · task: shop.tasks.one · "
        "enqueued since 2026-03-01 12:00:00 UTC"
    )
    assert Selection(False, status="RETRYING").words() == "Tasks · status: Waiting to retry"
    assert Selection(False).words() == "All tasks"
    assert Selection(True).words() == "All results"


def test_few_tasks_are_counted():
    queued(3)
    queued(2, queue_name="emails")
    factories.claim(limit=1)
    found = estimate("default", Selection(False, queue="default"))
    assert (found.count, found.is_exact) == (3, True)
    assert found.left_alone(VERBS["cancel"]) == {"RUNNING": 1}
    assert found.left_alone(VERBS["run_now"]) == {"READY": 2, "RUNNING": 1}


def test_a_rare_status_is_counted_however_many_others_there_are(monkeypatch):
    monkeypatch.setattr(estimating, "LIMIT", 20)
    finished(10)
    finished(50, status="SUCCESSFUL")
    found = estimate("default", Selection(True, status="FAILED"))
    assert (found.statuses, found.is_exact) == ({"FAILED": 10}, True)


def test_a_large_table_is_sampled_over_all_of_its_time(monkeypatch):
    monkeypatch.setattr(estimating, "LIMIT", 100)
    monkeypatch.setattr(estimating, "ROWS", 100)
    monkeypatch.setattr(type(operations_for("default")), "approximate_count", lambda *args: 2_000)
    # The newest of them all failed: they alone would tell a wrong story.
    spread(1_500, "SUCCESSFUL", 0)
    spread(500, "FAILED", 1_500)
    with CaptureQueriesContext(connection) as queries:
        found = estimate("default", Selection(True, queue="default"))
    assert not found.is_exact
    assert found.count == 2_000
    assert 400 <= found.statuses["FAILED"] <= 600
    assert_bounded(queries, 9)
    recent = Selection(True, queue="default", since=NOON + timedelta(seconds=1_500))
    assert 400 <= estimate("default", recent).count <= 600


def spread(count, status, start):
    """Make a result a second."""
    rows = finished(count, status=status)
    FinishedTask.objects.filter(pk__in=[row.pk for row in rows]).delete()
    for number, row in enumerate(rows):
        row.pk = first_id(NOON + timedelta(seconds=start + number))
    FinishedTask.objects.bulk_create(rows, batch_size=500)


def test_a_frequent_cause_is_as_large_as_its_group_says(monkeypatch):
    monkeypatch.setattr(estimating, "LIMIT", 5)
    group(total=48_312)
    finished(6, fingerprint=FINGERPRINT)
    assert estimate("default", Selection(True, cause=FINGERPRINT)).count == 48_300
    finished(1, fingerprint="a" * 32)
    assert estimate("default", Selection(True, cause="a" * 32)).count == 1


def test_errors_of_many_tasks_are_sampled(monkeypatch):
    monkeypatch.setattr(estimating, "ERRORS", 10)
    entry = [{"exception_class_path": "builtins.ValueError"}]
    queued(40, status="SCHEDULED", failures=1, errors=entry)
    found = estimate("default", Selection(False, status="RETRYING", error="builtins.ValueError"))
    assert (found.count, found.is_exact) == (40, False)
    assert estimate("default", Selection(False, status="RETRYING", error="x.Other")).count == 0


def test_about_how_many_rows_a_table_has_is_known_without_reading_it():
    finished(30)
    statement = {"postgresql": "ANALYZE {}", "mysql": "ANALYZE TABLE {}"}.get(connection.vendor)
    if statement:
        with connection.cursor() as cursor:
            cursor.execute(statement.format(TABLE))
    assert 20 <= operations_for("default").approximate_count(TABLE) <= 100


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, 0), (999, 999), (1_000, 1_000), (48_312, 48_300), (1_234_567, 1_230_000)],
)
def test_an_estimate_has_three_digits(count, shown):
    assert rounded(count, False) == shown
    assert rounded(count, True) == count


def test_reasons_are_said_with_their_numbers():
    assert in_words("RUNNING", 1) == "1 is running."
    assert in_words("RUNNING", 1_210) == "1,210 are running."
    assert in_words("", 2) == "2 are no longer here."
    assert in_words("NEW", 2) == "2 NEW"
