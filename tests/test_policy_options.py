"""Nonsense in the options of a task is refused where it is written, and told by its name."""

import asyncio
from datetime import timedelta

import pytest
from django.test import override_settings

from django_bgtasks import ImmediateBackend, current, task
from django_bgtasks.compat import InvalidTask, TaskContext, default_task_backend
from django_bgtasks.context import DatabaseTaskContext, Run
from django_bgtasks.exceptions import InvalidArguments, RetryRequested
from tests import policy_tasks


def import_feed(feed_id, partner="acme", api_key=None):
    pass


async def import_feed_async(feed_id):
    pass


#: Options, and what is said of them.
WRONG = [
    ({"timeout": 0}, "timeout must be seconds or a timedelta, more than 0 and at most ten years"),
    ({"timeout": -3}, "not -3"),
    ({"timeout": True}, "not True"),
    ({"timeout": "10m"}, "not '10m'"),
    ({"timeout": float("nan")}, "not nan"),
    ({"timeout": timedelta(days=36_600)}, "at most ten years"),
    ({"grace": 3}, "grace says nothing without timeout"),
    ({"timeout": 3, "grace": -1}, "grace must be seconds or a timedelta, at least 0"),
    ({"expires": 0}, "expires must be seconds"),
    ({"unique": ""}, "unique must be a text such as 'feed:{feed_id}'"),
    ({"unique": 7}, "not 7"),
    (
        {"unique": "feed:{fed_id}"},
        "import_feed() has no argument 'fed_id'. Did you mean 'feed_id'?",
    ),
    ({"unique": "feed:{}"}, "{} must be the name of an argument"),
    ({"unique": "feed:{feed_id.pk}"}, "without attributes"),
    ({"unique": "feed:{feed_id!r}"}, "conversions"),
    ({"unique": "feed:{feed_id:03}"}, "formats"),
    ({"unique": "feed:{feed_id"}, "unique='feed:{feed_id': "),
    ({"unique_while": "running"}, "unique_while says nothing without unique='...'"),
    ({"unique_for": 3}, "unique_for says nothing without unique='...'"),
    ({"on_conflict": "refuse"}, "on_conflict says nothing without unique='...'"),
    ({"unique": "a", "unique_while": "waitin"}, "must be 'running' or 'waiting', not 'waitin'"),
    ({"unique": "a", "on_conflict": "merge"}, "must be 'return', 'replace' or 'refuse'"),
    ({"unique": "a", "unique_for": -1}, "unique_for must be seconds"),
    ({"unique": "a", "unique_for": 3, "unique_while": "waiting"}, "leave unique_while out"),
    ({"unique": "a", "on_conflict": "replace", "unique_while": "running"}, "a task that waits"),
    ({"unique": "a", "on_conflict": "replace", "unique_for": 3}, "there is no unique_for"),
    ({"concurrency": 0}, "at least 1 and at most 1,000,000, not 0"),
    ({"concurrency": True}, "not True"),
    ({"concurrency": "3"}, "not '3'"),
    ({"concurrency": ("key", 1, 2)}, "not ('key', 1, 2)"),
    ({"concurrency": ("key:{partne}", 2)}, "Did you mean 'partner'?"),
    ({"rate": "100"}, "rate must be such as '100/m'"),
    ({"rate": "100/fortnight"}, "the units are s, m, h and d"),
    ({"rate": "0/m"}, "numbers are at least 1"),
    ({"rate": "100/0m"}, "the period must be above 0"),
    ({"rate": ("key", "100/m", 0)}, "not ('key', '100/m', 0)"),
    ({"rate": 100}, "not 100"),
    ({"fair": "tenant"}, "names no argument"),
    ({"fair": "{tenant}"}, "import_feed() has no argument 'tenant'"),
    ({"atomic": 1}, "atomic must be True or False, not 1"),
    ({"labels": {"team": object}}, "labels must be a dictionary of texts"),
    ({"labels": ["team"]}, "not ['team']"),
    ({"hide_args": ("api_kye",)}, "Did you mean 'api_key'?"),
    ({"hide_args": (7,)}, "hide_args must hold names of arguments, not 7"),
    ({"aliases": ("old name",)}, "dotted paths such as 'shop.tasks.old_name', not 'old name'"),
    ({"aliases": f"{__name__}.import_feed"}, "is what the task is called now"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=lambda value: str(value)[:50])
def test_a_wrong_option_is_refused_when_the_module_is_imported(options, said):
    with pytest.raises(InvalidTask) as caught:
        task(**options)(import_feed)
    assert str(caught.value).startswith("import_feed(): ")
    assert said in str(caught.value)


def test_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(TypeError, match=r"unexpected option 'uniqe'. Did you mean 'unique'\?"):
        task(uniqe="feed:{feed_id}")
    with pytest.raises(TypeError, match=r"unexpected option 'time_out'. Did you mean 'timeout'\?"):
        policy_tasks.import_feed.using(time_out=3)


def test_a_coroutine_cannot_be_atomic():
    with pytest.raises(InvalidTask, match="transactions are synchronous"):
        task(atomic=True)(import_feed_async)


def test_using_refuses_what_belongs_to_the_function():
    with pytest.raises(TypeError, match="can't change 'hide_args'"):
        policy_tasks.import_feed.using(hide_args=("feed_id",))


def test_using_checks_as_the_decorator_does():
    with pytest.raises(InvalidTask, match="has no argument 'shop'"):
        policy_tasks.import_feed.using(unique="{shop}")


@pytest.mark.django_db
def test_a_key_that_the_arguments_do_not_hold_is_refused_at_the_call():
    keyed = policy_tasks.import_feed.using(unique="order:{feed_id[id]}")
    keyed.enqueue({"id": 7})
    with pytest.raises(InvalidArguments, match="argument 'feed_id' holds no 'id'"):
        keyed.enqueue({"pk": 7})


@pytest.mark.django_db
@pytest.mark.parametrize("value", [object(), {"day": {1, 2}}])
def test_metadata_that_json_cannot_hold_is_refused_at_the_call(value):
    with pytest.raises(InvalidArguments, match="metadata"):
        policy_tasks.import_feed.using(metadata={"culprit": value}).enqueue(1)


@pytest.mark.parametrize("pause", [-1, "10m", None])
def test_a_pause_that_is_none_is_refused(pause):
    context = DatabaseTaskContext(task_result=None)
    with pytest.raises(ValueError, match="in_ must be seconds"):
        context.snooze(pause)


# Without a worker


def test_a_context_outside_of_a_worker_keeps_nothing_and_hinders_nothing():
    context = DatabaseTaskContext(task_result=None, run=Run())
    assert list(context.track([1, 2], "Counting")) == [1, 2]
    context.progress(1, 2)
    context.check()
    context.labels["a"] = 1
    assert context.step("one", max, 1, 2) == 2
    assert asyncio.run(context.astep("two", max, 1, 2)) == 2
    assert (context.cancelled, context.deadline, dict(context.metadata)) == (False, None, {})
    with pytest.raises(RetryRequested):
        context.retry(in_=3)


@task(takes_context=True)
def use_the_context(context):
    assert current() is not None
    context.progress(1, 2)
    return [context.step("one", max, 1, 2), context.idempotency_key == context.task_result.id]


@override_settings(TASKS={"default": {"BACKEND": "django_bgtasks.ImmediateBackend", "QUEUES": []}})
def test_the_immediate_backend_gives_tasks_the_context_of_a_worker():
    assert isinstance(default_task_backend, ImmediateBackend) or default_task_backend.alias
    assert use_the_context.enqueue().return_value == [2, True]
    assert current() is None


def test_a_task_that_is_called_with_djangos_context_is_given_ours():
    context = TaskContext(task_result=type("Result", (), {"id": "x"})())
    assert task(takes_context=True)(with_context).call(context) is True


def with_context(context):
    return context.step("one", max, True, False)
