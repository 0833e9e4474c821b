"""From what people type to tasks: exact, bounded, and with a word for each mistake."""

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from django_bgtasks.filtering import BadFilter, TaskFilter, from_mapping, is_filter, parse
from django_bgtasks.ids import new_id
from django_bgtasks.models import (
    FailureGroup,
    FinishedTask,
    QueuedTask,
    Schedule,
    ScheduleRun,
)

from . import factories
from .sample_tasks import answer, note, take

pytestmark = pytest.mark.django_db


def found(text, model=QueuedTask):
    return {str(pk) for pk in parse(text).apply(model.objects.all()).values_list("pk", flat=True)}


def ids(*results):
    return {str(result.id) for result in results}


def test_qualifiers_and_a_word_become_a_filter():
    assert parse("queue:emails status:failed task:import_feed error:Timeout") == TaskFilter(
        queue="emails", status="FAILED", task="import_feed", error="Timeout"
    )
    assert parse("import label:customer=7 key:feed:118") == TaskFilter(
        word="import", label="customer=7", key="feed:118"
    )
    assert parse("'queue:two words'") == TaskFilter(queue="two words")
    assert parse("") == TaskFilter()
    assert not parse("")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("queu:emails", "Unknown qualifier 'queu'. Did you mean 'queue'? There are: status:, "),
        ("status:faild", "Unknown status 'faild'. Did you mean 'failed'?"),
        ("status:", "What follows status: is missing."),
        ("label:customer", "label:name=value"),
        ("label:a__b=1", "label:name=value"),
        ("since:yesterday", "such as 30m, 24h or 7d"),
        ("workflow:x", "no id of a workflow"),
        ("one two", "not for 'one' and 'two'"),
        ("'open", "A quotation mark is missing."),
    ],
)
def test_each_mistake_has_its_words(text, words):
    with pytest.raises(BadFilter, match=words.replace("?", r"\?").replace(".", r"\.")):
        parse(text)


def test_a_filter_survives_json_and_is_said_in_words():
    one = parse("queue:emails status:failed since:24h")
    assert from_mapping(one.as_dict()) == one
    assert one.in_words() == "status failed, queue emails, enqueued within 24h"
    assert TaskFilter().in_words() == "all tasks"
    with pytest.raises(BadFilter):
        from_mapping({"status": "nonsense"})


def test_tasks_are_found_by_status_queue_and_name():
    one = answer.enqueue()
    other = take.using(queue_name="emails").enqueue(1)
    third = note.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(1)
    assert found("status:ready") == ids(one, other)
    assert found("queue:emails") == ids(other)
    assert found("task:answer") == ids(one)
    assert found("task:tests.sample_tasks.note") == ids(third)
    assert found("ANSW") == ids(one)
    assert found("status:scheduled queue:default") == ids(third)
    assert found("status:successful") == set()
    assert found("nothing-like-this") == set()


def test_those_that_wait_for_another_attempt():
    one, _other = (
        answer.using(run_after=timezone.now() + timedelta(hours=1)).enqueue() for _ in "12"
    )
    QueuedTask.objects.filter(pk=one.id).update(failures=1)
    assert found("status:retrying") == ids(one)
    assert found("status:retrying", FinishedTask) == set()


def test_results_are_found_by_cause_and_by_the_name_of_an_error():
    one, other, _good = (factories.fail(answer.enqueue()) for _ in range(3))
    for result, fingerprint in ((one, "a" * 32), (other, "b" * 32)):
        FinishedTask.objects.filter(pk=result.id).update(fingerprint=fingerprint)
    now = timezone.now()
    for pk, name in (("a" * 32, "shop.errors.TimeoutError"), ("b" * 32, "builtins.KeyError")):
        FailureGroup.objects.create(
            pk=pk, exception_class=name, task_path="t", latest_task=new_id(),
            first_seen=now, last_seen=now,
        )  # fmt: skip
    assert found(f"cause:{'a' * 32}", FinishedTask) == ids(one)
    assert found("error:timeout", FinishedTask) == ids(one)
    assert found("error:builtins.KeyError", FinishedTask) == ids(other)
    assert found("error:ValueError", FinishedTask) == set()
    assert found("error:timeout") == set()


def test_by_label_key_schedule_and_age():
    one, other = (answer.enqueue() for _ in "12")
    QueuedTask.objects.filter(pk=one.id).update(
        notes={"labels": {"customer": "7"}}, options={"marks": {"unique": ["d", "feed:118"]}}
    )
    assert found("label:customer=7") == ids(one)
    assert found("label:customer=8") == set()
    assert found("key:feed:118") == ids(one)
    row = Schedule.objects.create(
        name="nightly", task_path="t", expression="@daily", time_zone="UTC"
    )
    now = timezone.now()
    ScheduleRun.objects.create(
        schedule=row, due_at=now, fired_at=now, status="FIRED", task_id=other.id
    )
    assert found("schedule:nightly") == ids(other)
    assert found("since:1h") == ids(one, other)
    later = parse("since:1h").apply(QueuedTask.objects.all(), now=time.time() + 7_200)
    assert not later.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0193e5a2", False), ("0193e5a2-7c1e", False), ("queue:a", True), ("import", True)],
)
def test_ids_are_no_filters(text, expected):
    assert is_filter(text) is expected
