"""From a list to a bulk operation, and its page."""

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks.bulk import estimating
from django_bgtasks.bulk.asking import abort, begin
from django_bgtasks.bulk.running import work
from django_bgtasks.models import BulkOperation, FinishedTask, QueuedTask
from tests import factories
from tests.bulk.rows import finished, queued, results, tasks

from .conftest import VIEW
from .pages import assert_bounded, changelist, page, plain, said, text
from .test_lists import worker

pytestmark = pytest.mark.django_db

POISON = "<script>alert(1)</script>\u202e"
VERBS = ("retry_finishedtask", "delete_finishedtask", "cancel_queuedtask", "run_queuedtask")


@pytest.fixture
def operator(client_with):
    return client_with(*VIEW, *VERBS, "bulk_task", "view_bulkoperation", "change_bulkoperation")


def address(model="finishedtask"):
    return f"{changelist(model)}bulk/"


# Asking


def test_the_page_says_which_tasks_how_many_and_what_happens(operator):
    queued(3)
    queued(1, queue_name="emails")
    factories.claim(("default",), limit=1)
    content = text(operator.get(address("queuedtask"), {"queue": "default"}))
    words = plain(content)
    for there in (
        "3 tasks",
        "tasks: queue default",
        "Cancel Tasks that have not started are cancelled.",
        "Left alone: 1 is running.",
        "Run now",
        "Left alone: 2 are ready already. 1 is running.",
    ):
        assert there in words
    assert "Retry" not in words
    assert 'name="number"' not in content


def test_an_operation_begins_by_a_post_and_is_written_down(operator):
    finished(3)
    answer = operator.post(
        f"{address()}?status=FAILED&verb=delete", {"verb": "retry", "rate": "5", "name": "After 12"}
    )
    operation = BulkOperation.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == page("bulkoperation", operation.pk)
    assert (operation.verb, operation.filter) == ("retry", {"status": "FAILED"})
    assert (operation.rate, operation.name, operation.estimate) == (5.0, "After 12", 3)
    assert operation.asked_by == operator.user.username
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (
        str(operation.pk),
        "Retry: results: status failed",
    )
    assert not QueuedTask.objects.exists()
    work("default")
    assert QueuedTask.objects.count() == 3


def test_the_verb_of_the_address_is_chosen_and_not_done(operator):
    finished(1)
    content = text(operator.get(address(), {"verb": "delete"}))
    assert 'value="delete" checked' in content
    assert not BulkOperation.objects.exists()


def test_many_tasks_ask_for_their_number(operator, monkeypatch):
    monkeypatch.setattr("django_bgtasks.admin.bulk_page.TYPED_FROM", 2)
    finished(3)
    content = text(operator.get(address()))
    assert "Type 3 to go on:" in content
    data = {"verb": "retry", "shown": "3"}
    for typed in ("", "4", "three"):
        wrong = operator.post(address(), {**data, "number": typed})
        assert "Type the number that is shown." in text(wrong)
    assert not BulkOperation.objects.exists()
    assert operator.post(address(), {**data, "number": " 3 "}).status_code == 302


def test_a_number_that_has_grown_is_shown_again(operator, monkeypatch):
    monkeypatch.setattr("django_bgtasks.admin.bulk_page.TYPED_FROM", 2)
    finished(9)
    answer = operator.post(address(), {"verb": "retry", "shown": "3", "number": "3"})
    content = text(answer)
    assert "The number has changed. Type the one that is shown." in content
    assert "Type 9 to go on:" in content
    assert not BulkOperation.objects.exists()


def test_thousands_may_be_typed_as_they_are_shown(operator, monkeypatch):
    monkeypatch.setattr(estimating, "LIMIT", 5)
    monkeypatch.setattr(
        "django_bgtasks.admin.bulk_page.estimate",
        lambda *args: estimating.Estimate({"FAILED": 48_312}, False),
    )
    content = text(operator.get(address()))
    assert "about 48,300 tasks" in content
    assert "Type 48,300 to go on:" in content
    data = {"verb": "retry", "shown": "48300", "number": "48,300"}
    assert operator.post(address(), data).status_code == 302


