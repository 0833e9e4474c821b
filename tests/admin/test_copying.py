"""A copy of a task with other arguments: who may, what the form shows, what is enqueued."""

import html
import json
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_bgtasks import chain, previous, task
from django_bgtasks.admin.payload import HIDDEN
from django_bgtasks.models import FinishedTask, QueuedTask
from tests import factories
from tests.tasks import add
from tests.workflows import tasks

from .conftest import VIEW
from .pages import page, plain, said, text
from .tasks import call_service, import_feed, log_in, say
from .test_pages import POISON, keys

pytestmark = pytest.mark.django_db

COPY = (*VIEW, "view_payload", "copy_queuedtask")


@task(queue_name="emails", priority=5)
def positional(first, /, second, *rest, third=3):
    return None


@pytest.fixture
def copier(client_with):
    return client_with(*COPY)


def url_of(result):
    live = QueuedTask.objects.filter(pk=result.id).exists()
    return page("queuedtask" if live else "finishedtask", result.id, "copy")


def offered(client, result):
    """Return the arguments that the form begins with."""
    content = text(client.get(url_of(result)))
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", content, re.DOTALL)[1]
    return json.loads(html.unescape(found))


def copy(client, result, arguments):
    """Enqueue a copy; return its row."""
    before = set(QueuedTask.objects.values_list("pk", flat=True))
    given = arguments if isinstance(arguments, str) else json.dumps(arguments)
    response = client.post(url_of(result), {"arguments": given})
    assert response.status_code == 302, plain(response.content.decode())
    (row,) = QueuedTask.objects.exclude(pk__in=before)
    assert response.url == page("queuedtask", row.pk)
    return row


def refused(client, result, arguments):
    """Return what the form says against arguments."""
    given = arguments if isinstance(arguments, str) else json.dumps(arguments)
    count = QueuedTask.objects.count()
    content = text(client.post(url_of(result), {"arguments": given}))
    assert QueuedTask.objects.count() == count
    return html.unescape(re.search(r'role="alert">(.*?)</p>', content, re.DOTALL)[1])


def test_a_copy_is_a_task_of_its_own_and_says_of_what(copier):
    result = add.using(queue_name="emails", priority=7).enqueue(1, 2)
    factories.fail(result)
    assert url_of(result) in text(copier.get(page("finishedtask", result.id)))
    assert offered(copier, result) == {"a": 1, "b": 2}
    row = copy(copier, result, {"a": 1, "b": 5})
    assert (row.args, row.kwargs) == ([], {"a": 1, "b": 5})
    assert (row.queue_name, row.priority, row.status) == ("emails", 7, "READY")
    name = copier.user.username
    assert row.options["origin"] == {"copy_of": result.id, "user": name}
    content = text(copier.get(page("queuedtask", row.pk)))
    link = f'by {name}, as a copy of <a href="{page("queuedtask", result.id)}"'
    assert link in content
    assert LogEntry.objects.get().change_message == f"Run again as a copy: {row.pk}."
    assert FinishedTask.objects.get().args == [1, 2]


def test_a_copy_has_the_policies_of_its_original_but_not_its_time(copier):
    result = import_feed.using(max_attempts=9, delay=3600, metadata={"request": "r-1"}).enqueue(
        "acme", 1
    )
    row = copy(copier, result, {"partner": "acme", "number": 2})
    assert row.status == "READY"
    assert row.run_after is None
    assert row.options["max_attempts"] == 9
    assert row.options["metadata"] == {"request": "r-1"}
    assert row.options["marks"]["unique"][1] == "feed:acme:2"


