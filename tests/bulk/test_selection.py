"""From an address to tasks, to words, and to about how many there are."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_bgtasks.bulk import estimating
from django_bgtasks.bulk.estimating import estimate, rounded
from django_bgtasks.bulk.selection import Selection
from django_bgtasks.bulk.verbs import VERBS, in_words
from django_bgtasks.db import operations_for
from django_bgtasks.filtering import BadFilter, TaskFilter
from django_bgtasks.ids import first_id_of
from django_bgtasks.models import FinishedTask

from .. import factories
from ..admin.pages import assert_bounded
from .rows import FINGERPRINT, finished, group, queued, results, tasks

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_is_stored_is_read_again():
    wanted = TaskFilter(status="FAILED", queue="emails", cause=FINGERPRINT, since="24h")
    found = Selection.stored(wanted.as_dict(), finished=True, asked_at=NOON)
    assert found == Selection(True, wanted, NOON.timestamp())


def test_an_address_means_what_its_list_shows():
    query = {"q": "queue:emails import", "status": "FAILED", "p": "3", "o": "1", "all": "1"}
    found = Selection.of_address(query, finished=True)
    assert found.filter == TaskFilter(status="FAILED", queue="emails", word="import")
    assert Selection.of_address({"queue": "", "q": " "}, finished=True).filter == TaskFilter()


@pytest.mark.parametrize(
    ("query", "is_finished", "text"),
    [
        ({"color": "red"}, True, "'color' is no filter that is known here."),
        ({"status": "READY"}, True, "No result has the status ready."),
        ({"status": "FAILED"}, False, "No live task has the status failed."),
        ({"cause": "f"}, False, "A cause is that of results, not of live tasks."),
        ({"since": "yesterday"}, True, "'yesterday' is no age."),
        ({"q": "0193e5b0"}, True, "An id means one task: act on its own page."),
        ({"q": "queue:a", "queue": "b"}, True, "queue can't be both 'b' and 'a'."),
        ({"q": "colour:a"}, True, "Unknown qualifier"),
    ],
)
def test_what_is_not_understood_is_refused_and_not_left_out(query, is_finished, text):
    with pytest.raises(BadFilter) as caught:
        Selection.of_address(query, finished=is_finished)
    assert text in str(caught.value)


def test_what_was_stored_by_other_code_is_refused_and_not_left_out():
    for given in ({"color": "red"}, {"queue": ["a"]}):
        with pytest.raises(BadFilter):
            Selection.stored(given, finished=True, asked_at=NOON)


def test_rows_are_those_that_fit_all_of_it():
    queued(2, status="SCHEDULED", failures=1)
    queued(1, status="SCHEDULED")
    queued(1, status="SCHEDULED", failures=1, queue_name="emails")
    assert tasks(status="RETRYING", queue="default").rows("default").count() == 2


def test_an_age_counts_from_when_it_was_asked_for():
    finished(1, id=UUID(first_id_of(NOON.timestamp() - 3_601)))
    (new,) = finished(1, id=UUID(first_id_of(NOON.timestamp() - 3_599)))
    found = Selection(True, TaskFilter(since="1h"), NOON.timestamp())
    assert found.rows("default").get().pk == new.pk


def test_a_filter_is_said_in_words():
    assert results(status="FAILED", queue="emails").in_words("default") == (
        "results: status failed, queue emails"
    )
    assert tasks().in_words("default") == "all tasks"
    assert results().in_words("default") == "all results"
    assert results(cause=FINGERPRINT).in_words("default") == f"results: cause {FINGERPRINT}"
    group()
    assert results(cause=FINGERPRINT).in_words("default") == "results: cause ValueError in add"


def test_few_tasks_are_counted():
    queued(3)
    queued(2, queue_name="emails")
    factories.claim(limit=1)
    found = estimate("default", tasks(queue="default"))
    assert (found.count, found.is_exact) == (3, True)
    assert found.left_alone(VERBS["cancel"]) == {"RUNNING": 1}
    assert found.left_alone(VERBS["run_now"]) == {"READY": 2, "RUNNING": 1}


def test_a_rare_status_is_counted_however_many_others_there_are(monkeypatch):
    monkeypatch.setattr(estimating, "LIMIT", 20)
    finished(10)
    finished(50, status="SUCCESSFUL")
    found = estimate("default", results(status="FAILED"))
    assert (found.statuses, found.is_exact) == ({"FAILED": 10}, True)


def test_a_large_table_is_sampled_over_all_of_its_time(monkeypatch):
    monkeypatch.setattr(estimating, "LIMIT", 100)
    monkeypatch.setattr(estimating, "ROWS", 100)
    monkeypatch.setattr(type(operations_for("default")), "estimate", lambda *args: 2_000)
    # The newest of them all failed: they alone would tell a wrong story.
    spread(1_500, "SUCCESSFUL", 2_000)
    spread(500, "FAILED", 500)
    wanted = TaskFilter(queue="default")
    with CaptureQueriesContext(connection) as queries:
        found = estimate("default", Selection(True, wanted, NOON.timestamp()))
    assert not found.is_exact
    assert found.count == 2_000
    assert 300 <= found.statuses["FAILED"] <= 600
    assert_bounded(queries, 9)
    recent = Selection(True, replace(wanted, since="500s"), NOON.timestamp())
    assert 400 <= estimate("default", recent).count <= 600


def spread(count, status, ago):
    """Make a result a second, from so many seconds before noon on."""
    rows = finished(count, status=status)
    FinishedTask.objects.filter(pk__in=[row.pk for row in rows]).delete()
    for number, row in enumerate(rows):
        row.pk = first_id_of(NOON.timestamp() - ago + number)
    FinishedTask.objects.bulk_create(rows, batch_size=500)


def test_a_frequent_cause_is_as_large_as_its_group_says(monkeypatch):
    monkeypatch.setattr(estimating, "LIMIT", 5)
    group(total=48_312)
    finished(6, fingerprint=FINGERPRINT)
    assert estimate("default", results(cause=FINGERPRINT)).count == 48_300
    finished(1, fingerprint="a" * 32)
    assert estimate("default", results(cause="a" * 32)).count == 1


def test_tasks_of_a_cause_are_found_by_its_index():
    finished(300)
    finished(3, fingerprint=FINGERPRINT)
    rows = results(cause=FINGERPRINT).rows("default").order_by("-pk")
    if connection.vendor == "sqlite":
        assert "bgtasks_cause" in rows.explain()
    assert rows.count() == 3


def test_errors_of_many_tasks_are_sampled(monkeypatch):
    monkeypatch.setattr(estimating, "ERRORS", 10)
    entry = [{"exception_class_path": "builtins.ValueError"}]
    queued(40, status="SCHEDULED", failures=1, errors=entry)
    found = estimate("default", tasks(status="RETRYING", error="ValueErr"))
    assert (found.count, found.is_exact) == (40, False)
    assert estimate("default", tasks(status="RETRYING", error="x.Other")).count == 0


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