def test_a_filter_that_means_nothing_can_not_begin(operator):
    answer = operator.post(f"{address()}?queue=nobody", {"verb": "retry"})
    assert "No task matches any more." in text(answer)
    assert not BulkOperation.objects.exists()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"color": "red"}, "&#x27;color&#x27; is no filter"),
        ({"status": "READY"}, "No result has the status ready."),
        ({"q": "colour:red"}, "Unknown qualifier"),
        ({"since": POISON}, "is no age"),
    ],
)
def test_a_filter_that_is_not_understood_is_refused(operator, query, words):
    finished(1)
    for answer in (
        operator.get(address(), query),
        operator.post(f"{address()}?{next(iter(query))}={query.popitem()[1]}", {"verb": "retry"}),
    ):
        assert answer.status_code == 400
        content = answer.content.decode()
        assert words in content
        assert "<script>alert" not in content
    assert not BulkOperation.objects.exists()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"verb": "explode"},
        {"verb": "cancel"},
        {"verb": "retry", "rate": "0"},
        {"verb": "retry", "rate": "nan"},
        {"verb": "retry", "rate": "many"},
        {"verb": "retry", "name": "a" * 101},
        {"verb": "retry", "name": "a\x00"},
    ],
)
def test_what_makes_no_sense_is_said_at_its_field(operator, data):
    finished(1)
    assert 'class="bgt-error" role="alert"' in text(operator.post(address(), data))
    assert not BulkOperation.objects.exists()


def test_each_verb_needs_its_own_permission_and_the_one_to_act_in_bulk(client_with):
    finished(1)
    for given in (
        (*VIEW, *VERBS),
        (*VIEW, "bulk_task"),
        (*VERBS, "bulk_task"),
    ):
        client = client_with(*given)
        for model in ("finishedtask", "queuedtask"):
            assert client.get(address(model)).status_code == 403
            for verb in ("retry", "delete", "cancel", "run_now"):
                assert client.post(address(model), {"verb": verb}).status_code == 403
    client = client_with(*VIEW, "bulk_task", "retry_finishedtask")
    assert "Delete" not in plain(text(client.get(address())))
    text(client.post(address(), {"verb": "delete"}))
    assert client.get(address("queuedtask")).status_code == 403
    assert not BulkOperation.objects.exists()


def test_keys_are_a_filter_of_who_may_see_arguments(operator, client_with):
    query = {"q": "key:feed:118"}
    assert operator.get(address(), query).status_code == 403
    client = client_with(*VIEW, *VERBS, "bulk_task", "view_payload")
    assert client.get(address(), query).status_code == 200


def test_other_methods_are_refused_and_csrf_is_asked_for(operator, client_with):
    finished(1)
    assert operator.put(address()).status_code == 405
    client = client_with(*VIEW, *VERBS, "bulk_task", csrf=True)
    assert client.post(address(), {"verb": "retry"}).status_code == 403
    assert not BulkOperation.objects.exists()


def test_the_page_costs_a_bounded_number_of_queries(operator, monkeypatch):
    finished(30)
    with CaptureQueriesContext(connection) as queries:
        text(operator.get(address(), {"status": "FAILED", "queue": "default"}))
    assert_bounded(queries, 15)
    monkeypatch.setattr(estimating, "LIMIT", 5)
    with CaptureQueriesContext(connection) as queries:
        text(operator.get(address(), {"status": "FAILED", "queue": "default"}))
    assert_bounded(queries, 15)


def test_the_list_knows_the_address_with_its_filter(operator, viewer, rf):
    from django.contrib import admin

    page_of = admin.site.get_model_admin(FinishedTask)
    request = rf.get(changelist("finishedtask"), {"status": "FAILED", "p": "2", "queue": ""})
    request.user = operator.user
    assert page_of.bulk_address(request) == f"{address()}?status=FAILED"
    request.user = viewer.user
    assert page_of.bulk_address(request) == ""


# The record


