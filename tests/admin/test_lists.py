"""The four lists: what they show, and what they cost."""

from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks.admin import FinishedTaskAdmin, base, lists
from django_bgtasks.db import operations_for
from django_bgtasks.ids import new_id
from django_bgtasks.models import FinishedTask, Queue, QueuedTask, Worker
from django_bgtasks.queues import add_configured
from tests import factories
from tests.tasks import add, nothing

from .pages import assert_bounded, changelist, page, plain, said, text
from .tasks import fetch

pytestmark = pytest.mark.django_db

MODELS = ("queuedtask", "finishedtask", "queue", "worker")


def worker(**changes):
    now = timezone.now()
    return Worker.objects.create(
        **{
            "id": new_id(),
            "name": "web-1",
            "backend": "default",
            "hostname": "web",
            "pid": 4211,
            "version": "1.0",
            "queues": ["default", "emails"],
            "processes": 2,
            "threads": 3,
            "state": "RUNNING",
            "started_at": now - timedelta(hours=2),
            "heartbeat_at": now,
            "lease": 30,
            "running": 5,
            "finished": 212,
            **changes,
        }
    )


@pytest.mark.parametrize("model", MODELS)
def test_a_list_opens_when_it_is_empty(viewer, model):
    assert "Background tasks" in text(viewer.get(changelist(model)))


@pytest.mark.parametrize("model", MODELS)
def test_a_list_is_refused_without_its_permission(client_with, model):
    others = [f"view_{other}" for other in MODELS if other != model]
    assert client_with(*others).get(changelist(model)).status_code == 403


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("superuser", [False, True])
def test_nobody_adds_or_changes_by_form(operator, model, superuser):
    operator.user.is_superuser = superuser
    operator.user.save()
    assert f'"{changelist(model)}add/' not in text(operator.get(changelist(model)))
    assert operator.get(f"{changelist(model)}add/").status_code == 403
    Queue.objects.get_or_create(name="default")
    add.enqueue(1, 2)
    factories.succeed(nothing.enqueue())
    worker()
    rows = {"queuedtask": QueuedTask, "finishedtask": FinishedTask, "queue": Queue}
    pk = rows.get(model, Worker).objects.first().pk
    assert operator.post(page(model, pk), {"status": "READY"}).status_code == 403


def test_the_list_of_tasks_shows_states_in_words(viewer):
    add.enqueue(1, 2)
    add.using(queue_name="emails", run_after=timedelta(minutes=5)).enqueue(1, 2)
    add.using(queue_name="reports").enqueue(1, 2)
    factories.claim(("reports",), worker_id="web-1")
    content = plain(text(viewer.get(changelist("queuedtask"))))
    for words in ("add", "Ready", "Scheduled", "Running", "web-1", "just now", "3 tasks"):
        assert words in content


def test_a_running_task_whose_lease_has_run_out_is_lost(viewer):
    add.enqueue(1, 2)
    factories.claim()
    QueuedTask.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    (row,) = QueuedTask.objects.all()
    assert "Lost" in plain(text(viewer.get(page("queuedtask", row.pk))))


def test_a_failed_attempt_waits_to_retry(viewer):
    fetch.enqueue("x")
    QueuedTask.objects.update(status="SCHEDULED", failures=1, due_at=timezone.now())
    assert "Waiting to retry" in plain(text(viewer.get(changelist("queuedtask"))))


def test_the_list_of_results_shows_times(viewer):
    add.enqueue(1, 2)
    (claimed,) = factories.claim()
    factories.end(claimed, value=3)
    now = timezone.now()
    FinishedTask.objects.update(
        enqueued_at=now - timedelta(minutes=10),
        started_at=now - timedelta(seconds=202),
        last_attempted_at=now - timedelta(seconds=10, milliseconds=1400),
        finished_at=now - timedelta(seconds=10),
    )
    content = plain(text(viewer.get(changelist("finishedtask"))))
    for words in ("Successful", "6 min 38 s", "1.4 s", "10 s ago"):
        assert words in content


