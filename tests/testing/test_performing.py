"""perform(): one attempt, and what came of it."""

from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import override_settings

from django_bgtasks.exceptions import InvalidArguments, RetryRequested
from django_bgtasks.models import QueuedTask
from django_bgtasks.testing import capture_tasks, perform, run_tasks
from tests.models import Effect
from tests.workflows import tasks as flows

from . import tasks
from .cases import IN_BOTH


@IN_BOTH
def test_a_value_is_in_the_outcome(in_transaction):
    outcome = perform(tasks.note, "a", number=3)
    assert (outcome.state, outcome.value, outcome.exception) == ("SUCCESSFUL", 3, None)
    assert outcome.result.attempts == 1
    assert Effect.objects.get().name == "a"


@IN_BOTH
def test_an_exception_is_in_the_outcome(in_transaction):
    outcome = perform(tasks.fail, "oh no")
    assert (outcome.state, outcome.value, outcome.delay) == ("FAILED", None, None)
    assert str(outcome.exception) == "oh no"
    assert "oh no" in outcome.reason


@pytest.mark.django_db
def test_arguments_and_value_go_through_json():
    assert perform(tasks.tell_type, (1, 2)).value == "list"
    with pytest.raises(InvalidArguments, match="timedelta"):
        perform(tasks.tell_type, timedelta(1))
    with pytest.raises(InvalidArguments, match="missing"):
        perform(tasks.tell_type)


@IN_BOTH
def test_another_attempt_is_told_of_and_run_by_run_tasks(in_transaction):
    outcome = perform(tasks.fail_twice, "a")
    assert (outcome.state, outcome.delay) == ("SCHEDULED", 60)
    assert isinstance(outcome.exception, ConnectionError)
    assert run_tasks(until=timedelta(hours=1)).successful == 1


@pytest.mark.django_db
def test_what_the_context_asks_for_is_told_of():
    outcome = perform(tasks.ask_again)
    assert (outcome.state, outcome.delay) == ("SCHEDULED", 3600)
    assert isinstance(outcome.exception, RetryRequested)
    assert outcome.reason == "RetryRequested: Not yet."
    outcome = perform(tasks.snooze)
    assert (outcome.state, outcome.delay, outcome.reason) == ("SCHEDULED", 300, "Not awake.")


@IN_BOTH
def test_async_and_atomic_tasks_are_performed(in_transaction):
    assert perform(tasks.note_async, "a").value == 1
    assert perform(tasks.note_atomic, "b").value == "b"
    assert perform(tasks.note_atomic, "c", then_fail=True).state == "FAILED"
    assert set(Effect.objects.values_list("name", flat=True)) == {"a", "b"}


@pytest.mark.django_db
def test_limits_and_times_are_not_asked():
    tasks.one_at_a_time.enqueue_many([{"name": "a"}, {"name": "b"}])
    assert perform(tasks.one_at_a_time, "c").state == "SUCCESSFUL"
    later = tasks.note.using(run_after=timedelta(days=1))
    assert perform(later, "now").state == "SUCCESSFUL"
    assert set(Effect.objects.values_list("name", flat=True)) == {"c", "now"}


@pytest.mark.django_db
def test_other_tasks_are_left_alone():
    tasks.note.enqueue("other")
    perform(tasks.enqueue_another)
    assert QueuedTask.objects.count() == 2
    assert not Effect.objects.exists()


@pytest.mark.django_db
def test_what_is_performed_was_not_enqueued_by_the_code_under_test():
    with capture_tasks() as found:
        perform(tasks.enqueue_another)
    assert [r.task for r in found] == [tasks.note]


@pytest.mark.django_db
def test_a_unique_task_that_waits_already_is_not_performed():
    flows.only_one.enqueue()
    with pytest.raises(RuntimeError, match="ready, has its unique key"):
        perform(flows.only_one)


@pytest.mark.django_db
def test_a_block_of_ones_own_is_refused():
    with transaction.atomic(), pytest.raises(RuntimeError, match="after the block"):
        perform(tasks.note, "a")


@override_settings(TASKS={"default": {"BACKEND": "django_bgtasks.ImmediateBackend", "QUEUES": []}})
def test_it_needs_the_database():
    with pytest.raises(ImproperlyConfigured, match="DatabaseBackend"):
        perform(tasks.note, "a")
