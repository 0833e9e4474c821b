"""What a page says of the policies of its task, in words and for each viewer."""

import pytest
from django.utils import timezone

from django_bgtasks.admin.payload import HIDDEN
from django_bgtasks.models import FinishedTask, LimitWait, QueuedTask
from tests import factories
from tests.tasks import add

from .pages import page, plain, text
from .tasks import charge, fetch, import_feed

pytestmark = pytest.mark.django_db


def see(client, result):
    model = "queuedtask" if QueuedTask.objects.filter(pk=result.id).exists() else "finishedtask"
    return plain(text(client.get(page(model, result.id)))).replace("\xa0", " ")


EVERY = (
    "At most 4 attempts.",
    "Pauses between attempts: 5.0 s, 1 min 0 s.",
    "No other attempt after KeyError.",
    "If its process dies, it has failed.",
    "An attempt may take 5 min 0 s, and 5.0 s more to end.",
    "(in 60 min), unless it has started.",
    "Unique by feed:acme:7, for 2 h 0 min after it was enqueued. Another one is not made.",
    "At most 2 of partner:acme run at once.",
    "One of partner:acme starts each 500 ms, up to 20 at once.",
    "Takes turns with others as acme.",
    "Atomic: its work, its result and what it enqueues commit together.",
)


@pytest.mark.parametrize("state", ["live", "done"])
def test_each_policy_has_a_line(operator, state):
    result = import_feed.enqueue("acme", 7)
    if state == "done":
        factories.fail(result)
    content = see(operator, result)
    for sentence in EVERY:
        assert sentence in content
    assert "Set by" not in content


def test_a_task_without_policies_says_little(operator):
    content = see(operator, add.enqueue(1, 2))
    assert "Policies At most 1 attempt. If its process dies, it runs again. Counted" in content


def test_what_a_call_changed_goes_before_the_definition(operator):
    changed = import_feed.using(
        max_attempts=9, timeout=1.5, unique="other:{number}", on_lost="retry", rate="3/h"
    )
    content = see(operator, changed.enqueue("acme", 7))
    for sentence in (
        "At most 9 attempts. (Set by .using().)",
        "If its process dies, it runs again. (Set by .using().)",
        "An attempt may take 1.5 s, and 5.0 s more to end. (Set by .using().)",
        "Unique by other:7, for 2 h",
        "One of tests.admin.tasks.import_feed starts each 20 min 0 s. (Set by .using().)",
    ):
        assert sentence in content
    assert content.count("Set by") == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "until it ends. Another one is not made."),
        ({"unique_while": "waiting"}, "until it starts. Another one is not made."),
        ({"on_conflict": "replace"}, "until it starts. Another one replaces its arguments."),
        ({"on_conflict": "refuse"}, "until it ends. Another one is refused."),
    ],
)
def test_how_long_a_key_is_unique(operator, options, words):
    content = see(operator, add.using(unique="sum:{a}", **options).enqueue(1, 2))
    assert f"Unique by sum:1, {words}" in content


@pytest.mark.parametrize(
    ("backoff", "words"),
    [
        ("exponential", "15 s, then twice as long each time, at most an hour."),
        (2.5, "2.5 s."),
    ],
)
def test_pauses_in_words(operator, backoff, words):
    content = see(operator, fetch.using(backoff=backoff).enqueue("x"))
    assert f"Pauses between attempts: {words}" in content


def test_the_grace_of_the_settings_is_told(operator):
    content = see(operator, add.using(timeout=60).enqueue(1, 2))
    assert "An attempt may take 1 min 0 s, and 10.0 s more to end." in content


def test_exceptions_are_named(operator):
    result = fetch.using(retry_on=[ConnectionError, "app.Busy"]).enqueue("x")
    assert "Another attempt after ConnectionError, app.Busy alone." in see(operator, result)


# Keys hold arguments


def test_keys_need_the_permission_to_see_payload(viewer):
    result = import_feed.enqueue("acme", 7)
    content = see(viewer, result)
    assert "acme" not in content
    for words in (
        "Unique by feed:{partner}:{number}, for",
        "At most 2 of partner:{partner} run at once.",
        "Takes turns with others as {partner}.",
        "At most 4 attempts.",
    ):
        assert words in content


def test_keys_of_hidden_arguments_are_shown_to_nobody(operator):
    content = see(operator, charge.enqueue("4711", "t0k3n"))
    assert "4711" not in content
    assert "t0k3n" not in content
    assert "Unique by card:{card}, until it ends." in content
    assert "Takes turns with others as {token}." in content
    assert "At most 3 of tests.admin.tasks.charge run at once." in content


def test_keys_of_an_unknown_task_are_shown_to_nobody(operator):
    result = import_feed.enqueue("acme", 7)
    QueuedTask.objects.update(task_path="tests.admin.tasks.gone")
    content = see(operator, result)
    assert "acme" not in content
    assert f"At most 2 of {HIDDEN} run at once." in content


# Waiting


def test_a_waiting_task_says_at_which_key(operator, viewer):
    results = import_feed.enqueue_many([("acme", number) for number in range(3)])
    waiting = QueuedTask.objects.get(status="WAITING")
    assert waiting.pk == LimitWait.objects.get().pk
    assert str(waiting.pk) == results[2].id
    assert "At most 2 of the key partner:acme run at once: now" in see(operator, results[2])
    assert "At most 2 of the key •••• run at once: now" in see(viewer, results[2])
    assert "of the key" not in see(operator, results[0])


# Whatever a row holds


@pytest.mark.parametrize(
    "options",
    [
        [],
        5,
        "x",
        {"marks": 5, "metadata": [1], "labels": "x", "expires_at": 7},
        {"marks": {"unique": 5, "concurrency": [], "rate": ["x"], "fair": {}}},
        {"max_attempts": "x", "timeout": {}, "expires_at": "x", "backoff": {}, "retry_on": 5},
        {"marks": {"concurrency": ["d", "<i>", "<i>"], "fair": ["d", "<script>alert(1)"]}},
        {"unique": "{", "marks": {"unique": ["d", "t"]}, "timeout": "<script>alert(1)"},
    ],
)
@pytest.mark.parametrize("status", ["READY", "WAITING"])
def test_a_page_opens_whatever_the_options_hold(operator, viewer, options, status):
    result = import_feed.enqueue("acme", 7)
    QueuedTask.objects.update(options=options, status=status)
    for client in (operator, viewer):
        content = text(client.get(page("queuedtask", result.id)))
        assert "<script>alert" not in content
        assert "<i>" not in content


def test_hostile_keys_run_nothing(operator):
    result = import_feed.enqueue("<script>alert(1)</script>\u202e", 7)
    content = text(operator.get(page("queuedtask", result.id)))
    assert "<script>alert" not in content
    assert r"partner:&lt;script&gt;alert(1)&lt;/script&gt;\u202e" in content


def test_an_expiry_that_has_passed_says_when(operator):
    result = import_feed.enqueue("acme", 7)
    factories.fail(result)
    row = FinishedTask.objects.get()
    options = {**row.options, "expires_at": timezone.now().isoformat()}
    FinishedTask.objects.update(options=options)
    assert "(just now), unless it has started." in see(operator, result)