def test_workers_are_shown_with_what_they_do(viewer):
    worker()
    worker(name="web-2", heartbeat_at=timezone.now() - timedelta(seconds=31), queues=[])
    worker(name="web-3", heartbeat_at=timezone.now() - timedelta(days=2), state="STOPPED")
    content = plain(text(viewer.get(changelist("worker"))))
    for words in ("web-1 Running", "web-2 Lost", "web-3 Stopped", "5/6", "212"):
        assert words in content
    assert "default, emails" in content


def test_configured_queues_are_listed_before_a_worker_came(viewer):
    text(viewer.get(changelist("queue")))
    assert not Queue.objects.exists()
    add_configured("default")
    content = plain(text(viewer.get(changelist("queue"))))
    for name in ("default", "emails", "reports"):
        assert f"{name} Open" in content
    Queue.objects.filter(pk="emails").update(paused_at=timezone.now())
    add_configured("default")
    assert Queue.objects.count() == 3
    assert Queue.objects.get(pk="emails").paused_at


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"default", "emails", "reports"}),
        ({"queue": "emails"}, {"emails"}),
        ({"status": "RUNNING"}, {"reports"}),
        ({"status": "RUNNING", "queue": "emails"}, set()),
        ({"status": "nonsense"}, set()),
    ],
)
def test_tasks_are_filtered_by_status_and_queue(viewer, query, expected):
    for name in ("default", "emails", "reports"):
        add.using(queue_name=name).enqueue(1, 2)
    factories.claim(("reports",))
    response = viewer.get(changelist("queuedtask"), query)
    text(response)
    rows = response.context["cl"].result_list
    assert {row.queue_name for row in rows} == expected


def test_the_choices_of_the_filter_of_queues_are_configured_or_seen(viewer):
    Queue.objects.create(name="later")
    content = text(viewer.get(changelist("finishedtask")))
    for name in ("default", "emails", "reports", "later"):
        assert f"?queue={name}" in content


@pytest.mark.parametrize("model", ["queuedtask", "finishedtask"])
@pytest.mark.parametrize(
    "lookup", ["kwargs__password__startswith", "args__icontains", "errors__0__traceback__regex"]
)
def test_an_address_can_not_ask_for_what_may_not_be_seen(operator, model, lookup):
    """Django's lookups by address would tell a secret letter by letter."""
    assert operator.get(changelist(model), {lookup: "a"}).status_code == 400


@pytest.mark.parametrize("order", ["1", "-2", "4.5", "x"])
def test_the_order_is_newest_first_whatever_the_address_says(viewer, order):
    results = [add.using(priority=p).enqueue(1, 2) for p in (1, 3, 2)]
    rows = viewer.get(changelist("queuedtask"), {"o": order}).context["cl"].result_list
    assert [str(row.pk) for row in rows] == [result.id for result in reversed(results)]


def test_tasks_of_one_status_are_in_the_order_of_their_claim(viewer):
    """Their index has that order: newest first would sort all of them."""
    results = [add.using(priority=p).enqueue(1, 2) for p in (1, 3, 2, 3)]
    rows = viewer.get(changelist("queuedtask"), {"status": "READY"}).context["cl"].result_list
    expected = [results[1].id, results[3].id, results[2].id, results[0].id]
    assert [str(row.pk) for row in rows] == expected


def test_results_of_one_status_are_in_the_order_of_their_end(viewer):
    results = [factories.fail(add.enqueue(1, 2)) for _ in range(3)]
    now = timezone.now()
    for result, minutes in zip(results, (1, 3, 2), strict=True):
        ended = now - timedelta(minutes=minutes)
        FinishedTask.objects.filter(pk=result.id).update(finished_at=ended)
    rows = viewer.get(changelist("finishedtask"), {"status": "FAILED"}).context["cl"].result_list
    assert [str(row.pk) for row in rows] == [results[0].id, results[2].id, results[1].id]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="Each database words its plans its way.")
