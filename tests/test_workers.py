"""What is known of workers, and asking them to take no more, or to stop."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from django_bgtasks import workers
from django_bgtasks.ids import new_id
from django_bgtasks.models import Worker
from django_bgtasks.workers import Condition

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def worker(name="web-1", *, alias="default", silent=0, **changes):
    now = timezone.now()
    made = Worker.objects.using(alias).create(
        **{
            "id": new_id(),
            "name": name,
            "backend": "default",
            "pid": 4211,
            "processes": 1,
            "threads": 1,
            "state": "RUNNING",
            "started_at": now - timedelta(hours=2),
            "heartbeat_at": now - timedelta(seconds=silent),
            "lease": 30,
            **changes,
        }
    )
    return Worker.objects.using(alias).get(pk=made.pk)


@pytest.fixture
def two_databases(settings):
    settings.TASKS = {
        "default": settings.TASKS["default"],
        "second": {**settings.TASKS["default"], "OPTIONS": {"DATABASE": "other"}},
    }


# What they are


@pytest.mark.parametrize(
    ("changes", "condition"),
    [
        ({}, Condition.RUNNING),
        ({"state": "QUIET"}, Condition.QUIET),
        ({"state": "STOPPING"}, Condition.STOPPING),
        ({"state": "STOPPED", "silent": 500}, Condition.STOPPED),
        ({"silent": 100}, Condition.LOST),
        ({"silent": 100, "state": "QUIET"}, Condition.LOST),
    ],
)
def test_the_condition_of_a_worker(changes, condition):
    worker(**changes)
    (found,) = workers.known("default")
    assert workers.condition_of(found) == condition


def test_a_worker_starts_until_it_was_heard_of_after_its_start():
    moment = timezone.now()
    found = worker(started_at=moment, heartbeat_at=moment)
    assert workers.condition_of(found) == Condition.STARTING


def test_live_and_lost_workers_are_told_apart():
    worker("live")
    worker("quiet", state="QUIET")
    worker("lost", silent=100)
    worker("gone", state="STOPPED")
    assert {w.name for w in workers.live("default")} == {"live", "quiet"}
    assert [w.name for w in workers.lost("default")] == ["lost"]


def test_a_clock_that_is_off_by_more_than_some_seconds_is_noticed():
    assert not workers.clock_differs(worker(clock_offset=-4.9))
    assert workers.clock_differs(worker(clock_offset=-5.1))


def test_queues_that_would_be_left_alone_are_named():
    leaving = worker("a", queues=["default", "emails"])
    others = [leaving, worker("b", queues=["default"]), worker("c", state="QUIET")]
    assert workers.only_served_by([leaving], others) == ["emails"]
    assert workers.only_served_by([leaving], [*others, worker("all", queues=[])]) == []


# Which one is meant


def test_a_worker_is_found_by_its_name_its_id_or_the_end_of_it():
    found = worker()
    for term in ("web-1", str(found.pk), str(found.pk).upper(), str(found.pk)[-8:]):
        assert workers.find(term) == found


def test_of_several_of_a_name_the_one_that_is_alive_is_meant():
    worker(state="STOPPED")
    alive = worker()
    worker(silent=1000)
    assert workers.find("web-1") == alive


def test_of_several_that_live_an_id_is_asked_for():
    one, two = worker(), worker()
    with pytest.raises(workers.UnknownWorker) as caught:
        workers.find("web-1")
    for pk in (one.pk, two.pk):
        assert str(pk) in str(caught.value)


def test_an_unknown_name_is_answered_with_the_one_that_was_meant():
    worker("web-1")
    worker("mail-1")
    worker("web-2", state="STOPPED")
    with pytest.raises(workers.UnknownWorker) as caught:
        workers.find("wbe-1")
    assert str(caught.value).startswith("Unknown worker 'wbe-1'. Did you mean 'web-1'? Alive: ")
    assert "web-2" not in str(caught.value)


def test_where_no_worker_lives_it_is_said_how_to_start_one():
    with pytest.raises(workers.UnknownWorker, match=r"No worker is alive.*manage\.py runworker"):
        workers.find("web-1")


@pytest.mark.usefixtures("two_databases")
def test_workers_of_all_databases_are_found():
    other = worker("other-1", alias="other")
    assert workers.find("other-1")._state.db == "other"
    with pytest.raises(workers.UnknownWorker):
        workers.find("other-1", database="default")
    assert workers.ask(workers.find("other-1"), "STOP", by="ann")
    other.refresh_from_db()
    assert other.request == "STOP"


# Asking


def test_a_request_says_what_when_and_who():
    found = worker()
    assert workers.ask(found, "QUIET", by=" ann\x00 ") is True
    found.refresh_from_db()
    assert (found.request, found.requested_by) == ("QUIET", "ann")
    assert abs((timezone.now() - found.requested_at).total_seconds()) < 60


def test_the_first_to_ask_stays_in_the_record():
    found = worker()
    workers.ask(found, "STOP", by="ann")
    assert workers.ask(found, "STOP", by="bob") is False
    found.refresh_from_db()
    assert found.requested_by == "ann"


def test_who_was_asked_to_be_quiet_can_be_asked_to_stop_but_not_the_other_way_round():
    found = worker()
    workers.ask(found, "QUIET", by="ann")
    assert workers.ask(found, "STOP", by="bob") is True
    assert workers.ask(found, "QUIET", by="cat") is False
    found.refresh_from_db()
    assert (found.request, found.requested_by) == ("STOP", "bob")


@pytest.mark.parametrize(
    ("state", "request_", "new"),
    [
        ("QUIET", "QUIET", False),
        ("QUIET", "STOP", True),
        ("STOPPING", "QUIET", False),
        ("STOPPING", "STOP", False),
    ],
)
def test_what_a_worker_does_already_is_not_asked_of_it(state, request_, new):
    found = worker(state=state)
    assert workers.ask(found, request_) is new
    found.refresh_from_db()
    assert found.request == (request_ if new else "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "STOPPED"}, "web-1 has stopped"),
        ({"silent": 100}, r"Nothing was heard of web-1 for 10\d s, so it can't obey"),
    ],
)
def test_a_worker_that_is_gone_is_not_asked(changes, why):
    found = worker(**changes)
    with pytest.raises(workers.CannotObey, match=why):
        workers.ask(found, "STOP")
    found.refresh_from_db()
    assert found.request == ""


def test_a_worker_that_is_forgotten_is_not_asked():
    found = worker()
    Worker.objects.all().delete()
    with pytest.raises(workers.CannotObey, match="web-1 has stopped"):
        workers.ask(found, "STOP")


@pytest.mark.parametrize("request_", ["", "RUN", "quiet"])
def test_there_is_nothing_else_to_ask(request_):
    with pytest.raises(ValueError, match="is not a valid WorkerRequest"):
        workers.ask(worker(), request_)


# Commands


def bgtasks(*arguments):
    out = StringIO()
    call_command("bgtasks", *arguments, stdout=out)
    return out.getvalue()


def test_quiet_says_what_happens_and_how_to_go_on():
    found = worker()
    said = bgtasks("quiet", "web-1")
    assert "'web-1' is asked to take no more tasks" in said
    assert "manage.py bgtasks stop web-1" in said
    found.refresh_from_db()
    assert found.request == "QUIET"
    assert found.requested_by
    assert "was asked" in bgtasks("quiet", "web-1")


def test_stop_says_what_happens_and_whose_queues_are_left_alone():
    found = worker(queues=["emails"], running=3)
    said = bgtasks("stop", str(found.pk))
    assert "'web-1' is asked to stop" in said
    assert "3 tasks" in said
    assert "emails" in said
    found.refresh_from_db()
    assert found.request == "STOP"
    assert "was asked" in bgtasks("stop", "web-1")


def test_quiet_of_a_worker_that_stops_says_so():
    worker(state="STOPPING")
    assert "is stopping already" in bgtasks("quiet", "web-1")


@pytest.mark.parametrize("command", ["quiet", "stop"])
def test_the_answer_as_json(command):
    worker()
    found = json.loads(bgtasks(command, "web-1", "--json"))
    assert (found["name"], found["state"], found["request"]) == ("web-1", "running", command)
    assert found["changed"] is True
    assert json.loads(bgtasks(command, "web-1", "--json"))["changed"] is False


@pytest.mark.parametrize("command", ["quiet", "stop"])
def test_an_unknown_worker_is_a_wrong_argument(command):
    worker()
    with pytest.raises(CommandError, match="Did you mean 'web-1'") as caught:
        call_command("bgtasks", command, "wbe-1")
    assert caught.value.returncode == 2


@pytest.mark.parametrize("command", ["quiet", "stop"])
def test_a_worker_that_cannot_obey_is_an_error(command):
    worker(silent=100)
    with pytest.raises(CommandError, match="can't obey") as caught:
        call_command("bgtasks", command, "web-1")
    assert caught.value.returncode == 1


def test_a_name_with_controls_is_shown_harmlessly():
    worker("web\x1b[31m")
    said = bgtasks("quiet", "web\x1b[31m")
    assert "\x1b" not in said
