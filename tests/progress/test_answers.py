"""progress_of(): what the site's own users are told, for each state and whatever was reported."""

from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync
from django.utils import translation

from django_bgtasks import chain, group
from django_bgtasks.progress import aprogress_of, progress_of
from django_bgtasks.results import build_result
from tests.sample_tasks import answer
from tests.workflows import tasks as workflow_tasks

BEGAN = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)


def result(state="RUNNING", *, after=None, **changes):
    """Return a result; after: it reported a progress so many seconds after it began."""
    notes = changes.pop("said", None)
    if notes is not None and after is not None:
        notes = {"at": (BEGAN + timedelta(seconds=after)).timestamp(), **notes}
    return build_result(
        task=answer,
        id="0193e5b0-0000-7000-8000-000000000000",
        state=state,
        enqueued_at=BEGAN,
        args=["secret-argument"],
        kwargs={},
        backend="default",
        database="default",
        last_attempted_at=BEGAN if state == "RUNNING" else None,
        notes=None if notes is None else {"progress": notes},
        **changes,
    )


def said(*, after=10, **progress):
    return progress_of(result(said=progress, after=after))


@pytest.mark.parametrize(
    ("state", "status", "text", "finished", "failed"),
    [
        ("SCHEDULED", "READY", "Waiting to start", False, False),
        ("WAITING", "READY", "Waiting to start", False, False),
        ("READY", "READY", "Waiting to start", False, False),
        ("RUNNING", "RUNNING", "In progress", False, False),
        ("SUCCESSFUL", "SUCCESSFUL", "Done", True, False),
        ("FAILED", "FAILED", "Something went wrong", True, True),
        ("CANCELLED", "FAILED", "Cancelled", True, True),
    ],
)
def test_each_state_is_said_in_words(state, status, text, finished, failed):
    assert progress_of(result(state)) == {
        "state": state,
        "status": status,
        "text": text,
        "detail": "",
        "finished": finished,
        "failed": failed,
        "progress": {
            "current": None,
            "total": None,
            "message": "",
            "fraction": 1.0 if state == "SUCCESSFUL" else None,
            "seconds_left": None,
        },
    }


@pytest.mark.parametrize("state", ["READY", "SCHEDULED"])
def test_a_task_that_will_run_again_waits_for_another_try(state):
    assert progress_of(result(state, worker_ids=["w1"]))["text"] == "Waiting for another try"


def test_a_report_becomes_a_fraction_and_the_time_that_is_left():
    told = said(current=30, total=120, message="Importing rows", after=100)
    assert told["progress"] == {
        "current": 30,
        "total": 120,
        "message": "Importing rows",
        "fraction": 0.25,
        "seconds_left": 300,
    }
    assert told["detail"] == "30 of 120 · Importing rows · about 5 min left"


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (10, "less than a minute left"),
        (600, "about 30 min left"),
        (6_000, "about 5 h left"),
    ],
)
def test_the_time_that_is_left_is_said_roughly(after, words):
    assert said(current=1, total=4, after=after)["detail"] == f"1 of 4 · {words}"


@pytest.mark.parametrize("after", [-60, 0, 1])
def test_no_time_is_guessed_from_an_earlier_attempt_or_a_moment(after):
    assert said(current=1, total=4, after=after)["progress"]["seconds_left"] is None


def test_a_task_that_has_ended_has_no_time_left():
    told = progress_of(result("FAILED", said={"current": 1, "total": 4}, after=60))
    assert told["progress"]["fraction"] == 0.25
    assert told["detail"] == "1 of 4"


@pytest.mark.parametrize(
    ("current", "total", "fraction"),
    [
        (0, 10, 0.0),
        (11, 10, 1.0),
        (-1, 10, 0.0),
        (0.5, 1, 0.5),
        (1, 3, 0.3333),
        (5, None, None),
        (None, 10, None),
        (0, 0, None),
        (5, -1, None),
        ("5", 10, None),
        (True, 10, None),
        ([], {}, None),
        (float("nan"), 10, None),
        (float("inf"), 10, None),
        (10**400, 10**401, None),
        (1e-300, 1e300, 0.0),
    ],
)
def test_whatever_a_task_reports_its_answer_can_be_given(current, total, fraction):
    assert said(current=current, total=total)["progress"]["fraction"] == fraction


@pytest.mark.parametrize("report", [5, "half", [], {"current": 1, "total": 2, "at": "now"}])
def test_a_report_of_another_form_is_no_error(report):
    build = result()
    object.__setattr__(build, "notes", {"progress": report})
    assert progress_of(build)["state"] == "RUNNING"


def test_what_turns_the_direction_of_text_is_made_visible():
    assert said(message="a\u202eb")["progress"]["message"] == "a\\u202eb"


def test_nothing_is_said_of_arguments_errors_values_or_reasons():
    failed = result(
        "FAILED",
        said={"current": 1, "total": 2, "message": "Half"},
        reason="secret-reason",
        errors=[{"exception_class_path": "secret.Error", "traceback": "secret-traceback"}],
    )
    successful = result("SUCCESSFUL", return_value="secret-value")
    assert "secret" not in str([progress_of(failed), progress_of(successful)])


def test_numbers_are_written_as_the_reader_does():
    with translation.override("de"):
        assert "1,5" in said(current=1.5, total=3)["detail"]


def test_async_code_may_ask():
    assert async_to_sync(aprogress_of)(result()) == progress_of(result())


# Workflows


def flow():
    return chain(
        group(workflow_tasks.give.with_args(n) for n in range(3)),
        workflow_tasks.note.with_args("x"),
    ).enqueue()


def test_of_a_workflow_the_finished_tasks_are_counted_in_one_query(
    driver, django_assert_num_queries
):
    started = flow()
    driver.step()
    with django_assert_num_queries(1):
        told = progress_of(started)
    assert told["state"] == "RUNNING"
    assert told["text"] == "In progress"
    assert told["detail"] == "1 of 4 steps"
    assert told["progress"]["fraction"] == 0.25


def test_of_a_workflow_that_has_ended_nothing_is_read(driver, django_assert_num_queries):
    started = flow()
    driver.drain()
    started.refresh()
    with django_assert_num_queries(0):
        told = progress_of(started)
    assert (told["text"], told["detail"], told["finished"]) == ("Done", "4 of 4 steps", True)


@pytest.mark.django_db
def test_a_workflow_that_was_cancelled_has_failed_as_a_task_has():
    started = flow()
    assert started.cancel()
    told = progress_of(started)
    assert (told["state"], told["status"], told["failed"]) == ("CANCELLED", "FAILED", True)


def test_the_backends_for_tests_are_understood(settings):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.ImmediateBackend"}}
    assert progress_of(answer.enqueue())["text"] == "Done"
    started = chain(workflow_tasks.give.with_args(1), workflow_tasks.fail.with_args()).enqueue()
    assert progress_of(started)["text"] == "Something went wrong"