@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("queuedtask", {}),
        ("queuedtask", {"queue": "emails"}),
        ("queuedtask", {"status": "READY"}),
        ("queuedtask", {"status": "READY", "queue": "emails"}),
        ("finishedtask", {}),
        ("finishedtask", {"queue": "emails"}),
    ],
)
def test_no_list_sorts_its_table(viewer, model, query):
    response = viewer.get(changelist(model), query)
    plan = response.context["cl"].queryset[:100].explain()
    assert "INDEX" in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan.upper()


def test_no_more_rows_are_counted_than_the_limit(viewer, monkeypatch):
    monkeypatch.setattr(base, "COUNT_LIMIT", 5)
    add.enqueue_many([(n, n) for n in range(7)])
    response = viewer.get(changelist("queuedtask"))
    assert response.context["cl"].paginator.count == 5
    assert "5+ tasks" in plain(text(response))
    with override_settings(USE_THOUSAND_SEPARATOR=True):
        assert "5 tasks" in plain(text(viewer.get(changelist("queuedtask"))))


@pytest.mark.parametrize("model", MODELS)
def test_a_list_costs_the_same_however_many_rows_it_has(operator, model):
    def cost():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            text(operator.get(changelist(model)))
        assert_bounded(queries.captured_queries, 15)
        return len(queries)

    def fill(count):
        add.enqueue_many([(n, n) for n in range(2 * count)])
        for claimed in factories.claim(limit=count):
            factories.end(claimed, error="builtins.ValueError")
        Queue.objects.bulk_create(Queue(name=new_id()) for _ in range(count))
        for _ in range(count):
            worker()

    text(operator.get(changelist(model)))
    fill(1)
    few = cost()
    fill(20)
    assert cost() == few


def test_lists_do_not_read_what_may_be_large(operator):
    factories.fail(add.enqueue(1, 2))
    add.enqueue(1, 2)
    for model in ("queuedtask", "finishedtask"):
        with CaptureQueriesContext(connection) as queries:
            text(operator.get(changelist(model)))
        for query in queries.captured_queries:
            if f"bgtasks_{model}" in query["sql"]:
                for column in ("args", "kwargs", "errors", "return_value"):
                    assert f"{column}`" not in query["sql"]
                    assert f'{column}"' not in query["sql"]


# Search


def find(client, term, model="queuedtask"):
    return client.get(changelist(model), {"q": term})


@pytest.mark.parametrize(
    "shape",
    [
        lambda pk: pk,
        lambda pk: f"  {pk.upper()} ",
        lambda pk: pk.replace("-", ""),
        lambda pk: pk[:30],
        lambda pk: pk.replace("-", "")[:25],
        lambda pk: pk[-8:],
        lambda pk: pk[-20:],
        lambda pk: pk.replace("-", "")[-14:],
    ],
)
@pytest.mark.parametrize("model", ["queuedtask", "finishedtask"])
def test_an_id_its_start_or_its_end_opens_the_task(viewer, shape, model):
    results = [add.enqueue(n, n) for n in range(3)]
    factories.succeed(results[1])
    for result, where in zip(results, ("queuedtask", "finishedtask", "queuedtask"), strict=True):
        response = find(viewer, shape(result.id), model)
        assert response.status_code == 302
        assert response.url == page(where, result.id)


def test_a_start_that_several_share_lists_them(viewer):
    first = UUID("01a00000-0000-7000-8000-000000000001")
    add.enqueue_many([(n, n) for n in range(3)])
    for number, pk in enumerate(QueuedTask.objects.values_list("pk", flat=True)[:2]):
        QueuedTask.objects.filter(pk=pk).update(id=UUID(int=first.int + number))
    response = find(viewer, "01a00000-0000")
    assert "2 tasks" in plain(text(response))
    response = find(viewer, "01a00000-0000", "finishedtask")
    assert response.url == f"{changelist('queuedtask')}?q=01a00000-0000"