def test_the_list_is_the_record_of_who_did_what(operator):
    assert "Nothing was done in bulk yet." in text(operator.get(changelist("bulkoperation")))
    finished(2)
    queued(1)
    factories.claim(limit=1)
    begin("default", results(status="FAILED"), "retry", by="ann", name="After the fix")
    begin("default", tasks(), "cancel", by="bob")
    for _ in range(4):
        work("default")
    with CaptureQueriesContext(connection) as queries:
        words = plain(text(operator.get(changelist("bulkoperation"))))
    assert_bounded(queries, 10)
    assert "After the fix Done 2 ann" in words
    assert "Cancel: all tasks Done 2, 1 skipped bob" in words
    only = plain(text(operator.get(changelist("bulkoperation"), {"verb": "retry"})))
    assert "Cancel: all tasks" not in only


def test_the_page_says_how_far_it_is_and_what_was_left_alone(operator):
    worker(queues=["default"])
    queued(3)
    factories.claim(limit=1)
    operation = begin("default", tasks(queue="default"), "cancel", by="ann", rate=50, estimate=3)
    content = text(operator.get(page("bulkoperation", operation.pk)))
    assert "0 of about 3 tasks" in content
    assert ">Abort<" in content
    assert "No worker is running" not in content
    work("default")
    work("default")
    with CaptureQueriesContext(connection) as queries:
        content = text(operator.get(page("bulkoperation", operation.pk)))
    assert_bounded(queries, 12)
    words = plain(content)
    for there in ("Done", "1 is running.", "tasks: queue default", "at most 50 a second", "ann"):
        assert there in words
    assert ">Abort<" not in content
    assert 'role="progressbar"' in content
    assert "?q=queue%3Adefault" in content


def test_without_a_worker_the_page_says_what_to_type(operator):
    operation = begin("default", tasks(), "cancel")
    content = text(operator.get(page("bulkoperation", operation.pk)))
    assert "python manage.py runworker" in content


def test_an_operation_is_aborted_by_a_post_of_who_may(operator, client_with):
    operation = begin("default", tasks(), "cancel")
    target = page("bulkoperation", operation.pk, "abort")
    assert operator.get(target).status_code == 405
    assert client_with(*VIEW, "view_bulkoperation").post(target).status_code == 403
    assert client_with("change_bulkoperation", csrf=True).post(target).status_code == 403
    assert BulkOperation.objects.get().state == "WAITING"
    assert said(operator.post(target)) == ["It is aborted. What was done stays done."]
    row = BulkOperation.objects.get()
    assert (row.state, row.abort_by) == ("ABORTED", operator.user.username)
    assert LogEntry.objects.get().change_message == "Aborted."
    assert said(operator.post(target)) == ["It had ended already."]
    assert f"aborted by {operator.user.username}" in plain(
        text(operator.get(page("bulkoperation", operation.pk)))
    )


def test_untrusted_text_is_text(operator):
    operation = begin(
        "default", tasks(queue=POISON), "cancel", by=POISON, name=POISON, estimate=None
    )
    BulkOperation.objects.update(error=POISON, skipped={POISON: 1})
    abort("default", operation.pk, by=POISON)
    for content in (
        text(operator.get(page("bulkoperation", operation.pk))),
        text(operator.get(changelist("bulkoperation"))),
        text(operator.get(address("queuedtask"), {"queue": POISON})),
    ):
        assert "<script>alert" not in content
        assert "\u202e" not in content


def test_live_regions_follow_an_operation(operator):
    finished(2)
    operation = begin("default", results(), "retry")
    target = page("bulkoperation", operation.pk)
    headers = {"X-Requested-With": "bgt-live"}
    first = operator.get(target, headers=headers)
    assert first.content.count(b"data-bgt-live") == 2
    work("default")
    again = operator.get(target, headers={**headers, "If-None-Match": first["ETag"]})
    assert again.status_code == 200
    assert b"Done" in again.content


def test_who_may_not_see_the_record_comes_back_to_the_list(client_with):
    finished(1)
    client = client_with(*VIEW, "bulk_task", "retry_finishedtask")
    answer = client.post(address(), {"verb": "retry"})
    assert answer["Location"] == changelist("finishedtask")
    assert said(answer) == ["Retry: workers begin with it within seconds."]
    operation = BulkOperation.objects.get()
    assert client.get(page("bulkoperation", operation.pk)).status_code == 403
    assert operation.asked_at <= timezone.now()
