"""The list and the pages of workers."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks import workers
from django_bgtasks.models import QueuedTask, Worker
from tests import factories
from tests.tasks import add

from .conftest import VIEW
from .pages import act, assert_bounded, changelist, page, plain, said, text
from .test_lists import worker

pytestmark = pytest.mark.django_db

POISON = "<script>alert(1)</script>\u202e"


@pytest.fixture
def manager(client_with):
    return client_with(*VIEW, "stop_worker")


def see(client, row):
    return text(client.get(page("worker", row.pk)))


def requests():
    return list(Worker.objects.order_by("name").values_list("name", "request"))


# The list


def test_the_list_says_what_each_worker_is_and_takes(viewer):
    moment = timezone.now()
    worker(name="a", memory=300 * 2**20, version="1.2")
    worker(name="b", started_at=moment, heartbeat_at=moment)
    worker(name="c", state="QUIET")
    content = text(viewer.get(changelist("worker")))
    words = plain(content).replace("\xa0", " ")
    assert "a Running default, emails 5/6 just now 300.0 MB 1.2 212" in words
    assert "b Starting" in words
    assert "c Quiet" in words
    assert 'aria-label="5 of 6 slots are busy"' in content


def test_an_empty_list_says_how_to_start_a_worker(viewer):
    content = plain(text(viewer.get(changelist("worker"))))
    assert "No worker has reported. Start one: python manage.py runworker" in content
    worker()
    assert "No worker has reported" not in text(viewer.get(changelist("worker")))


def test_ticked_workers_are_asked_to_take_no_more(manager):
    rows = [worker(name="a"), worker(name="b"), worker(name="c", state="QUIET")]
    messages = act(manager, "worker", "quiet", [row.pk for row in rows])
    assert messages == [
        "2 workers are asked to take no more tasks. They obey within seconds. "
        "c was asked before, or does so already."
    ]
    assert requests() == [("a", "QUIET"), ("b", "QUIET"), ("c", "")]
    entries = LogEntry.objects.values_list("change_message", "object_repr")
    assert {*entries} == {
        ("Asked to take no more tasks.", "a"),
        ("Asked to take no more tasks.", "b"),
    }


def test_stopping_ticked_workers_shows_a_page_first(manager):
    rows = [worker(name="a", queues=["emails"]), worker(name="b", queues=["emails", "reports"])]
    worker(name="c", queues=["reports"])
    data = {"action": "stop", "_selected_action": [row.pk for row in rows]}
    content = text(manager.post(changelist("worker"), data))
    assert "10 running tasks may finish." in content
    assert "No other worker takes from the queue emails" in plain(content)
    assert {request for _, request in requests()} == {""}
    for row in rows:
        assert f'name="_selected_action" value="{row.pk}"' in content
    response = manager.post(changelist("worker"), {**data, "confirmed": "1"})
    assert said(response) == ["2 workers are asked to stop. They obey within seconds."]
    assert requests() == [("a", "STOP"), ("b", "STOP"), ("c", "")]


# The page of one


def test_the_page_has_the_facts(viewer):
    row = worker(memory=300 * 2**20, scheduler=False)
    content = see(viewer, row)
    words = plain(content).replace("\xa0", " ")
    for said_so in (
        "Slots 6 (2 × 3)",
        "Tasks done 212",
        "300.0 MB",
        "rescues, prunes",
        "web, process 4211",
        "Counts as lost after 30.0 s",
        "Clock right",
        str(row.pk),
        "It runs nothing now.",
    ):
        assert said_so in words, said_so
    assert "fires schedules" not in words
    assert page("queue", "emails") in content


def test_the_page_lists_what_the_worker_runs_and_since_when(viewer, client_with):
    row = worker()
    mine, other = add.enqueue(1, 2), add.using(queue_name="emails").enqueue(3, 4)
    factories.claim(("default",), worker_id="web-1")
    factories.claim(("emails",), worker_id="web-2")
    QueuedTask.objects.update(last_attempted_at=timezone.now() - timedelta(minutes=3))
    content = see(viewer, row)
    assert page("queuedtask", mine.id) in content
    assert mine.id[-8:] in content
    assert "3 min ago" in plain(content).replace("\xa0", " ")
    assert other.id[-8:] not in content
    content = see(client_with("view_worker"), row)
    assert mine.id[-8:] in content
    assert "queuedtask" not in content


@pytest.mark.parametrize(
    ("offset", "words"), [(12.5, "12.5 s fast"), (-7200.0, "2 h 0 min slow"), (4.0, None)]
)
def test_a_clock_that_is_off_is_warned_of(viewer, offset, words):
    content = plain(see(viewer, worker(clock_offset=offset))).replace("\xa0", " ")
    assert ("The clock of its machine differs" in content) is (words is not None)
    assert words is None or f"it is {words}." in content


def test_a_lost_worker_is_told_apart_and_can_not_be_asked(manager):
    row = worker(heartbeat_at=timezone.now() - timedelta(minutes=2), running=0)
    content = see(manager, row)
    assert "Nothing was heard of it for" in content
    for verb in ("quiet", "stop"):
        assert page("worker", row.pk, verb) not in content
        (message,) = said(manager.post(page("worker", row.pk, verb)))
        assert "can't obey" in message
    assert requests() == [("web-1", "")]
    assert not LogEntry.objects.exists()


def test_who_asked_and_when_stands_there_until_the_worker_is_gone(manager, viewer):
    row = worker()
    response = manager.post(page("worker", row.pk, "quiet"))
    assert response.url == page("worker", row.pk)
    content = see(manager, row)
    name = manager.user.username
    assert f"Asked to take no more tasks just now by {name}." in plain(content).replace("\xa0", " ")
    assert page("worker", row.pk, "quiet") not in content
    assert page("worker", row.pk, "stop") in content
    Worker.objects.update(state="QUIET")
    content = plain(see(viewer, row))
    assert "Quiet" in content
    assert "can't be made to: stop it, and start another" in content
    manager.post(page("worker", row.pk, "stop"))
    content = see(manager, row)
    assert f"Asked to stop just now by {name}." in plain(content).replace("\xa0", " ")
    assert page("worker", row.pk, "stop") not in content
    entries = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    assert list(entries) == ["Asked to take no more tasks.", "Asked to stop."]


def test_stopping_says_first_what_it_does(manager):
    row = worker(running=1)
    content = plain(text(manager.get(page("worker", row.pk, "stop"))))
    assert "Stop 1 worker?" in content
    assert "1 running task may finish." in content
    assert "No other worker takes from the queues default, emails" in content
    assert requests() == [("web-1", "")]


def test_a_worker_that_is_forgotten_leads_to_the_list(manager):
    row = worker()
    Worker.objects.all().delete()
    for name in ("change", "stop"):
        response = manager.get(page("worker", row.pk, name))
        assert response.url == changelist("worker")
        assert "forgotten after an hour" in said(response)[0]
    assert manager.post(page("worker", row.pk, "quiet")).url == changelist("worker")
    headers = {"X-Requested-With": "bgt-live"}
    assert manager.get(page("worker", row.pk), headers=headers).status_code == 404
    assert manager.get(page("worker", "x")).status_code == 302


def test_names_of_any_kind_are_shown_as_text(manager):
    row = worker(name=POISON, hostname=POISON, version=POISON, queues=[POISON], requested_by=POISON)
    Worker.objects.update(request="QUIET", requested_at=timezone.now())
    add.enqueue(1, 2)
    factories.claim(worker_id=POISON)
    QueuedTask.objects.update(task_path=POISON, queue_name=POISON)
    listed = text(manager.get(changelist("worker")))
    pages = (see(manager, row), text(manager.get(page("worker", row.pk, "stop"))))
    for content in (listed, *pages):
        assert "<script>alert" not in content
        assert "&lt;script&gt;" in content
    for content in pages:
        assert "\u202e" not in content


# Who may


@pytest.mark.parametrize("verb", ["quiet", "stop"])
def test_only_who_may_stop_workers_sees_buttons_and_can_act(client_with, verb):
    row = worker()
    url = page("worker", row.pk, verb)
    for client in (client_with(*VIEW, "pause_queue"), client_with("view_worker")):
        assert url not in see(client, row)
        assert f'value="{verb}"' not in text(client.get(changelist("worker")))
        assert client.post(url).status_code == 403
        assert client.get(url).status_code in (403, 405)
        data = {"action": verb, "_selected_action": [row.pk], "confirmed": "1"}
        client.post(changelist("worker"), data)
    assert client_with("stop_worker").post(url).status_code == 403
    assert client_with("stop_worker").get(url).status_code in (403, 405)
    assert "login" in Client().post(url).url
    assert requests() == [("web-1", "")]


@pytest.mark.parametrize("verb", ["quiet", "stop"])
def test_a_token_is_needed_and_no_get_asks(client_with, verb):
    row = worker()
    url = page("worker", row.pk, verb)
    client = client_with("view_worker", "stop_worker", csrf=True)
    assert url in see(client, row)
    client.get(url)
    assert client.post(url).status_code == 403
    assert requests() == [("web-1", "")]
    token = client.cookies["csrftoken"].value
    assert client.post(url, {"csrfmiddlewaretoken": token}).status_code == 302
    assert requests() == [("web-1", verb.upper())]


# What it costs, and how it is refreshed


def test_the_pages_cost_the_same_however_much_there_is(manager):
    def cost(row, name):
        with CaptureQueriesContext(connection) as statements:
            text(manager.get(page("worker", row.pk, name)))
        assert_bounded(statements.captured_queries, 10)
        return len(statements)

    row = worker()
    few = {name: cost(row, name) for name in ("change", "stop")}
    add.enqueue_many([(n, n) for n in range(30)])
    factories.claim(limit=30, worker_id="web-1")
    for _ in range(20):
        worker(name="other")
    assert {name: cost(row, name) for name in few} == few


def test_a_refresh_answers_with_the_regions_alone_and_304_until_the_next_beat(manager):
    row = worker(state="STOPPED")

    def live(etag=""):
        headers = {"X-Requested-With": "bgt-live", "If-None-Match": etag}
        return manager.get(page("worker", row.pk), headers=headers)

    first = live()
    content = text(first)
    assert "<html" not in content
    for region in ("head", "tasks", "facts"):
        assert f'data-bgt-live="{region}"' in content
    for _ in range(3):  # A minute may have passed.
        again = live(first["ETag"])
        if again.status_code == 304:
            break
        first = again
    assert again.status_code == 304
    Worker.objects.update(finished=213)
    assert "213" in text(live(first["ETag"]))


def test_the_page_and_the_command_ask_by_the_same_function(manager):
    row = worker()
    manager.post(page("worker", row.pk, "stop"))
    assert workers.ask(workers.find("web-1"), "STOP", by="other") is False
    row.refresh_from_db()
    assert row.requested_by == manager.user.username