@pytest.mark.parametrize("term", ["%", "12345", "<script>", "-" * 8, "g" * 32, "a" * 33])
def test_what_is_no_id_and_no_name_finds_nothing(viewer, term):
    add.enqueue(1, 2)
    content = text(find(viewer, term))
    assert "0 tasks" in plain(content)
    assert "No task matches." in content
    assert "<script>" not in content


def test_a_word_finds_tasks_by_their_names(viewer):
    add.enqueue(1, 2)
    nothing.enqueue()
    assert "1 task" in plain(text(find(viewer, "othin")))


def test_qualifiers_find_tasks(viewer):
    for name in ("default", "emails"):
        add.using(queue_name=name).enqueue(1, 2)
    assert "1 task" in plain(text(find(viewer, "queue:emails status:ready add")))
    assert "0 tasks" in plain(text(find(viewer, "queue:emails nothing")))


def test_a_status_leads_to_the_list_that_has_it(viewer):
    response = find(viewer, "status:failed queue:emails")
    assert response.url == f"{changelist('finishedtask')}?q=status%3Afailed+queue%3Aemails"
    assert find(viewer, "status:ready", "finishedtask").url.startswith(changelist("queuedtask"))
    assert find(viewer, "status:failed", "finishedtask").status_code == 200


def test_a_mistake_in_a_search_is_said(viewer):
    add.enqueue(1, 2)
    response = find(viewer, "queu:<b>emails")
    assert "0 tasks" in plain(text(response))
    assert "Did you mean 'queue'?" in plain(text(response))
    assert "<b>emails" not in text(response)


def test_keys_are_not_searched_by_who_may_not_see_arguments(viewer, operator):
    add.enqueue(1, 2)
    QueuedTask.objects.update(options={"marks": {"unique": ["d", "feed:118"]}})
    response = find(viewer, "key:feed:118")
    assert "0 tasks" in plain(text(response))
    assert "Keys are made of arguments, which you may not see." in text(response)
    assert "1 task" in plain(text(find(operator, "key:feed:118")))


# Filters, windows, pages


def shown(response):
    return [str(row.pk) for row in response.context["cl"].result_list]


def test_tasks_are_filtered_by_name_age_cause_and_workflow(viewer):
    one, other = add.enqueue(1, 2), nothing.enqueue()
    for query in ({"task": "tests.tasks.add"}, {"since": "1h", "task": "tests.tasks.add"}):
        assert shown(viewer.get(changelist("queuedtask"), query)) == [one.id]
    old = UUID("01900000-0000-7000-8000-000000000001")
    QueuedTask.objects.filter(pk=other.id).update(id=old)
    assert shown(viewer.get(changelist("queuedtask"), {"since": "24h"})) == [one.id]
    assert shown(viewer.get(changelist("queuedtask"), {"cause": "a" * 32})) == []
    assert shown(viewer.get(changelist("queuedtask"), {"workflow": new_id()})) == []
    assert shown(viewer.get(changelist("queuedtask"), {"workflow": "x"})) == []
    result = factories.fail(add.enqueue(1, 2))
    factories.fail(add.enqueue(1, 2))
    FinishedTask.objects.filter(pk=result.id).update(fingerprint="a" * 32)
    assert shown(viewer.get(changelist("finishedtask"), {"cause": "a" * 32})) == [result.id]


def test_tasks_that_wait_for_another_attempt_are_a_status(viewer):
    one, _other = (add.using(run_after=timedelta(hours=1)).enqueue(1, 2) for _ in "12")
    QueuedTask.objects.filter(pk=one.id).update(failures=1)
    assert shown(viewer.get(changelist("queuedtask"), {"status": "retrying"})) == [one.id]


