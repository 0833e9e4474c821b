"""The list and the pages of queues."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks import limits, queues
from django_bgtasks.models import LimitKey, Queue, QueuedTask
from django_bgtasks.monitoring import queues as figures
from django_bgtasks.queues import add_configured
from tests import factories
from tests.tasks import add

from .conftest import VIEW
from .pages import act, assert_bounded, changelist, page, plain, said, text
from .tasks import charge, import_feed
from .test_lists import worker

pytestmark = pytest.mark.django_db

POISON = "<script>alert(1)</script>\u202e"


@pytest.fixture
def migrated(db):
    """Have the rows of the configured queues, as after a migrate."""
    add_configured("default")


def see(client, name="default"):
    return text(client.get(page("queue", quote(name))))


@pytest.fixture
def default():
    return Queue.objects.create(name="default")


@pytest.fixture
def manager(client_with):
    return client_with(*VIEW, "pause_queue", "change_queue")


# The list


def test_the_list_says_what_waits_since_when_what_runs_and_who_listens(migrated, viewer):
    worker(queues=["default"])
    worker(name="all", queues=[])
    for _ in range(5):
        add.enqueue(1, 2)
    factories.claim(limit=2)
    QueuedTask.objects.filter(status="READY").update(
        enqueued_at=timezone.now() - timedelta(minutes=3)
    )
    content = text(viewer.get(changelist("queue")))
    assert "default Open 3 3 min 0 s 2 2 5 min 0 s" in plain(content)
    assert "emails Open 0 - 0 1 5 min 0 s" in plain(content)
    assert "?status=READY&amp;queue=default" in content


def test_numbers_are_no_links_for_who_may_not_see_tasks(client_with, default):
    client = client_with("view_queue")
    for content in (text(client.get(changelist("queue"))), see(client)):
        assert "queuedtask" not in content


def test_a_count_that_was_given_up_on_has_a_plus(viewer, monkeypatch, default):
    monkeypatch.setattr(figures, "MOST", 3)
    add.enqueue_many([(n, n) for n in range(5)])
    assert ">3+</a>" in text(viewer.get(changelist("queue")))
    assert ">3+</a>" in see(viewer)


def test_the_state_is_what_asks_for_something_to_be_done(migrated, viewer):
    late = {"enqueued_at": timezone.now() - timedelta(hours=1)}
    for name in ("emails", "reports"):
        add.using(queue_name=name).enqueue(1, 2)
    QueuedTask.objects.update(**late)
    worker(queues=["reports", "default"])
    content = plain(text(viewer.get(changelist("queue"))))
    for words in ("default Open", "emails No worker", "reports Late"):
        assert words in content
    queues.pause("emails", reason="The provider moves.", by="ann")
    content = plain(text(viewer.get(changelist("queue"))))
    assert "emails Paused by ann just now : The provider moves." in content


def test_queues_are_paused_with_a_reason_and_resumed(migrated, operator):
    names = ["default", "emails"]
    data = {"action": "pause", "_selected_action": names}
    content = text(operator.post(changelist("queue"), data))
    assert "Pause 2 queues?" in content
    assert 'name="_selected_action" value="emails"' in content
    assert queues.paused() == []
    given = {"confirmed": "1", "reason": "<b>deploy</b>"}
    assert act(operator, "queue", "pause", names, **given) == [
        "2 queues are paused. Their running tasks finish."
    ]
    queue = Queue.objects.get(name="emails")
    assert queue.paused_at is not None
    assert (queue.paused_by, queue.reason) == (operator.user.username, "<b>deploy</b>")
    content = text(operator.get(changelist("queue")))
    assert "&lt;b&gt;deploy&lt;/b&gt;" in content
    assert "<b>deploy" not in content
    assert act(operator, "queue", "pause", [*names, "reports"], confirmed="1") == [
        "1 queue is paused. Its running tasks finish. 2 were skipped: they were paused already."
    ]
    assert Queue.objects.get(name="emails").reason == "<b>deploy</b>"
    assert act(operator, "queue", "resume", ["emails"]) == ["1 queue goes on."]
    queue = Queue.objects.get(name="emails")
    assert (queue.paused_at, queue.paused_by, queue.reason) == (None, "", "")
    assert act(operator, "queue", "resume", ["emails"]) == ["1 was skipped: it was not paused."]
    sentences = LogEntry.objects.filter(object_id="emails").order_by("pk")
    assert [e.change_message for e in sentences] == ["Paused: <b>deploy</b>", "Resumed."]


# The page of one


def test_a_queue_without_anything_has_a_page(viewer, default):
    content = plain(see(viewer))
    for words in (
        "No worker listens to this queue.",
        "No limit holds tasks of this queue.",
        "more than 300 s, as the settings say.",
    ):
        assert words in content


def test_the_page_names_the_workers_that_listen_and_whether_they_take(viewer, default):
    taking = worker(name="web-1")
    worker(name="web-2", state="QUIET")
    worker(name="web-3", queues=["emails"])
    content = see(viewer)
    assert "web-1 5/6 Yes" in plain(content)
    assert "web-2 5/6 No" in plain(content)
    assert "web-3" not in content
    assert page("worker", taking.pk) in content


def test_the_page_says_what_is_wrong_and_what_to_type(viewer, default):
    add.enqueue(1, 2)
    assert "Start one: python manage.py runworker" in plain(see(viewer))
    worker(queues=["default"])
    QueuedTask.objects.update(enqueued_at=timezone.now() - timedelta(hours=1))
    assert "Its oldest task waits for longer than it should" in plain(see(viewer))


def held_back():
    """Claim what is ready, and ask its limits, as a worker does."""
    claimed = factories.claim()
    rows = {str(row.pk): row for row in QueuedTask.objects.all()}
    asking = [
        limits.candidate(row.id, row.claim_id, row.queue_name, 0, rows[row.id].options)
        for row in claimed
    ]
    return limits.admit("default", [found for found in asking if found])


def test_limits_that_have_tasks_of_the_queue_are_shown_with_their_numbers(
    operator, viewer, default
):
    for number in range(4):
        import_feed.enqueue("acme", number)
    assert len(held_back().parked) == 2
    import_feed.using(queue_name="emails").enqueue("other", 1)
    held_back()
    content = plain(see(operator))
    assert "At most 2 of partner:acme run at once. 2 2 -" in content
    assert "partner:other" not in content
    # The key is made of arguments.
    content = plain(see(viewer))
    assert "acme" not in content
    assert "At most 2 of partner:{partner} run at once. 2 2 -" in content


def test_a_rate_says_when_its_next_start_is_free(operator, default):
    charge.enqueue("4711", "t0k")
    held_back()
    digest = QueuedTask.objects.get().options["marks"]["rate"][0]
    LimitKey.objects.filter(pk=digest).update(next_at=timezone.now() + timedelta(hours=3))
    charge.enqueue("4712", "t0k")
    assert held_back().parked
    content = plain(see(operator)).replace("\xa0", " ")
    assert "One of tests.admin.tasks.charge starts each 500 ms" in content
    assert "0 1 in 3 h" in content
    assert "4711" not in content


def test_a_queue_whose_name_is_none_can_be_looked_at_and_not_paused(manager):
    Queue.objects.create(name=POISON)
    assert "\u202e" not in see(manager, POISON)
    (message,) = said(manager.post(page("queue", quote(POISON), "pause")))
    assert "1 to 100 printable characters" in message
    assert Queue.objects.get().paused_at is None


@pytest.mark.parametrize("name", ["a/b ü", "_5F", "<script>alert(1)</script>", "x" * 100, "%00"])
def test_queues_of_any_name_have_their_pages_and_verbs(manager, name):
    Queue.objects.create(name=name)
    content = see(manager, name)
    assert "<script>alert" not in content
    assert "\u202e" not in content
    url = page("queue", quote(name), "pause")
    assert f'href="{url}"' in content
    assert "<script>alert" not in text(manager.get(url))
    response = manager.post(url, {"reason": POISON + "x" * 300 + "\x00"})
    assert response.url == page("queue", quote(name))
    queue = Queue.objects.get()
    assert (queue.name, len(queue.reason)) == (name, 255)
    content = see(manager, name)
    assert "<script>alert" not in content
    assert f'action="{page("queue", quote(name), "resume")}"' in content
    manager.post(page("queue", quote(name), "resume"))
    assert Queue.objects.get().paused_at is None


def test_the_page_before_a_pause_says_how_many_wait_and_run(operator, default):
    add.enqueue_many([(n, n) for n in range(5)])
    factories.claim(limit=2)
    content = plain(text(operator.get(page("queue", "default", "pause"))))
    assert "default 3 2 Running tasks finish." in content
    assert Queue.objects.get().paused_at is None
    response = operator.post(page("queue", "default", "pause"), {"reason": "deploy"})
    assert said(response) == ["1 queue is paused. Its running tasks finish."]


def test_a_queue_that_does_not_exist_leads_to_the_list(operator):
    for name in ("change", "pause"):
        assert operator.get(page("queue", "nope", name)).status_code == 302
    assert operator.post(page("queue", "nope", "pause")).url == changelist("queue")
    live = operator.get(page("queue", "nope"), headers={"X-Requested-With": "bgt-live"})
    assert live.status_code == 404


# When it is late


def test_a_latency_target_is_set_and_taken_away(manager, default):
    url = page("queue", "default", "target")
    assert said(manager.post(url, {"target": "60"})) == ["The latency target is changed."]
    assert Queue.objects.get().latency_target == 60
    assert "more than 60 s." in plain(see(manager))
    assert said(manager.post(url, {"target": "60"})) == []
    manager.post(url, {"target": ""})
    assert Queue.objects.get().latency_target is None
    messages = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    assert list(messages) == ["Latency target: 60 s.", "Latency target: as the settings say."]


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf", "1e99", POISON])
def test_what_is_no_latency_target_is_answered_with_what_is(manager, default, value):
    (message,) = said(manager.post(page("queue", "default", "target"), {"target": value}))
    assert "is no latency target: type seconds, 1 or more, or nothing." in message
    assert Queue.objects.get().latency_target is None
    assert "<script>alert" not in see(manager)


@pytest.mark.parametrize("seconds", [0, 0.9, 10**9, float("nan")])
def test_no_code_sets_a_latency_target_that_is_none(seconds):
    with pytest.raises(ValueError, match="A latency target is 1 to"):
        queues.set_latency_target("default", seconds)
    assert not Queue.objects.exists()


# Who may

VERBS = [
    ("pause", "pause_queue"),
    ("resume", "pause_queue"),
    ("target", "change_queue"),
]


def now_in(name="default"):
    return list(Queue.objects.filter(name=name).values("paused_at", "reason", "latency_target"))


@pytest.fixture
def queue(request):
    """A queue that is paused, if the verb of the test is to resume it."""
    paused = timezone.now() if request.node.callspec.params["verb"] == "resume" else None
    return Queue.objects.create(name="default", paused_at=paused)


@pytest.mark.parametrize(("verb", "permission"), VERBS)
def test_a_viewer_sees_no_button(viewer, queue, verb, permission):
    assert page("queue", "default", verb) not in see(viewer)
    assert 'value="pause"' not in text(viewer.get(changelist("queue")))


@pytest.mark.parametrize(("verb", "permission"), VERBS)
def test_a_verb_by_hand_needs_its_permission_and_that_to_see(client_with, queue, verb, permission):
    before = now_in()
    others = {p for _, p in VERBS} - {permission}
    url = page("queue", "default", verb)
    for client in (client_with(*VIEW), client_with(*VIEW, *others)):
        assert client.post(url, {"target": "7"}).status_code == 403
        assert client.get(url).status_code in (403, 405)
    if permission == "pause_queue":
        assert client_with(permission).post(url).status_code == 403
        assert client_with(permission).get(url).status_code in (403, 405)
    assert "login" in Client().post(url).url
    assert now_in() == before
    assert not LogEntry.objects.filter(content_type__app_label="bgtasks").exists()


@pytest.mark.parametrize(("verb", "permission"), VERBS)
def test_the_own_permission_is_enough_and_a_token_is_needed(client_with, queue, verb, permission):
    before = now_in()
    client = client_with("view_queue", permission, csrf=True)
    url = page("queue", "default", verb)
    assert url in see(client)
    assert client.post(url, {"target": "7"}).status_code == 403
    assert now_in() == before
    if verb == "pause":
        text(client.get(url))
    token = client.cookies["csrftoken"].value
    answer = client.post(url, {"target": "7", "csrfmiddlewaretoken": token})
    assert answer.status_code == 302
    assert now_in() != before


def test_no_get_changes_anything(manager, default):
    before = now_in()
    for verb in ("pause", "resume", "target"):
        manager.get(page("queue", "default", verb))
    assert manager.post(page("queue", "default"), {"name": "x"}).status_code == 403
    assert now_in() == before


# What it costs, and how it is refreshed


def test_the_page_costs_the_same_however_much_there_is(operator, default):
    def cost():
        with CaptureQueriesContext(connection) as statements:
            see(operator)
        assert_bounded(statements.captured_queries, 15)
        return len(statements)

    import_feed.enqueue_many([("acme", n) for n in range(3)])
    held_back()
    few = cost()
    for partner in range(30):
        import_feed.enqueue_many([(f"p{partner}", n) for n in range(3)])
        held_back()
        worker()
    assert cost() == few
    with CaptureQueriesContext(connection) as statements:
        text(operator.get(page("queue", "default", "pause")))
    assert_bounded(statements.captured_queries, 10)


def live(client, etag=None, name="default"):
    headers = {"X-Requested-With": "bgt-live", **({"If-None-Match": etag} if etag else {})}
    return client.get(page("queue", name), headers=headers)


def test_a_refresh_answers_with_the_regions_alone_and_304_when_nothing_changed(operator, default):
    first = live(operator)
    content = text(first)
    assert "<html" not in content
    for region in ("head", "workers", "limits"):
        assert f'data-bgt-live="{region}"' in content
    for _ in range(3):  # A minute may have passed.
        again = live(operator, first["ETag"])
        if again.status_code == 304:
            break
        first = again
    assert again.status_code == 304
    add.enqueue(1, 2)
    assert live(operator, first["ETag"]).status_code == 200
