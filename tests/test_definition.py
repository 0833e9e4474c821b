"""@task and DatabaseTask: their options, and what .using() may change."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from django_bgtasks import DatabaseTask, compat, task
from django_bgtasks.compat import InvalidTask, Task
from django_bgtasks.definition import args_and_kwargs, unvalidated
from django_bgtasks.models import QueuedTask
from django_bgtasks.retries import LONGEST, RetryPolicy
from tests.sample_tasks import answer, deliver, own_id, take


def function():
    return None


def wait_long(failures, exception):
    return failures * 100.0


def test_without_options_a_task_is_as_djangos_and_never_retried():
    made = task(function)
    assert (made.priority, made.queue_name, made.backend) == (0, "default", "default")
    assert (made.run_after, made.takes_context) == (None, False)
    assert (made.max_attempts, made.backoff, made.on_lost) == (1, "exponential", "retry")
    assert made.policy == RetryPolicy()


def test_the_options_of_the_decorator_are_those_of_the_task():
    assert (deliver.priority, deliver.queue_name) == (10, "emails")
    assert deliver.policy == RetryPolicy(
        max_attempts=5,
        backoff=(10.0, 60.0),
        retry_on=("builtins.ConnectionError",),
        give_up_on=("builtins.BrokenPipeError",),
    )
    assert deliver.on_lost == "fail"


def test_a_task_is_frozen():
    with pytest.raises(AttributeError):
        deliver.priority = 3


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3", None])
def test_max_attempts_that_is_no_whole_number_is_refused(value):
    with pytest.raises(InvalidTask) as caught:
        task(max_attempts=value)(function)
    assert str(caught.value) == (
        f"max_attempts must be a whole number of at least 1 and at most 1,000,000, not {value!r}."
    )


@pytest.mark.parametrize("value", ["linear", -1, True, None, [], [1, -1], [True], ["1"], {}, 1e12])
def test_a_backoff_that_says_no_pause_is_refused(value):
    with pytest.raises(InvalidTask, match=r'^backoff must be "exponential", seconds, a list'):
        task(backoff=value)(function)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("exponential", "exponential"),
        (0, 0.0),
        (2, 2.0),
        ([1, 2.5], (1.0, 2.5)),
        ((3,), (3.0,)),
        (wait_long, wait_long),
    ],
)
def test_a_backoff_is_kept_in_one_form(given, kept):
    made = task(backoff=given)(function)
    assert made.backoff == kept
    assert type(made.backoff) is type(kept)


@pytest.mark.parametrize("value", ["never", None, True])
def test_on_lost_knows_two_words(value):
    with pytest.raises(InvalidTask) as caught:
        task(on_lost=value)(function)
    assert str(caught.value) == f"on_lost must be 'retry' or 'fail', not {value!r}."


@pytest.mark.parametrize("option", ["retry_on", "give_up_on"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (OSError, (OSError,)),
        ([OSError, KeyError], (OSError, KeyError)),
        ((), ()),
        ("shop.errors.Busy", ("shop.errors.Busy",)),
        (("shop.errors.Busy", OSError), ("shop.errors.Busy", OSError)),
    ],
)
def test_exception_classes_are_given_alone_or_in_a_list(option, given, kept):
    assert getattr(task(**{option: given})(function), option) == kept


@pytest.mark.parametrize("option", ["retry_on", "give_up_on"])
@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (int, int),
        ([OSError, 5], 5),
        (None, None),
        (OSError(), OSError()),
        ("ValueError", "ValueError"),
        (["no path"], "no path"),
    ],
    ids=repr,
)
def test_what_is_no_exception_class_is_refused(option, value, culprit):
    message = f"{option} must hold exception classes, not {culprit!r}."
    with pytest.raises(InvalidTask) as caught:
        task(**{option: value})(function)
    assert str(caught.value) == message
    with pytest.raises(InvalidTask) as caught:
        take.using(**{option: [1]})
    assert str(caught.value) == f"{option} must hold exception classes, not 1."


def test_an_unknown_option_of_the_decorator_is_refused():
    with pytest.raises(TypeError, match="max_attempt"):
        task(max_attempt=3)


def test_the_decorator_works_with_a_backend_of_somebody_else(settings):
    other = f"{compat.DummyBackend.__module__}.DummyBackend"
    settings.TASKS = {"default": {"BACKEND": other, "QUEUES": []}}
    made = task(max_attempts=3)(function)
    assert isinstance(made, DatabaseTask)
    assert made.max_attempts == 3
    assert made.enqueue().task == made
    assert [result.task for result in made.enqueue_many([(), {}])] == [made, made]
    assert len(compat.task_backends["default"].results) == 3


# using()


def test_using_takes_a_timedelta_from_now():
    before = timezone.now()
    made = take.using(run_after=timedelta(minutes=10))
    assert before <= made.run_after - timedelta(minutes=10) <= timezone.now()


@pytest.mark.parametrize("delay", [90, 90.0, timedelta(seconds=90)])
def test_delay_is_seconds_or_a_timedelta(delay):
    before = timezone.now()
    made = take.using(delay=delay)
    assert before <= made.run_after - timedelta(seconds=90) <= timezone.now()


def test_delay_and_run_after_exclude_each_other():
    with pytest.raises(TypeError, match="run_after or delay, not both"):
        take.using(delay=1, run_after=timezone.now())


@pytest.mark.parametrize("value", [5, "tomorrow", timezone.now().date()])
def test_a_run_after_that_is_no_time_is_refused(value):
    with pytest.raises(TypeError) as caught:
        take.using(run_after=value)
    assert str(caught.value) == f"run_after must be a datetime or a timedelta, not {value!r}."


@pytest.mark.django_db
def test_no_delay_is_ready_at_once():
    assert take.using(delay=0).enqueue().state == "READY"
    assert take.using(delay=-1).enqueue().state == "READY"


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("max_attemps", "max_attempts"), ("queue", "queue_name"), ("prioritie", "priority")],
)
def test_an_unknown_option_is_refused_with_a_suggestion(name, suggested):
    with pytest.raises(TypeError) as caught:
        take.using(**{name: 1})
    assert str(caught.value) == (
        f"using() got an unexpected option {name!r}. Did you mean {suggested!r}?"
    )
    with pytest.raises(TypeError, match=r"unexpected option 'zzz'\.$"):
        take.using(zzz=1)


def test_using_changes_the_options_of_retries():
    made = deliver.using(
        max_attempts=2, backoff=3, retry_on=OSError, give_up_on=[KeyError], on_lost="retry"
    )
    assert made.policy == RetryPolicy(
        max_attempts=2,
        backoff=3.0,
        retry_on=("builtins.OSError",),
        give_up_on=("builtins.KeyError",),
    )
    assert made.on_lost == "retry"
    assert deliver.max_attempts == 5


def test_using_checks_what_the_decorator_checks():
    with pytest.raises(InvalidTask, match="max_attempts must be a whole number"):
        take.using(max_attempts=0)
    with pytest.raises(InvalidTask, match="on_lost must be"):
        take.using(on_lost="panic")
    with pytest.raises(InvalidTask, match="backoff must be"):
        take.using(backoff="slow")


def test_using_takes_no_function_since_it_is_stored():
    with pytest.raises(TypeError) as caught:
        take.using(backoff=wait_long)
    assert str(caught.value) == (
        "using(backoff=...) is stored with the task and can't be a function. "
        "Give the function to @task."
    )


def test_none_leaves_an_option_as_it_is():
    same = deliver.using(
        priority=None, queue_name=None, run_after=None, backend=None, delay=None, max_attempts=None
    )
    assert same == deliver
    assert same.overrides == ()


@pytest.mark.django_db
def test_only_what_using_changed_is_stored_with_the_row():
    deliver.enqueue("a")
    deliver.using(priority=1, delay=5).enqueue("b")
    deliver.using(max_attempts=2, backoff=[1, 2]).using(on_lost="retry").enqueue("c")
    options = [row.options for row in QueuedTask.objects.order_by("id")]
    assert options == [None, None, {"max_attempts": 2, "backoff": [1, 2], "on_lost": "retry"}]


@pytest.mark.django_db
def test_overrides_of_many_are_stored_with_each():
    made = deliver.using(max_attempts=2, retry_on=OSError)
    results = made.enqueue_many([("a",), ("b",)])
    assert [deliver.get_result(result.id).task for result in results] == [made, made]


@pytest.mark.django_db
def test_a_priority_without_a_fraction_is_stored_as_the_whole_number():
    result = take.using(priority=3.0).enqueue()
    assert take.get_result(result.id).task.priority == 3


def test_equality_is_that_of_the_fields():
    assert deliver.using(priority=3) == deliver.using(priority=3)
    assert deliver.using(priority=3) != deliver
    assert deliver.using(max_attempts=2) != deliver
    _ = deliver.policy, deliver.signature
    assert deliver.using() == deliver


# What tasks from rows are made of


def test_unvalidated_asks_no_backend(settings):
    settings.TASKS = {}
    moment = datetime(2040, 1, 1, tzinfo=UTC)
    made = unvalidated(deliver, queue_name="gone", priority=1000, run_after=moment)
    assert (made.queue_name, made.priority, made.run_after) == ("gone", 1000, moment)
    assert made.func is deliver.func
    assert made.max_attempts == 5
    assert deliver.queue_name == "emails"


def test_unvalidated_copies_djangos_own_tasks():
    plain = Task(
        func=answer.func, priority=0, backend="default", queue_name="default", run_after=None
    )
    assert unvalidated(plain, queue_name="gone").queue_name == "gone"
    assert type(unvalidated(plain)) is Task


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ((1, 2), ((1, 2), {})),
        ((), ((), {})),
        ({"a": 1}, ((), {"a": 1})),
        ({}, ((), {})),
    ],
)
def test_a_call_is_a_tuple_or_a_dictionary(call, expected):
    assert args_and_kwargs(call) == expected


@pytest.mark.parametrize("call", [1, "text", [1], None, {1}])
def test_another_kind_of_call_is_refused(call):
    with pytest.raises(TypeError, match=r"One argument alone is written \("):
        args_and_kwargs(call)


def test_the_signature_leaves_the_context_out():
    assert own_id.signature.positional == ()
    assert deliver.signature.positional == ("address",)


def test_the_longest_pause_is_allowed():
    assert task(backoff=LONGEST)(function).backoff == LONGEST