@pytest.fixture
def small_window(monkeypatch):
    """Let ten rows be many."""
    monkeypatch.setattr(lists, "NEWEST", 10)
    monkeypatch.setattr(lists, "STEP", 5)
    operations = type(operations_for("default"))
    monkeypatch.setattr(operations, "estimate", lambda self, model: model.objects.count())
    lists._edges.clear()
    yield
    lists._edges.clear()


def test_what_no_index_has_is_looked_for_among_the_newest(viewer, small_window):
    add.using(queue_name="emails").enqueue(1, 2)
    add.enqueue_many([(n, n) for n in range(11)])
    add.using(queue_name="emails").enqueue(1, 2)
    response = viewer.get(changelist("queuedtask"), {"queue": "emails"})
    assert len(shown(response)) == 1
    content = text(response)
    assert "Searched the newest 10 tasks." in plain(content)
    assert "?all=1&amp;queue=emails" in content
    response = viewer.get(changelist("queuedtask"), {"queue": "emails", "all": "1"})
    assert len(shown(response)) == 2
    assert "Searched" not in plain(text(response))
    # An index has these.
    for query in ({}, {"status": "READY"}, {"status": "READY", "queue": "emails"}):
        assert "Searched" not in plain(text(viewer.get(changelist("queuedtask"), query)))


def test_a_search_of_everything_that_takes_too_long_is_ended(viewer, monkeypatch, small_window):
    add.enqueue_many([(n, n) for n in range(12)])

    @contextmanager
    def impatient(self, seconds):
        raise OperationalError("interrupted")
        yield

    monkeypatch.setattr(type(operations_for("default")), "time_limit", impatient)
    response = viewer.get(changelist("queuedtask"), {"task": "tests.tasks.add", "all": "1"})
    assert shown(response) == []
    assert "That took too long. Add a queue, a status or a time." in text(response)


@pytest.mark.parametrize("query", [{}, {"status": "FAILED"}])
def test_behind_the_last_page_older_tasks_follow(viewer, monkeypatch, query):
    monkeypatch.setattr(base, "COUNT_LIMIT", 5)
    monkeypatch.setattr(FinishedTaskAdmin, "list_per_page", 3)
    results = [factories.fail(add.enqueue(n, n)) for n in range(8)]
    seen = []
    response = viewer.get(changelist("finishedtask"), query)
    seen += shown(response)
    assert not response.context["cl"].older
    response = viewer.get(changelist("finishedtask"), {**query, "p": "2"})
    seen += shown(response)
    older = response.context["cl"].older
    assert "Older tasks" in text(response)
    response = viewer.get(changelist("finishedtask") + older)
    seen += shown(response)
    assert not response.context["cl"].older
    assert seen == [result.id for result in reversed(results)]


def test_an_address_with_nonsense_for_older_lists_nothing(viewer):
    add.enqueue(1, 2)
    for value in ("x", "2026-13-45T00:00", "2026-01-01T00:00"):
        response = viewer.get(changelist("queuedtask"), {"before": value})
        assert shown(response) == []


def test_an_unknown_id_finds_nothing(viewer):
    add.enqueue(1, 2)
    for term in (new_id(), "ffffff", "ffffffff-ffff"):
        assert "0 tasks" in plain(text(find(viewer, term)))


def test_a_search_does_not_lead_to_what_may_not_be_seen(client_with):
    result = factories.succeed(add.enqueue(1, 2))
    assert "0 tasks" in plain(text(find(client_with("view_queuedtask"), result.id)))


def test_a_search_is_bounded(viewer):
    add.enqueue_many([(n, n) for n in range(3)])
    for term in ("ffffff", "ffffffff-ffff", new_id()):
        with CaptureQueriesContext(connection) as queries:
            text(find(viewer, term))
        assert_bounded(queries.captured_queries, 15)


def test_nobody_is_told_of_a_search_without_permission(client_with):
    response = find(client_with("view_worker"), "zzz")
    assert response.status_code == 403
    assert said(response) == []
