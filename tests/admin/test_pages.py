"""The page of one task: every column, nothing that may not be seen, nothing that runs."""

import json
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.http import HttpRequest
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_bgtasks import encryption
from django_bgtasks.admin import FinishedTaskAdmin, QueuedTaskAdmin
from django_bgtasks.admin.display import duration, relative, visible
from django_bgtasks.admin.payload import HIDDEN
from django_bgtasks.compat import task_backends
from django_bgtasks.models import FinishedTask, Queue, QueuedTask, Step
from django_bgtasks.queues import add_configured
from django_bgtasks.states import LiveStatus
from tests import factories
from tests.tasks import add, nothing

from .conftest import VIEW
from .pages import assert_bounded, changelist, page, plain, said, text
from .tasks import call_service, fetch, import_feed, log_in, say
from .test_lists import worker

pytestmark = pytest.mark.django_db

POISON = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 }}\u202egnp.exe\x1b[31m"


def see(client, result):
    result.refresh()
    model = "queuedtask" if result.state in LiveStatus.values else "finishedtask"
    return text(client.get(page(model, result.id)))


def test_the_page_of_a_live_task_shows_each_column(operator):
    fetch.using(priority=7, queue_name="emails", max_attempts=4).enqueue("https://example.com")
    factories.claim(worker_id="web-1")
    (row,) = QueuedTask.objects.all()
    content = plain(text(operator.get(page("queuedtask", row.pk))))
    for words in (
        "tests.admin.tasks.fetch",
        str(row.pk),
        str(row.claim_id),
        "emails",
        "web-1",
        "At most 4 attempts.",
        "(Set by .using().)",
        'url = "https://example.com"',
        "Running",
        "just now",
    ):
        assert words in content


def test_each_column_has_its_place():
    """A column that is new belongs on the page, and here."""
    both = {
        *("id", "task_path", "queue_name", "priority", "backend", "args", "kwargs", "options"),
        *("enqueued_at", "run_after", "started_at", "last_attempted_at", "attempt", "failures"),
        *("lost_count", "worker_id", "errors", "notes", "reason", "status", "claim_id"),
    }
    # The digests are shown as the keys that they are of: among the policies.
    live = {"rank", "due_at", "lease_until", "fair_key", "limit_key"}
    assert {f.name for f in QueuedTask._meta.fields} == both | live
    assert {f.name for f in FinishedTask._meta.fields} == both | {
        "finished_at",
        "return_value",
        "fingerprint",
    }


def test_the_page_of_a_result_shows_value_and_errors(operator):
    one = factories.succeed(add.enqueue(1, 2), {"sum": [3, None]})
    assert '"sum": [ 3, null ]' in plain(see(operator, one))
    two = factories.fail(add.enqueue(1, 2))
    content = see(operator, two)
    assert "Attempt 1 · w1 · <strong>ValueError: as the worker saw it</strong>" in content
    assert "Traceback (most recent call last):\nbuiltins.ValueError" in content


@pytest.mark.parametrize("model", ["queue", "worker"])
def test_the_pages_of_queues_and_workers_open(viewer, model):
    pk = Queue.objects.create(name="default").pk if model == "queue" else worker().pk
    text(viewer.get(page(model, pk)))
    text(viewer.get(page(model, pk, "history")))


def test_payload_needs_its_permission(viewer, client_with):
    one = factories.succeed(add.enqueue("argument", 2), "returned")
    two = factories.fail(add.enqueue("argument", 2), "app.Problem")
    three = add.enqueue("argument", 2)
    for result in (one, two, three):
        content = see(viewer, result)
        assert "You may not see arguments." in content
        for secret in ("argument&quot;", "returned", "as the worker saw it"):
            assert secret not in content
    assert "You may not see return values." in see(viewer, one)
    assert "You may not see tracebacks." in see(viewer, two)
    assert "app.Problem" in see(viewer, two)
    permitted = client_with(*VIEW, "view_payload")
    for result in (one, two, three):
        assert "argument&quot;" in see(permitted, result)
        assert "You may not see" not in see(permitted, result)


def test_nothing_of_a_payload_runs_or_turns_the_text(operator):
    results = [
        add.enqueue(POISON, {POISON: [POISON]}),
        factories.succeed(nothing.enqueue(), {"k": POISON}),
        factories.fail(nothing.enqueue(), reason=POISON.replace("\x00", "")),
    ]
    error = {
        "attempt": POISON,
        "worker_id": POISON,
        "exception_class_path": POISON,
        "traceback": POISON,
        "started_at": POISON,
    }
    QueuedTask.objects.update(worker_id=POISON[:90], reason=POISON, queue_name=POISON[:90])
    FinishedTask.objects.update(
        errors=[error], task_path=f"app.{POISON[:60]}", worker_id=POISON[:90]
    )
    pages = [see(operator, result) for result in results]
    pages += [text(operator.get(changelist(m))) for m in ("queuedtask", "finishedtask")]
    for content in pages:
        assert "<script>alert" not in content
        assert "<img src=x" not in content
        assert "\x1b" not in content
        assert "&lt;script&gt;alert(1)" in content
        assert "{{ 7 }}" in content
    for content in (pages[0], pages[1], pages[2]):
        assert r"\u202egnp.exe\u001b[31m" in content


def test_no_page_of_a_poisoned_worker_or_queue_runs_it(operator):
    Queue.objects.create(
        name=POISON[:90], paused_at=timezone.now(), paused_by=POISON, reason=POISON
    )
    poisoned = worker(name=POISON[:90], hostname=POISON, queues=[POISON], version="<i>")
    for content in (
        text(operator.get(changelist("queue"))),
        text(operator.get(changelist("worker"))),
        text(operator.get(page("worker", poisoned.pk))),
    ):
        assert "<script>alert" not in content
        assert "<img src=x" not in content
        assert "&lt;script&gt;alert(1)" in content


# Redaction


def test_arguments_with_names_of_secrets_are_masked(operator):
    content = plain(
        see(
            operator,
            log_in.enqueue(
                "ann", "p4ss", "t0k1", "t0k2", csrf_token="t0k3", deep=[{"a": {"API_KEY": "k3y"}}]
            ),
        )
    )
    for secret in ("p4ss", "t0k1", "t0k2", "t0k3", "k3y"):
        assert secret not in content
    for words in ('user = "ann"', f"password = {HIDDEN}", f"*tokens[1] = {HIDDEN}", "deep = ["):
        assert words in content


def test_a_task_with_context_has_its_arguments_named(operator):
    content = plain(see(operator, call_service.enqueue("https://example.com", "k3y")))
    assert "k3y" not in content
    assert 'url = "https://example.com"' in content


@pytest.mark.parametrize("by_name", [False, True])
def test_hidden_arguments_are_masked_for_everybody(operator, by_name):
    operator.user.is_superuser = True
    operator.user.save()
    if by_name:
        result = import_feed.enqueue("acme", number=1, card="4711", card_holder="ann")
    else:
        result = import_feed.enqueue("acme", 1, {"deep": "4711"}, card_holder="ann")
    content = plain(see(operator, result))
    assert "4711" not in content
    assert f"card = {HIDDEN}" in content
    for words in ('partner = "acme"', "number = 1", 'card_holder = "ann"'):
        assert words in content


def test_hidden_arguments_of_any_number_are_masked(operator):
    content = plain(see(operator, say.enqueue("hello", "world", tone="soft")))
    assert "hello" not in content
    assert "world" not in content
    assert f"*words[1] = {HIDDEN}" in content
    assert 'tone = "soft"' in content


def test_hide_args_says_nothing_about_metadata(operator):
    result = import_feed.using(metadata={"card": "red", "user_token": "t0k"}).enqueue("acme", 1)
    content = plain(see(operator, result))
    assert 'card = "red"' in content
    assert f"user_token = {HIDDEN}" in content
    assert "t0k" not in content


def test_metadata_needs_the_permission_to_see_payload(viewer, operator):
    result = add.using(metadata={"request": [POISON]}).enqueue(1, 2)
    content = see(viewer, result)
    assert "You may not see metadata." in content
    assert "alert(1)" not in content
    content = see(operator, result)
    assert "&lt;script&gt;alert(1)" in content
    assert "<script>alert" not in content
    assert r"\u202egnp.exe" in content
    assert "metadata" not in see(operator, add.enqueue(1, 2)).lower()


# Encryption

SENTENCE = "It is encrypted with a key that OPTIONS['ENCRYPTION_KEYS'] does not hold."


@contextmanager
def keys(*names):
    options = {"ENCRYPTION_KEYS": [urlsafe_b64encode(name * 32).decode() for name in names]}
    with override_settings(TASKS={"default": {**settings.TASKS["default"], "OPTIONS": options}}):
        yield


@pytest.fixture
def encrypted():
    """A task that returned a value and made a step, all of it encrypted with key a."""
    with keys(b"a"):
        result = import_feed.enqueue("acme", 1, card="4711")
        conf = task_backends["default"].conf
        value = json.loads(encryption.sealer(conf)('{"rows": 3}'))
        factories.succeed(result, value)
        now = timezone.now()
        Step.objects.create(task_id=result.id, name="one", value=value, attempt=1, made_at=now)
    assert '"acme"' not in str(FinishedTask.objects.values_list("args", "kwargs"))
    return result.id


def see_result(client, pk):
    return plain(text(client.get(page("finishedtask", pk))))


def test_encrypted_values_are_shown_to_who_may_see_them(viewer, operator, encrypted):
    with keys(b"b", b"a"):
        content = see_result(operator, encrypted)
        assert 'partner = "acme"' in content
        assert f"card = {HIDDEN}" in content
        assert content.count('"rows": 3') == 2
        content = see_result(viewer, encrypted)
    assert "gAAAA" not in content
    assert '"rows"' not in content


@pytest.mark.parametrize("held", [(), (b"b",)])
def test_a_page_without_the_key_opens_and_says_so(operator, encrypted, held):
    with keys(*held):
        content = see_result(operator, encrypted)
    assert content.count(SENTENCE) == 3
    assert "gAAAA" not in content


def test_a_page_with_a_wrong_setting_or_a_broken_value_opens(operator, encrypted, monkeypatch):
    FinishedTask.objects.update(return_value={"$encrypted": "gAAAA\u00fc"})
    with keys(b"a"):
        assert see_result(operator, encrypted).count(SENTENCE) == 1

    def broken(*args):
        raise ImproperlyConfigured("no")

    monkeypatch.setattr(encryption, "_cipher", broken)
    with keys(b"a"):
        assert see_result(operator, encrypted).count(SENTENCE) == 3


def test_return_values_are_masked_at_any_depth(operator):
    value = {"user": {"name": "ann", "sessionToken": "t0k"}, "rows": [{"secret": [1, "s3c"]}]}
    content = plain(see(operator, factories.succeed(nothing.enqueue(), value)))
    assert "ann" in content
    assert "t0k" not in content
    assert "s3c" not in content


@pytest.mark.parametrize(
    "path", ["tests.admin.tasks.gone", "no.such.module.task", "x", "json.dumps"]
)
def test_arguments_of_an_unknown_task_are_masked(operator, path):
    """A task that is renamed must not show what its hide_args hid yesterday."""
    result = log_in.enqueue("ann", "p4ss", hint="blue")
    QueuedTask.objects.update(task_path=path)
    content = plain(see(operator, result))
    assert "p4ss" not in content
    assert f"hint = {HIDDEN}" in content
    assert "This code has no such task" in content


def test_a_renamed_task_is_found_by_its_alias(operator, settings):
    result = log_in.enqueue("ann", "p4ss")
    QueuedTask.objects.update(task_path="tests.admin.tasks.old_name")
    aliases = {"tests.admin.tasks.old_name": "tests.admin.tasks.log_in"}
    tasks = {"default": {**settings.TASKS["default"], "OPTIONS": {"ALIASES": aliases}}}
    with override_settings(TASKS=tasks):
        content = plain(see(operator, result))
    assert 'user = "ann"' in content
    assert "p4ss" not in content


def test_a_task_whose_module_breaks_has_a_page(operator, monkeypatch):
    result = add.enqueue(1, 2)

    def broken(*args, **kwargs):
        raise SyntaxError("no")

    monkeypatch.setattr("django_bgtasks.registry.resolve", broken)
    assert result.id in see(operator, result)


@pytest.mark.parametrize("value", [{"a": 1}, "text", None, 5])
def test_arguments_of_another_shape_are_shown_all_the_same(operator, value):
    result = add.enqueue(1, 2)
    for column in ("args", "kwargs"):
        if connection.features.supports_json_field and value is not None:
            QueuedTask.objects.update(**{column: value})
            see(operator, result)


def test_long_values_are_folded(operator):
    content = see(operator, add.enqueue("x" * 10_000, 1))
    assert "<details><summary>10012 characters</summary>" in content


# Where a task is


def test_an_address_keeps_working_when_the_task_ends_or_begins_anew(operator):
    result = add.enqueue(1, 2)
    factories.fail(result)
    assert operator.get(page("queuedtask", result.id)).url == page("finishedtask", result.id)
    result.retry()
    assert operator.get(page("finishedtask", result.id)).url == page("queuedtask", result.id)


@pytest.mark.parametrize("pk", ["01a20000-0000-7000-8000-000000000000", "x", "<script>", "_3C"])
@pytest.mark.parametrize("model", ["queuedtask", "finishedtask"])
def test_an_address_of_no_task_says_what_may_have_become_of_it(viewer, model, pk):
    response = viewer.get(page(model, pk))
    assert response.status_code == 404
    response.status_code = 200  # The content is held to the same rules.
    content = text(response)
    words = "may have been pruned: successful tasks are kept 7 days, failed ones 30 days."
    assert words in plain(content).replace("\xa0", " ")
    assert f'action="{changelist(model)}"' in content
    assert "<script>" not in content.replace("<script src", "")


def test_the_address_in_a_result_leads_to_its_page(operator):
    result = add.enqueue(1, 2)
    assert result.id in text(operator.get(result.admin_url))


def test_pages_are_refused_without_permission(client_with):
    one, two = add.enqueue(1, 2), factories.succeed(nothing.enqueue())
    client = client_with("view_queue", "view_worker", "view_payload")
    for url in (page("queuedtask", one.id), page("finishedtask", two.id)):
        assert client.get(url).status_code == 403
    other = client_with("view_queuedtask")
    assert other.get(page("queuedtask", two.id)).status_code == 404


@pytest.mark.parametrize("state", ["live", "done"])
def test_a_page_costs_little(operator, state):
    result = add.enqueue(1, 2)
    if state == "done":
        factories.fail(result)
    url = page("queuedtask" if state == "live" else "finishedtask", result.id)
    text(operator.get(url))
    with CaptureQueriesContext(connection) as queries:
        text(operator.get(url))
    # Why a live one isn't running is asked of its queue, the workers, and those before it.
    assert_bounded(queries.captured_queries, 12 if state == "live" else 8)


# Other databases, other sites


@pytest.mark.django_db(databases=["default", "other"])
def test_the_pages_show_the_database_of_the_tasks(operator, settings):
    tasks = {"default": {**settings.TASKS["default"], "OPTIONS": {"DATABASE": "other"}}}
    with override_settings(TASKS=tasks):
        result = add.enqueue(1, 2)
        assert QueuedTask.objects.using("other").count() == 1
        assert "1 task" in plain(text(operator.get(changelist("queuedtask"))))
        response = operator.post(page("queuedtask", result.id, "cancel"))
        assert said(response) == ["1 task was cancelled."]
        row = FinishedTask.objects.using("other").get()
        assert str(row.pk) in text(operator.get(page("finishedtask", row.pk)))
        operator.post(page("finishedtask", row.pk, "delete"), {"post": "yes"})
        assert not FinishedTask.objects.using("other").exists()
        add_configured("other")
        assert Queue.objects.using("other").count() == 3
        assert not Queue.objects.using("default").exists()


def test_a_project_may_subclass_the_pages_on_a_site_of_its_own(rf: RequestFactory):
    class Scoped(QueuedTaskAdmin):
        def get_queryset(self, request: HttpRequest):
            return super().get_queryset(request).filter(queue_name="emails")

    site = admin.AdminSite(name="staff")
    site.register(QueuedTask, Scoped)
    assert not site.is_registered(FinishedTask)
    add.enqueue(1, 2)
    mine = add.using(queue_name="emails").enqueue(1, 2)
    request = rf.get("/")
    request.user = User(is_superuser=True, is_active=True, is_staff=True)
    scoped = site.get_model_admin(QueuedTask)
    assert [str(row.pk) for row in scoped.get_queryset(request)] == [mine.id]
    response = scoped.changelist_view(request)
    assert "1 task" in plain(response.render().content.decode())


def test_the_pages_are_registered():
    assert type(admin.site.get_model_admin(FinishedTask)) is FinishedTaskAdmin


# Words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (-3, "under 1 ms"),
        (0.85, "850 ms"),
        (0.9999, "1.0 s"),
        (12.44, "12.4 s"),
        (59.96, "1 min 0 s"),
        (192, "3 min 12 s"),
        (7800, "2 h 10 min"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds).replace("\xa0", " ") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (42, "42 s ago"),
        (89, "89 s ago"),
        (180, "3 min ago"),
        (-7200, "in 2 h"),
        (200000, "2 d ago"),
    ],
)
def test_ages_in_words(seconds, words):
    now = timezone.now()
    assert relative(now - timedelta(seconds=seconds), now).replace("\xa0", " ") == words


def test_what_can_not_be_seen_becomes_visible():
    assert (
        visible("a\u202eb\x00c\u200b\nd\te\u2066")
        == r"a\u202eb\u0000c\u200b" + "\nd\te" + r"\u2066"
    )
    assert json.loads(visible(json.dumps("\u202e", ensure_ascii=False))) == "\u202e"
