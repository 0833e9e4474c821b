"""Progress, labels, logs and steps on the page of a task: shown, withheld, harmless."""

import re
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks.admin import notes
from django_bgtasks.admin.payload import HIDDEN
from django_bgtasks.models import FinishedTask, QueuedTask, Step
from tests import factories
from tests.tasks import add

from .pages import assert_bounded, changelist, page, plain, text
from .tasks import import_feed
from .test_pages import POISON

pytestmark = pytest.mark.django_db


def see(client, result):
    model = "queuedtask" if QueuedTask.objects.filter(pk=result.id).exists() else "finishedtask"
    return text(client.get(page(model, result.id)))


def noted(**found):
    """Return a running task that has left these notes."""
    result = add.enqueue(1, 2)
    factories.claim()
    QueuedTask.objects.update(notes=found)
    return result


def ended(**found):
    result = factories.fail(add.enqueue(1, 2))
    FinishedTask.objects.update(notes=found)
    return result


def step(result, name="one", value=None, **changes):
    fields = {"attempt": 1, "made_at": timezone.now(), **changes}
    return Step.objects.create(task_id=result.id, name=name, value=value, **fields)


# Progress


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (
            {"current": 47, "total": 120, "message": "Importing rows"},
            "39 % Importing rows · 47 of 120",
        ),
        ({"current": 1.25, "total": None, "message": ""}, "1.25"),
        ({"current": 0, "total": 3}, "0 % 0 of 3"),
        ({"current": None, "total": 10, "message": "Begins"}, "Begins"),
        ({"current": 2 / 3, "total": 1}, "66 % 0.6667 of 1"),
        ({"current": 30, "total": 10}, "100 % 30 of 10"),
        ({"current": -5, "total": 10}, "0 % -5 of 10"),
        ({"current": 1, "total": 0}, "1 of 0"),
    ],
)
def test_progress_in_words(viewer, progress, words):
    shown = see(viewer, noted(progress=progress))
    content = plain(shown)
    assert words in content
    assert ("%" in words) is ('role="progressbar"' in shown)


def test_progress_says_how_old_it_is(viewer):
    at = time.time() - 42  # As Execution.report() has it.
    content = plain(see(viewer, noted(progress={"current": 1, "total": 2, "at": at})))
    assert re.search(r"50 % 1 of 2 · 4[2-9] s ago", content)


def test_progress_says_how_long_the_rest_takes(viewer):
    result = noted()
    began = timezone.now() - timedelta(seconds=100)
    said = {"current": 25, "total": 100, "at": time.time()}
    QueuedTask.objects.update(last_attempted_at=began, notes={"progress": said})
    assert "about 5 min left" in plain(see(viewer, result)).replace("\xa0", " ")


def test_a_task_that_has_ended_has_nothing_left_to_do(viewer):
    content = plain(see(viewer, ended(progress={"current": 1, "total": 2, "at": time.time()})))
    assert "1 of 2" in content
    assert "left" not in content


@pytest.mark.parametrize("progress", [None, {}, [], "x", {"message": ""}, {"at": "x"}])
def test_no_progress_is_not_mentioned(viewer, progress):
    assert "Progress" not in see(viewer, noted(progress=progress))


# Labels


def test_labels_of_the_run_go_before_those_of_the_definition(viewer):
    result = import_feed.enqueue("acme", 1)
    assert "kind: import" in see(viewer, result)
    QueuedTask.objects.all().update(notes={"labels": {"kind": "export", "rows": 3}})
    content = plain(see(viewer, result))
    assert "Labels kind: export rows: 3" in content
    other = import_feed.using(labels={"tenant": "b"}).enqueue("acme", 2)
    assert "tenant: b" in see(viewer, other)
    assert "Labels" not in see(viewer, add.enqueue(1, 2))


def test_labels_with_names_of_secrets_are_masked(viewer):
    content = see(viewer, noted(labels={"api_key": "k3y"}))
    assert "k3y" not in content
    assert f"api_key: {HIDDEN}" in content


# Logs


def test_the_log_of_the_last_attempt_needs_the_permission(viewer, operator):
    result = ended(log="12:00:01.123 INFO shop: 3 rows\n12:00:02.001 WARNING shop: slow")
    content = see(operator, result)
    assert "INFO shop: 3 rows\n12:00:02.001 WARNING shop: slow" in content
    content = see(viewer, result)
    assert "You may not see what it has logged." in content
    assert "3 rows" not in content
    assert ">Log<" not in see(operator, add.enqueue(1, 2))


def test_each_failed_attempt_has_its_log(viewer, operator):
    result = factories.fail(add.enqueue(1, 2))
    (error,) = FinishedTask.objects.get().errors
    errors = [{**error, "log": "of the first"}, {**error, "attempt": 2, "log": "of the second"}]
    FinishedTask.objects.update(errors=errors)
    content = see(operator, result)
    assert content.index("of the second") < content.index("of the first")
    assert content.index("Log of attempt 2") < content.index("Log of attempt 1")
    assert "of the first" not in see(viewer, result)


