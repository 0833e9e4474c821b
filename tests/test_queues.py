"""Pausing and resuming queues, wherever that is asked for."""

import pytest
from django.db import transaction

from django_bgtasks import queues, wakeups
from django_bgtasks.models import Queue

DATABASE = "django_bgtasks.DatabaseBackend"

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.fixture
def woken(monkeypatch):
    """Collect the queues whose workers are woken."""
    calls = []
    monkeypatch.setattr(wakeups, "wake", lambda alias, *names: calls.append((alias, *names)))
    return calls


@pytest.fixture
def two_databases(settings):
    settings.TASKS = {
        "default": {"BACKEND": DATABASE, "QUEUES": ["default", "both"]},
        "second": {
            "BACKEND": DATABASE,
            "QUEUES": ["reports", "both"],
            "OPTIONS": {"DATABASE": "other"},
        },
    }


def test_a_pause_says_when_who_and_why():
    assert queues.pause("emails", reason="The provider is down.", by="ann") is True
    (row,) = queues.paused()
    assert (row.name, row.paused_by, row.reason) == ("emails", "ann", "The provider is down.")
    assert row.paused_at is not None


@pytest.mark.parametrize("reason", ["", "first"])
def test_a_second_pause_keeps_the_first_time_and_who(reason):
    queues.pause("emails", reason="first", by="ann")
    (first,) = queues.paused()
    assert queues.pause("emails", reason=reason, by="bob") is False
    (row,) = queues.paused()
    assert (row.paused_at, row.paused_by, row.reason) == (first.paused_at, "ann", "first")


def test_a_second_pause_for_another_reason_is_who_paused_it_now():
    queues.pause("emails", reason="first", by="ann")
    (first,) = queues.paused()
    assert queues.pause("emails", reason="second", by="bob") is True
    (row,) = queues.paused()
    assert (row.paused_by, row.reason) == ("bob", "second")
    assert row.paused_at >= first.paused_at


def test_a_queue_with_a_row_is_paused_as_well():
    Queue.objects.create(name="emails")
    assert queues.pause("emails")
    assert Queue.objects.get().paused_at is not None


def test_texts_that_the_table_cannot_hold_are_cut():
    queues.pause("emails", reason=" \x00" + "r" * 300, by="b" * 200)
    (row,) = queues.paused()
    assert (row.reason, row.paused_by) == ("r" * 255, "b" * 150)


def test_resuming_forgets_the_pause_and_wakes_workers(woken, django_capture_on_commit_callbacks):
    queues.pause("emails", reason="first", by="ann")
    with django_capture_on_commit_callbacks(execute=True):
        assert queues.resume("emails") is True
    row = Queue.objects.get()
    assert (row.paused_at, row.paused_by, row.reason) == (None, "", "")
    assert woken == [("default", "emails")]
    assert queues.paused() == []


def test_resuming_what_is_not_paused_changes_nothing(woken, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        assert queues.resume("emails") is False
    assert not Queue.objects.exists()
    assert woken == []


@pytest.mark.django_db(transaction=True)
def test_workers_are_woken_after_the_commit(woken):
    queues.pause("emails")
    with transaction.atomic():
        queues.resume("emails")
        assert woken == []
    assert woken == [("default", "emails")]


@pytest.mark.parametrize("act", [queues.pause, queues.resume])
def test_an_unknown_queue_is_answered_with_the_one_that_was_meant(act):
    with pytest.raises(queues.UnknownQueue) as caught:
        act("emial")
    assert str(caught.value) == (
        "Unknown queue 'emial'. Did you mean 'emails'? Known: default, emails, reports."
    )
    assert not Queue.objects.exists()


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "a\x00", None])
def test_what_is_no_name_is_refused(settings, name):
    settings.TASKS = {"default": {"BACKEND": DATABASE, "QUEUES": []}}
    with pytest.raises(queues.UnknownQueue, match="1 to 100 printable characters"):
        queues.pause(name)


def test_a_queue_that_was_served_once_can_be_paused_without_being_configured():
    Queue.objects.create(name="former")
    assert queues.pause("former")


def test_any_queue_can_be_paused_where_any_is_served(settings):
    settings.TASKS = {"default": {"BACKEND": DATABASE, "QUEUES": []}}
    assert queues.pause("whatever")
    assert [row.name for row in queues.paused()] == ["whatever"]


@pytest.mark.usefixtures("two_databases")
def test_the_database_is_found_by_the_queue():
    queues.pause("reports")
    assert Queue.objects.using("other").get().name == "reports"
    assert [row.name for row in queues.paused()] == ["reports"]
    assert queues.paused(database="default") == []
    assert queues.resume("reports")


@pytest.mark.usefixtures("two_databases")
def test_a_queue_of_two_databases_needs_one_named():
    with pytest.raises(queues.UnknownQueue) as caught:
        queues.pause("both")
    assert str(caught.value) == (
        "Databases 'default' and 'other' each have a queue 'both'. Name one: "
        "database='default', or --backend on the command line."
    )
    assert queues.pause("both", database="other")
    assert [row._state.db for row in queues.paused()] == ["other"]


def test_a_database_without_tasks_is_named():
    with pytest.raises(queues.UnknownQueue, match="No backend in TASKS has its tasks in"):
        queues.pause("emails", database="defualt")