def test_arguments_are_passed_as_the_function_takes_them(copier):
    result = positional.enqueue(1, 2, 4, 5, third=6)
    assert offered(copier, result) == {"first": 1, "second": 2, "*rest": [4, 5], "third": 6}
    row = copy(copier, result, {"first": 1, "second": 2, "*rest": [7], "third": 8})
    assert (row.args, row.kwargs) == ([1, 2, 7], {"third": 8})
    row = copy(copier, result, {"first": 1, "second": 2})
    assert (row.args, row.kwargs) == ([1], {"second": 2})
    assert "*rest must be a list." in refused(copier, result, {"first": 1, "*rest": 3})
    row = copy(copier, call_service.enqueue("u", "k"), {"url": "v", "api_key": "w"})
    assert row.kwargs == {"url": "v", "api_key": "w"}


def test_what_equals_in_python_and_not_in_json_is_a_change(copier):
    result = add.enqueue(1, [True, 0])
    row = copy(copier, result, '{"a": true, "b": [1, false]}')
    assert json.dumps(row.kwargs) == '{"a": true, "b": [1, false]}'


# Secrets


def test_what_is_masked_and_left_alone_keeps_its_value(copier):
    result = log_in.enqueue("ann", "p4ss", "t1", "t2", deep={"token": "t3", "user": "bob"}, hint=1)
    content = text(copier.get(url_of(result)))
    for secret in ("p4ss", "t1&", "t2&", "t3"):
        assert secret not in content
    shown = offered(copier, result)
    assert shown["password"] == shown["*tokens"] == shown["deep"]["token"] == HIDDEN
    shown["deep"]["user"] = "eve"
    shown["hint"] = 2
    row = copy(copier, result, shown)
    assert row.args == ["ann", "p4ss", "t1", "t2"]
    assert row.kwargs == {"deep": {"token": "t3", "user": "eve"}, "hint": 2}
    row = copy(copier, result, {**shown, "password": "other", "*tokens": []})
    assert row.kwargs["password"] == "other"


def test_a_secret_does_not_move_to_another_argument(copier):
    result = log_in.enqueue("ann", "p4ss", deep=[{"user": "a", "pin_token": "t1"}, {"user": "b"}])
    shown = offered(copier, result)
    for changed in (
        {**shown, "user": HIDDEN},
        {**shown, "other": HIDDEN},
        {**shown, "deep": {"pin_token": HIDDEN}},
        {**shown, "deep": [{"user": "b", "pin_token": HIDDEN}, {"user": "b"}]},
        {**shown, "deep": [{"user": "a", "pin_token": HIDDEN}]},
        {**shown, "deep": [{"user": "b"}, {"user": "a", "pin_token": HIDDEN}]},
    ):
        assert "is hidden: type its value." in refused(copier, result, changed)
    assert copy(copier, result, shown).kwargs["deep"][0] == {"user": "a", "pin_token": "t1"}


def test_hidden_arguments_are_masked_in_the_form_too(copier):
    result = import_feed.enqueue("acme", 1, card={"number": "4711"})
    assert "4711" not in text(copier.get(url_of(result)))
    row = copy(copier, result, {**offered(copier, result), "number": 2})
    assert row.kwargs == {"partner": "acme", "number": 2, "card": {"number": "4711"}}


