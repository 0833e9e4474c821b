"""What the pages of schedules show, and corners of their form."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from django_bgtasks.admin.schedule_form import ScheduleForm
from django_bgtasks.models import QueuedTask, Schedule, ScheduleRun, Worker
from django_bgtasks.schedules.by_hand import set_enabled
from tests import policy_tasks
from tests.schedules.conftest import finish
from tests.tasks import nothing

from .pages import changelist, page, plain, said, text
from .test_schedules import EDIT, GOOD, SEE, add_page, make

pytestmark = pytest.mark.django_db

PREVIEW = "preview/"


@pytest.fixture
def seer(client_with):
    return client_with(*SEE)


@pytest.fixture
def editor(client_with):
    return client_with(*EDIT, "run_schedule")


def form_of(row, **changes):
    return {
        **GOOD,
        "name": row.name,
        "expression": row.expression,
        "time_zone": row.time_zone,
        "args": "[1, 2]",
        "kwargs": "{}",
        **changes,
    }


# The form


def test_one_off_that_has_run_can_be_edited(editor):
    row = make(expression="at 2020-01-01 08:00:00", args=[1, 2])
    response = editor.post(page("schedule", row.pk), form_of(row, name="new year"))
    assert response.status_code == 302, response.context["adminform"].form.errors
    row.refresh_from_db()
    assert row.name == "new year"
    response = editor.post(
        page("schedule", row.pk), form_of(row, expression="at 2021-01-01 08:00:00")
    )
    assert "That time has passed." in plain(response.content.decode())


def test_schedule_that_has_ended_can_be_edited(editor):
    end = datetime(2020, 6, 1, tzinfo=UTC)
    row = make(end_at=end)
    bounds = {"end_at_0": "2020-06-01", "end_at_1": "00:00:00"}
    response = editor.post(page("schedule", row.pk), form_of(row, priority="9", **bounds))
    assert response.status_code == 302, response.context["adminform"].form.errors
    response = editor.post(
        page("schedule", row.pk), form_of(row, **{**bounds, "end_at_0": "2020-07-01"})
    )
    assert "has passed." in plain(response.content.decode())


def test_more_jitter_than_expires_is_refused(editor):
    response = editor.post(add_page(), {**GOOD, "jitter": "60", "expires": "30"})
    errors = response.context["adminform"].form.errors
    assert "jitter, 60 s, must be less than expires, 30 s" in " ".join(errors["jitter"])


@pytest.mark.parametrize("field", ["args", "kwargs"])
@pytest.mark.parametrize("value", ["1" * 5000, f"[{'1' * 5000}]", "[" * 100_000])
def test_json_that_python_gives_up_on_is_invalid(editor, field, value):
    response = editor.post(add_page(), {**GOOD, field: value})
    assert response.status_code == 200
    assert "Enter a valid JSON." in " ".join(response.context["adminform"].form.errors[field])
    row = make("other")
    response = editor.post(page("schedule", row.pk), {**form_of(row), field: value})
    assert response.status_code == 200


def test_names_may_differ_by_the_case_of_their_letters(editor):
    make("Nightly")
    assert editor.post(add_page(), GOOD).status_code == 302
    assert Schedule.objects.count() == 2


def test_name_that_is_taken_meanwhile_is_said_in_the_form(editor, monkeypatch):
    make()
    check, checked = ScheduleForm.validate_unique, []

    def too_early(form):
        if checked:
            check(form)
        checked.append(form)

    monkeypatch.setattr(ScheduleForm, "validate_unique", too_early)
    response = editor.post(add_page(), GOOD)
    assert response.status_code == 200
    assert "There is a schedule with this name already." in plain(response.content.decode())


# The preview


def preview(client, **given):
    given = {"expression": "0 0 * * *", "time_zone": "UTC", **given}
    response = client.get(changelist("schedule") + PREVIEW, given)
    assert response.status_code == 200
    return response.json()


def test_preview_stays_between_start_and_end(editor):
    day = timezone.now().date()
    start, end = day + timedelta(days=10), day + timedelta(days=12)
    bounds = {
        "start_at_0": start.isoformat(),
        "start_at_1": "00:00:00",
        "end_at_0": end.isoformat(),
        "end_at_1": "00:00:00",
    }
    runs = preview(editor, **bounds)["runs"]
    assert len(runs) == 3
    assert start.isoformat() in runs[0]
    assert end.isoformat() in runs[-1]
    # While somebody types the second date.
    assert len(preview(editor, **{**bounds, "end_at_0": "20"})["runs"]) == 5


def test_preview_counts_an_interval_from_its_start(editor):
    start = {"start_at_0": "2020-01-01", "start_at_1": "00:07:00"}
    assert ":07:00" in preview(editor, expression="every 1 hour", **start)["runs"][0]


def test_preview_shows_no_more_runs_than_are_left(editor):
    assert len(preview(editor, max_runs="2")["runs"]) == 2
    data = preview(editor, max_runs="2", runs="2")
    assert (data["runs"], data["error"]) == ([], "It is not due any more.")
    row = make(max_runs=3)
    Schedule.objects.update(runs=2)
    content = text(editor.get(page("schedule", row.pk)))
    assert 'data-bgt-runs="2"' in content
    runs = content.partition('data-bgt-part="runs">')[2]
    assert runs.partition("</ul>")[0].count("<li>") == 1


@pytest.mark.parametrize(
    "given",
    [
        {"expression": "at 8999-12-31 23:59:59", "time_zone": "Pacific/Kiritimati"},
        {"expression": "every 3660 days", "start_at_0": "8999-12-31", "start_at_1": "23:59:59"},
        {"start_at_0": "9999-12-31", "start_at_1": "23:59:59"},
        {"start_at_0": "0001-01-01", "start_at_1": "00:00:00", "expression": "every 1 hour"},
        {"max_runs": "9" * 30, "runs": "x"},
        {"expression": "\x00", "time_zone": "\x00"},
        {"expression": "x" * 300, "time_zone": "x" * 300},
    ],
)
def test_preview_answers_whatever_is_typed(editor, given):
    assert set(preview(editor, **given)) == {"sentence", "runs", "notes", "error"}


# The page of one


def finished(status):
    """Return the id of a task that has ended."""
    result = nothing.enqueue()
    finish([result.id], status)
    return result.id


def ran(row, number, status="FIRED", task=None, **columns):
    due = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(days=number)
    Schedule.objects.filter(pk=row.pk).update(last_due_at=due)
    return ScheduleRun.objects.create(
        schedule=row, due_at=due, fired_at=due, status=status, task_id=task, **columns
    )


def test_last_runs_are_dots_with_words_and_links(seer):
    row = make()
    for number in range(18):
        ran(row, number, "SKIPPED")
    good, bad = finished("SUCCESSFUL"), finished("FAILED")
    ran(row, 18, task=good)
    ran(row, 19, task=bad)
    content = text(seer.get(page("schedule", row.pk)))
    dots = content.partition('class="bgt-shapes">')[2].partition("</ul>")[0]
    assert dots.count("<li>") == 20
    assert dots.count("bgt-shape-idle") == 18
    # In the order of time, each with another shape and with its word.
    assert dots.index("skipped") < dots.index("successful") < dots.index("failed")
    assert dots.index("○") < dots.index("●") < dots.index("✕")
    for task in (good, bad):
        assert dots.count(page("finishedtask", task)) == 1
    assert "bgtasks/schedule.css" in content


def test_run_that_was_made_up_for_says_so(seer):
    row = make()
    ran(row, 1, late=True)
    assert "It was missed, and made up for." in plain(text(seer.get(page("schedule", row.pk))))


# The list


@pytest.mark.parametrize(
    ("outcome", "names"),
    [
        ("successful", ["good"]),
        ("failed", ["bad"]),
        ("cancelled", []),
        ("live", ["live"]),
        ("skipped", ["left out"]),
        ("held", []),
        ("none", ["new"]),
    ],
)
def test_list_is_filtered_by_the_outcome_of_the_last_run(seer, outcome, names):
    for name, status in (("good", "SUCCESSFUL"), ("bad", "FAILED")):
        row = make(name)
        ran(row, 1, task=finished("CANCELLED"))
        ran(row, 2, task=finished(status))
    ran(make("live"), 1, task=nothing.enqueue().id)
    ran(make("left out"), 1, "SKIPPED")
    make("new")
    response = seer.get(changelist("schedule"), {"outcome": outcome})
    text(response)
    assert sorted(row.name for row in response.context["cl"].result_list) == names


def worker(**columns):
    now = timezone.now()
    columns = {"backend": "default", "state": "RUNNING", "lease": 30, **columns}
    Worker.objects.create(
        id="01a2057c-0353-71a9-aa8e-559da9cf49a8",
        name="w",
        processes=1,
        threads=1,
        pid=1,
        started_at=now,
        heartbeat_at=now - timedelta(seconds=columns.pop("silent", 0)),
        **columns,
    )


@pytest.mark.parametrize(
    ("columns", "warning"),
    [
        ({}, None),
        ({"state": "QUIET"}, None),
        ({"scheduler": False}, "No worker is running that fires schedules."),
        ({"state": "STOPPED"}, "No worker is running that fires schedules."),
        ({"silent": 60}, "No worker is running that fires schedules."),
        (
            {"backend": "low"},
            "No worker is running that fires the schedules of default. "
            "Start one with python manage.py runworker --backend default.",
        ),
    ],
)
def test_list_warns_if_no_live_worker_carries_the_scheduler(seer, columns, warning):
    make()
    worker(**columns)
    content = plain(text(seer.get(changelist("schedule"))))
    assert ("No worker is running" in content) == (warning is not None)
    assert warning is None or warning in content


def test_without_a_schedule_nobody_is_warned_of_a_worker_but_shown_an_example(seer):
    content = plain(text(seer.get(changelist("schedule"))))
    assert "No schedules yet." in content
    assert "No worker is running" not in content


# Verbs


def test_run_that_a_unique_key_gives_away_is_a_warning(editor):
    row = make(task_path=policy_tasks.import_feed.module_path, args=[7])
    there = policy_tasks.import_feed.enqueue(7)
    (answer,) = said(editor.post(page("schedule", row.pk, "run")))
    assert answer == f"nightly is not run: Task {there.id} has its unique key."
    assert QueuedTask.objects.count() == 1
    assert ScheduleRun.objects.get().status == "SKIPPED"


def test_verb_upon_a_schedule_that_was_deleted_meanwhile_is_answered(editor, monkeypatch):
    row = make()

    def deleted_first(row, *args, **kwargs):
        Schedule.objects.filter(pk=row.pk).delete()
        return set_enabled(row, *args, **kwargs)

    monkeypatch.setattr("django_bgtasks.admin.schedules.by_hand.set_enabled", deleted_first)
    (answer,) = said(editor.post(page("schedule", row.pk, "disable")))
    assert answer == "Schedule 'nightly' is gone: somebody deleted it."


def test_schedule_of_a_backend_that_is_gone_can_be_deleted(editor):
    row = make(source="code", source_detail="shop.tasks", backend="former")
    response = editor.post(page("schedule", row.pk, "delete"), {"post": "yes"})
    assert response.status_code == 302
    assert not Schedule.objects.exists()