def test_a_log_that_stands_among_the_errors_is_not_shown_twice(operator):
    result = ended(log="3 rows")
    (error,) = FinishedTask.objects.get().errors
    FinishedTask.objects.update(errors=[{**error, "log": "3 rows"}])
    assert see(operator, result).count("3 rows") == 1


# Steps


def begun():
    result = add.enqueue(1, 2)
    QueuedTask.objects.filter(pk=result.id).update(started_at=timezone.now())
    return result


def test_steps_are_shown_with_what_they_returned(viewer, operator):
    result = begun()
    step(result, "charge", {"id": "ch_1", "card_token": "t0k"}, attempt=2)
    step(result, "mail", "sent")
    content = plain(see(operator, result))
    assert content.index("mail · attempt 1 ·") < content.index("charge · attempt 2 ·")
    assert '"id": "ch_1"' in content
    assert "t0k" not in content
    content = plain(see(viewer, result))
    assert "charge · attempt 2 ·" in content
    assert "ch_1" not in content
    assert "You may not see what steps returned." in content
    factories.fail(result)
    assert "charge · attempt 2 ·" in see(operator, result)
    assert "Steps" not in see(operator, add.enqueue(1, 2))


def test_many_steps_and_large_values_are_cut(operator, monkeypatch):
    monkeypatch.setattr(notes, "MOST_STEPS", 3)
    result = begun()
    for number in range(5):
        step(result, f"step-{number}", "x" * 10_000)
    content = see(operator, result)
    assert "step-4" in content
    assert "step-1" not in content
    assert "these are the last 3." in content
    assert "x" * 4_000 in content
    assert "x" * 4_200 not in content


def test_a_viewer_without_the_permission_reads_no_values(viewer):
    result = begun()
    step(result, value="x")
    with CaptureQueriesContext(connection) as queries:
        see(viewer, result)
    (read,) = [q["sql"] for q in queries.captured_queries if "bgtasks_step" in q["sql"]]
    assert '."value"' not in read
    assert "`value`" not in read


def test_a_page_with_everything_on_it_costs_little(operator):
    result = import_feed.using(metadata={"a": 1}).enqueue("acme", 1)
    for number in range(20):
        step(result, f"step-{number}", number)
    factories.claim()
    QueuedTask.objects.update(status="RUNNING", notes={"progress": {"current": 1}})
    url = page("queuedtask", result.id)
    text(operator.get(url))
    with CaptureQueriesContext(connection) as queries:
        text(operator.get(url))
    assert_bounded(queries.captured_queries, 12)


def test_the_lists_read_no_notes(operator):
    noted(log="x")
    for model in ("queuedtask", "finishedtask"):
        with CaptureQueriesContext(connection) as queries:
            text(operator.get(changelist(model)))
        assert not [q for q in queries.captured_queries if "notes" in q["sql"]]


# Whatever stands there


def test_hostile_notes_run_nothing(operator):
    found = {
        "progress": {"current": POISON, "total": POISON, "message": POISON, "at": POISON},
        "labels": {POISON: POISON},
        "log": POISON,
    }
    live, done = noted(**found), ended(**found)
    (error,) = FinishedTask.objects.get().errors
    FinishedTask.objects.update(errors=[{**error, "log": POISON}])
    for result in (live, done):
        step(result, POISON[:100], [POISON])
        content = see(operator, result)
        assert "<script>alert" not in content
        assert "<img src=x" not in content
        assert "\x1b" not in content
        assert content.count("&lt;script&gt;alert(1)") >= 7
        assert r"\u202egnp.exe\u001b[31m" in content


@pytest.mark.parametrize(
    "found",
    [
        [],
        "x",
        5,
        {"progress": 5, "labels": [1], "log": {"a": 1}},
        {"progress": {"current": True, "total": [], "message": {}, "at": 5}, "labels": 7},
        {"progress": {"current": 1e308, "total": 10**400, "at": 1e300}},
        {"progress": {"current": 1, "at": "2026-01-01"}},
    ],
)
def test_a_page_opens_whatever_the_notes_hold(operator, found):
    result = add.enqueue(1, 2)
    QueuedTask.objects.update(notes=found)
    see(operator, result)


def test_a_page_opens_whatever_an_error_holds(operator):
    result = factories.fail(add.enqueue(1, 2))
    odd = [{"log": [1]}, {"log": {}}, {"traceback": 5, "started_at": 5, "ended_at": "x"}]
    FinishedTask.objects.update(errors=[{"worker_id": "", **error} for error in odd])
    see(operator, result)