def test_encrypted_arguments_can_be_copied_with_their_key(copier):
    with keys(b"a"):
        result = import_feed.enqueue("acme", 1, card="4711")
        row = copy(copier, result, {**offered(copier, result), "number": 2})
        assert "$encrypted" in row.kwargs
    with keys(b"b"):
        response = copier.get(url_of(result))
        assert response.url == page("queuedtask", result.id)
        assert "is encrypted with a key" in said(response)[0]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "This field is required."),
        ("{", "This is no JSON: "),
        ("[1, 2]", "Give an object, which is {} without arguments."),
        ("5", "Give an object"),
        ('{"a": 1}', "add() missing 1 required argument: 'b'"),
        ('{"a": 1, "b": 2, "c": 3}', "add() got an unexpected keyword argument 'c'"),
        ('{"a": NaN, "b": 1}', "which JSON can't hold"),
        ('{"a": "\\u0000", "b": 1}', "holds NUL"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + ', "b": 1}', "JSON"),
        ('{"a": ' + "[" * 40 + "]" * 40 + ', "b": 1}', "is nested deeper than"),
        ('{"a": "\\ud800", "b": 1}', "half a surrogate pair"),
        ('{"<script>alert(1)</script>\\u202e": 1}', r"<script>alert(1)</script>\u202e"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_words(copier, arguments, words):
    assert words in refused(copier, add.enqueue(1, 2), arguments)


def test_a_copy_whose_unique_key_is_taken_leads_to_the_task_that_has_it(copier):
    result = import_feed.enqueue("acme", 1)
    response = copier.post(url_of(result), {"arguments": '{"partner": "acme", "number": 1}'})
    assert response.url == page("queuedtask", result.id)
    assert said(response) == ["Nothing was enqueued: this task has the unique key."]
    assert QueuedTask.objects.count() == 1
    assert not LogEntry.objects.exists()
    other = add.using(unique="sum:{a}", on_conflict="refuse").enqueue(1, 2)
    assert "has the unique key 'sum:1'" in refused(copier, other, {"a": 1, "b": 2})


@pytest.mark.parametrize("path", ["tests.admin.tasks.gone", "no.such.module.task", "json.dumps"])
def test_a_task_that_the_code_does_not_have_is_not_copied(copier, path):
    result = add.enqueue(1, 2)
    QueuedTask.objects.update(task_path=path)
    response = copier.get(url_of(result))
    assert response.url == page("queuedtask", result.id)
    assert "This code has no such task" in said(response)[0]
    assert QueuedTask.objects.count() == 1


@pytest.mark.parametrize("value", [{"a": 1}, "text", 5])
def test_arguments_of_no_shape_that_can_be_passed_are_not_copied(copier, value):
    result = add.enqueue(1, 2)
    QueuedTask.objects.update(args=value)
    assert "no shape" in said(copier.get(url_of(result)))[0]


def test_a_member_of_a_workflow_is_copied_without_the_results_of_others(copier):
    chain(tasks.give.with_args(1), tasks.show.with_args(previous)).enqueue()
    row = QueuedTask.objects.get(task_path=tasks.show.module_path)
    content = plain(text(copier.get(page("queuedtask", row.pk, "copy"))))
    assert "The copy has none: type what stands there." in content
    fresh = copy(copier, row.get_result(), {"value": 5})
    assert (fresh.status, "workflow" in fresh.options) == ("READY", False)


# Who may


@pytest.mark.parametrize("missing", ["view_queuedtask", "view_payload", "copy_queuedtask"])
def test_a_copy_needs_each_of_its_permissions(client_with, missing):
    result = add.enqueue(1, 2)
    client = client_with(*(set(COPY) - {missing}))
    assert client.get(url_of(result)).status_code == 403
    assert client.post(url_of(result), {"arguments": '{"a": 1, "b": 2}'}).status_code == 403
    if missing != "view_queuedtask":
        assert url_of(result) not in text(client.get(page("queuedtask", result.id)))
    assert QueuedTask.objects.count() == 1


def test_a_copy_is_a_post_with_a_token_of_who_is_logged_in(client_with):
    result = add.enqueue(1, 2)
    client = client_with(*COPY, csrf=True)
    given = {"arguments": '{"a": 1, "b": 2}'}
    assert client.post(url_of(result), given).status_code == 403
    client.get(url_of(result), given)
    assert QueuedTask.objects.count() == 1
    token = client.cookies["csrftoken"].value
    assert client.post(url_of(result), {**given, "csrfmiddlewaretoken": token}).status_code == 302
    assert "login" in Client().post(url_of(result), given).url
    assert QueuedTask.objects.count() == 2


def test_nothing_of_a_form_runs(copier):
    result = say.enqueue(POISON, tone=POISON)
    content = text(copier.get(url_of(result)))
    assert "<script>alert" not in content
    assert "\x1b" not in content
    assert copy(copier, result, offered(copier, result)).kwargs == {"tone": POISON}
