"""The pages of schedules."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone, translation

from django_bgtasks.models import QueuedTask, Schedule, ScheduleRun, Worker
from django_bgtasks.schedules.by_hand import run_now
from tests.tasks import add, nothing

from .conftest import VIEW
from .pages import act, changelist, page, plain, said, text
from .tasks import log_in

SEE = (*VIEW, "view_schedule")
EDIT = (*SEE, "view_payload", "add_schedule", "change_schedule", "delete_schedule")

pytestmark = pytest.mark.django_db

GOOD = {
    "name": "nightly",
    "expression": "0 2 * * 1-5",
    "time_zone": "Europe/Warsaw",
    "enabled": "on",
    "task_path": add.module_path,
    "args": "[1]",
    "kwargs": '{"b": 2}',
    "queue_name": "reports",
    "priority": "5",
    "missed": "all",
    "overlap": "queue",
    "jitter": "30",
}


def make(name="nightly", **columns):
    columns = {
        "task_path": add.module_path,
        "args": [1, 2],
        "expression": "0 2 * * 1-5",
        "time_zone": "Europe/Warsaw",
        **columns,
    }
    return Schedule.objects.create(name=name, **columns)


def add_page():
    return changelist("schedule") + "add/"


@pytest.fixture
def seer(client_with):
    return client_with(*SEE)


@pytest.fixture
def editor(client_with):
    return client_with(*EDIT, "run_schedule")


# Making and changing


def test_a_schedule_is_made(editor):
    response = editor.post(add_page(), GOOD)
    assert response.status_code == 302, plain(response.content.decode())
    row = Schedule.objects.get()
    assert (row.name, row.expression, row.time_zone) == ("nightly", "0 2 * * 1-5", "Europe/Warsaw")
    assert (row.task_path, row.args, row.kwargs) == (add.module_path, [1], {"b": 2})
    assert (row.queue_name, row.priority, row.jitter) == ("reports", 5, 30.0)
    assert (row.missed, row.overlap, row.source) == ("all", "queue", "admin")
    assert row.look_at == row.next_due_at > timezone.now()


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"expression": "61 * * * *"}, "expression", "'61' is no minute (0 to 59)."),
        ({"expression": "0 0 30 2 *"}, "expression", "never comes: there is no such day."),
        ({"expression": "tomorrow"}, "expression", "'tomorrow' says no time."),
        ({"expression": "at 2020-01-01 08:00"}, "expression", "That time has passed."),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "Mars/Olympus is not one of the available"),
        ({"task_path": "tests.tasks.gone"}, "task_path", "is not one of the available choices"),
        ({"args": "[1, 2, 3]"}, "args", "add() takes 2 positional arguments but 3 were given"),
        ({"args": "[1"}, "args", "Enter a valid JSON."),
        ({"kwargs": '{"c": 1}'}, "args", "add() got an unexpected keyword argument 'c'"),
        ({"args": "{}"}, "args", "args must be a list"),
        (
            {
                "start_at_0": "2030-02-01",
                "start_at_1": "00:00",
                "end_at_0": "2030-01-01",
                "end_at_1": "00:00",
            },
            "end_at",
            "is not after the start",
        ),
        ({"jitter": "-1"}, "jitter", "jitter must be seconds or a timedelta"),
        ({"priority": "1000"}, "priority", "priority must be"),
        ({"max_runs": "0"}, "max_runs", "max_runs must be a whole number of at least 1"),
    ],
)
def test_what_is_wrong_stands_at_its_field(editor, changes, field, message):
    response = editor.post(add_page(), {**GOOD, **changes})
    assert response.status_code == 200
    errors = response.context["adminform"].form.errors
    assert message in " ".join(errors[field]), errors
    assert not Schedule.objects.exists()
    text(response)


def test_a_name_is_taken_once(editor):
    make()
    response = editor.post(add_page(), GOOD)
    assert "There is a schedule with this name already." in plain(response.content.decode())


def test_a_changed_time_is_planned_anew(editor):
    row = make()
    response = editor.post(page("schedule", row.pk), {**GOOD, "expression": "every 5 minutes"})
    assert response.status_code == 302
    row.refresh_from_db()
    assert row.expression == "every 5 minutes"
    assert row.next_due_at <= timezone.now() + timedelta(minutes=5)


def test_masked_arguments_that_are_left_alone_stay(editor):
    kwargs = {"user": "ann", "password": "tops3cret"}
    row = make(task_path=log_in.module_path, args=[], kwargs=kwargs)
    content = text(editor.get(page("schedule", row.pk)))
    assert "tops3cret" not in content
    response = editor.post(
        page("schedule", row.pk),
        {
            **GOOD,
            "task_path": log_in.module_path,
            "args": "[]",
            "kwargs": '{"user": "bob", "password": "••••••••"}',
        },
    )
    assert response.status_code == 302, response.context["adminform"].form.errors
    row.refresh_from_db()
    assert row.kwargs == {"user": "bob", "password": "tops3cret"}


def test_secrets_within_arguments_are_masked_and_stay(editor):
    kwargs = {"user": "ann", "password": "", "hosts": [{"name": "a", "api_key": "tops3cret"}]}
    row = make(task_path=log_in.module_path, args=[], kwargs=kwargs)
    content = text(editor.get(page("schedule", row.pk)))
    assert "tops3cret" not in content
    masked = {
        "user": "bob",
        "password": "••••••••",
        "hosts": [{"name": "b", "api_key": "••••••••"}, {"name": "c", "api_key": "new"}],
    }
    data = {**GOOD, "task_path": log_in.module_path, "args": "[]", "kwargs": json.dumps(masked)}
    response = editor.post(page("schedule", row.pk), data)
    assert response.status_code == 302, response.context["adminform"].form.errors
    row.refresh_from_db()
    assert row.kwargs == {
        "user": "bob",
        "password": "",
        "hosts": [{"name": "b", "api_key": "tops3cret"}, {"name": "c", "api_key": "new"}],
    }


def test_arguments_of_an_unknown_task_are_masked_in_the_form(editor):
    row = make(task_path="tests.tasks.gone", args=["tops3cret"], kwargs={"hint": "tops3cret"})
    assert "tops3cret" not in text(editor.get(page("schedule", row.pk)))


# Pages


def test_the_list_says_what_is_due_when_and_how_it_went(seer):
    row = make()
    make("code", source="code", source_detail="shop.tasks", expression="every 15 minutes")
    due = datetime(2026, 6, 1, tzinfo=UTC)
    ScheduleRun.objects.create(schedule=row, due_at=due, fired_at=due, status="SKIPPED")
    Schedule.objects.filter(pk=row.pk).update(last_due_at=due)
    content = plain(text(seer.get(changelist("schedule"))))
    content = content.replace("\xa0", " ")
    for words in (
        "At 02:00, Monday through Friday",
        "0 2 * * 1-5",
        "Europe/Warsaw",
        "skipped",
        "Every 15 minutes",
        "code: shop.tasks",
    ):
        assert words in content


def test_the_sentence_is_in_the_language_of_the_viewer(seer):
    make()
    with translation.override("de"):
        content = seer.get(changelist("schedule"), headers={"accept-language": "de"})
        assert "Um 02:00, Montag bis Freitag" in plain(content.content.decode())


def test_a_page_shows_the_next_runs_and_what_clocks_do(seer):
    row = make(expression="30 2 * * *")
    content = plain(text(seer.get(page("schedule", row.pk))))
    assert "At 02:30" in content
    assert "02:30 doesn't exist: one run at 03:00 instead." in content
    assert "02:30 comes twice: it runs the first time" in content
    assert "You may not see arguments." in content
    assert "Run now" not in content
    assert "Disable" not in content


def test_a_page_shows_the_last_runs_with_links_to_their_tasks(seer):
    row = make()
    result = run_now(row, by="ann", alias="default")
    content = text(seer.get(page("schedule", row.pk)))
    assert page("queuedtask", result.id) in content
    assert "Run by ann." in content


def test_what_the_code_says_is_not_changed_here(editor):
    row = make(source="code", source_detail="shop.tasks")
    content = text(editor.get(page("schedule", row.pk)))
    assert 'name="expression"' not in content
    assert "Delete" not in plain(content)
    response = editor.post(page("schedule", row.pk), {**GOOD, "expression": "@hourly"})
    assert response.status_code == 403
    assert editor.post(page("schedule", row.pk, "delete"), {"post": "yes"}).status_code == 403
    row.refresh_from_db()
    assert row.expression == "0 2 * * 1-5"


def test_the_preview_answers_while_somebody_types(editor):
    address = changelist("schedule") + "preview/"
    data = editor.get(address, {"expression": "0 2 * * *", "time_zone": "Asia/Tokyo"}).json()
    assert data["sentence"] == "At 02:00"
    assert len(data["runs"]) == 5
    assert "in UTC" in data["runs"][0]
    data = editor.get(address, {"expression": "0 0 30 2 *", "time_zone": "UTC"}).json()
    assert "never comes" in data["error"]
    assert "Unknown time zone" in editor.get(address, {"expression": "@daily"}).json()["error"]


def test_a_failed_save_shows_the_preview_of_what_was_given(editor):
    row = make()
    response = editor.post(
        page("schedule", row.pk), {**GOOD, "expression": "@monthly", "args": "[1, 2, 3]"}
    )
    assert "on day 1 of the month" in plain(response.content.decode())


def test_without_a_schedule_the_list_says_how_to_make_one(editor):
    content = plain(text(editor.get(changelist("schedule"))))
    assert "No schedules yet." in content
    assert "@schedule(" in content


def test_the_list_warns_when_no_worker_runs(seer):
    make()
    assert "No worker is running" in plain(text(seer.get(changelist("schedule"))))
    now = timezone.now()
    Worker.objects.create(
        id="01a2057c-0353-71a9-aa8e-559da9cf49a8",
        name="w",
        backend="default",
        processes=1,
        threads=1,
        pid=1,
        state="running",
        started_at=now,
        heartbeat_at=now,
        lease=30,
    )
    assert "No worker is running" not in plain(text(seer.get(changelist("schedule"))))


def test_the_list_costs_the_same_for_one_and_for_many(seer, django_assert_max_num_queries):
    due = timezone.now()
    for number in range(30):
        row = make(f"s{number}")
        ScheduleRun.objects.create(schedule=row, due_at=due, fired_at=due, status="SKIPPED")
    Schedule.objects.update(last_due_at=due)
    with django_assert_max_num_queries(12):
        text(seer.get(changelist("schedule")))


def test_untrusted_text_is_shown_as_text(seer):
    row = make("<script>alert(1)</script>\u202e", task_path="a.<b>", expression="<i>")
    Schedule.objects.filter(pk=row.pk).update(error="<img src=x>", errors=1)
    for address in (changelist("schedule"), page("schedule", row.pk)):
        content = text(seer.get(address))
        assert "<script>alert" not in content
        assert "<img src=x" not in content
        assert "<i>" not in content


# Verbs


def test_run_now_asks_and_enqueues(editor):
    row = make()
    planned = Schedule.objects.values().get()
    content = plain(text(editor.get(page("schedule", row.pk, "run"))))
    assert "The regular plan stays as it is." in content
    assert "a = 1" in content
    assert not QueuedTask.objects.exists()
    response = editor.post(page("schedule", row.pk, "run"))
    assert "nightly is enqueued." in said(response)[0]
    assert QueuedTask.objects.get().args == [1, 2]
    assert Schedule.objects.values().get() == planned
    content = plain(text(editor.get(page("schedule", row.pk, "run"))))
    assert "1 task of this schedule has not ended yet." in content
    assert LogEntry.objects.get().change_message == "Run now."


def test_a_run_that_cannot_be_is_explained(editor):
    row = make(args=[1, 2, 3])
    (answer,) = said(editor.post(page("schedule", row.pk, "run")))
    assert "nightly could not be run: add() takes" in answer


def test_schedules_are_enabled_and_disabled(editor):
    first, second = make("a", source="code"), make("b")
    assert act(editor, "schedule", "disable", [first.pk, second.pk]) == [
        "2 schedules are disabled."
    ]
    assert not Schedule.objects.filter(enabled=True).exists()
    assert act(editor, "schedule", "disable", [first.pk]) == [
        "1 was skipped: it was disabled already."
    ]
    response = editor.post(page("schedule", first.pk, "enable"))
    assert said(response) == ["1 schedule is enabled."]
    first.refresh_from_db()
    assert first.enabled
    assert first.look_at > timezone.now()


def test_several_are_run_at_once(editor):
    rows = [make("a"), make("b", task_path=nothing.module_path, args=[])]
    assert len(act(editor, "schedule", "run_ticked", [row.pk for row in rows])) == 2
    assert QueuedTask.objects.count() == 2


# Who may do what


@pytest.mark.parametrize("verb", ["run", "enable", "disable", "delete", "change"])
def test_who_may_only_look_changes_nothing(seer, verb):
    row = make(enabled=verb != "enable")
    before = Schedule.objects.values().get()
    response = seer.post(page("schedule", row.pk, verb), {**GOOD, "post": "yes"})
    assert response.status_code == 403
    assert Schedule.objects.values().get() == before
    assert not QueuedTask.objects.exists()


@pytest.mark.parametrize("verb", ["run", "enable", "disable", "delete", "change"])
def test_a_stranger_is_asked_to_log_in(db, verb):
    row = make()
    response = Client().post(page("schedule", row.pk, verb), GOOD)
    assert response.status_code == 302
    assert "login" in response.url
    assert not QueuedTask.objects.exists()


def test_who_may_only_look_makes_none_and_sees_no_preview(seer):
    assert seer.post(add_page(), GOOD).status_code == 403
    assert seer.get(changelist("schedule") + "preview/").status_code == 403
    assert not Schedule.objects.exists()


def test_no_get_changes_anything(editor):
    row = make()
    before = Schedule.objects.values().get()
    for verb in ("run", "enable", "disable", "delete", "change", "history"):
        editor.get(page("schedule", row.pk, verb))
    assert Schedule.objects.values().get() == before
    assert not QueuedTask.objects.exists()


def test_without_the_payload_permission_nobody_changes_arguments(client_with):
    row = make()
    client = client_with(*SEE, "change_schedule", "run_schedule")
    content = plain(text(client.get(page("schedule", row.pk))))
    assert "You may not see arguments." in content
    assert 'name="args"' not in content
    assert client.post(page("schedule", row.pk), GOOD).status_code == 403
    assert "You may not see arguments." in plain(text(client.get(page("schedule", row.pk, "run"))))


@pytest.mark.parametrize("change", [{"args": ""}, {"kwargs": ""}, {"args": "null"}])
def test_arguments_that_are_emptied_are_none(editor, change):
    form = {**GOOD, "task_path": nothing.module_path, "args": "[]", "kwargs": "{}", **change}
    assert editor.post(add_page(), form).status_code == 302
    row = Schedule.objects.get()
    assert (row.args, row.kwargs) == ([], {})


@pytest.mark.parametrize(
    "change",
    [
        {"end_at_0": "9999-12-31", "end_at_1": "23:59:59"},
        {"end_at_0": "0001-01-01", "end_at_1": "00:00"},
        {"expression": "at 9999-12-31 23:59", "time_zone": "America/New_York"},
    ],
)
def test_dates_at_the_ends_of_the_calendar_are_refused(editor, change):
    form = {**GOOD, "task_path": nothing.module_path, "args": "[]", "kwargs": "{}", **change}
    response = editor.post(add_page(), form)
    # With the form and what is wrong, and not with an error of the server.
    assert response.status_code == 200
    assert 'class="errorlist' in response.content.decode()
