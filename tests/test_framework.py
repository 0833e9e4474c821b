"""What Django documents of task backends, and its own backends are tested for, holds for ours."""

import copy
import dataclasses
import logging
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync
from django.core import checks
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from django_bgtasks import (
    DatabaseBackend,
    DatabaseTask,
    DatabaseTaskResult,
    DummyBackend,
    ImmediateBackend,
    task,
    task_enqueued,
    task_finished,
    task_started,
)
from django_bgtasks.compat import (
    TASK_MAX_PRIORITY,
    TASK_MIN_PRIORITY,
    TASKS_LOGGER,
    BaseTaskBackend,
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
    default_task_backend,
    task_backends,
)
from django_bgtasks.models import QueuedTask
from tests import factories, sample_tasks

DATABASE = "django_bgtasks.DatabaseBackend"
IMMEDIATE = "django_bgtasks.ImmediateBackend"
DUMMY = "django_bgtasks.DummyBackend"


@pytest.fixture
def immediate(settings):
    settings.TASKS = {"default": {"BACKEND": IMMEDIATE, "QUEUES": []}}


@pytest.fixture
def dummy(settings):
    settings.TASKS = {"default": {"BACKEND": DUMMY, "QUEUES": []}}
    return task_backends["default"]


@pytest.fixture
def heard():
    """The signals of the framework that were sent, in order: name, sender, status at that time."""
    log = []

    def listener(name):
        def receive(sender, task_result, **kwargs):
            log.append((name, sender, task_result.id, task_result.status))

        return receive

    pairs = [
        (signal, listener(name))
        for name, signal in (
            ("enqueued", task_enqueued),
            ("started", task_started),
            ("finished", task_finished),
        )
    ]
    for signal, receiver in pairs:
        signal.connect(receiver, weak=False)
    yield log
    for signal, receiver in pairs:
        signal.disconnect(receiver)


# The backend


def test_the_setting_chooses_the_backend():
    assert default_task_backend == task_backends["default"]
    assert isinstance(task_backends["default"], DatabaseBackend)
    assert isinstance(task_backends["default"], BaseTaskBackend)
    assert task_backends["default"].alias == "default"
    assert task_backends["default"].queues == {"default", "emails", "reports"}
    assert task_backends["default"].options == {}


def test_the_backend_says_that_it_supports_everything():
    backend = task_backends["default"]
    assert backend.task_class is DatabaseTask
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


def test_options_of_the_settings_reach_the_backend(settings):
    options = {"MAX_ARGUMENT_SIZE": 100}
    settings.TASKS = {"default": {"BACKEND": DATABASE, "OPTIONS": options}}
    assert task_backends["default"].options == options
    assert task_backends["default"].queues == {"default"}


@pytest.mark.django_db
def test_changed_settings_are_noticed_at_once(settings):
    settings.TASKS = {"default": {"BACKEND": DUMMY}}
    assert isinstance(sample_tasks.take.get_backend(), DummyBackend)
    settings.TASKS = {"default": {"BACKEND": DATABASE}}
    assert isinstance(sample_tasks.take.get_backend(), DatabaseBackend)
    assert sample_tasks.take.enqueue().backend == "default"
    assert QueuedTask.objects.count() == 1


def test_without_a_backend_enqueue_raises(settings):
    settings.TASKS = {}
    with pytest.raises(InvalidTaskBackend):
        sample_tasks.take.enqueue()


@pytest.mark.django_db(databases=["default", "other"])
def test_the_check_framework_asks_our_backend(settings):
    assert [message for message in checks.run_checks() if "bgtasks" in (message.id or "")] == []
    settings.TASKS = {"default": {"BACKEND": DATABASE, "OPTIONS": {"RETRIS": 1}}}
    assert "bgtasks.E002" in [message.id for message in checks.run_checks()]


# Tasks


def test_the_decorator_makes_tasks_with_and_without_parentheses():
    def made(decorated):
        return isinstance(decorated, Task) and isinstance(decorated, DatabaseTask)

    assert made(sample_tasks.take)
    assert made(sample_tasks.take_async)
    assert made(sample_tasks.deliver)
    assert made(task()(sample_tasks.take.func))


def test_a_task_knows_its_name_and_where_it_is():
    assert sample_tasks.take.name == "take"
    assert sample_tasks.take.module_path == "tests.sample_tasks.take"
    assert import_string(sample_tasks.take.module_path) is sample_tasks.take
    assert import_string(sample_tasks.take_async.module_path) is sample_tasks.take_async


def test_using_returns_a_new_equal_task():
    same = sample_tasks.take.using()
    assert same is not sample_tasks.take
    assert same == sample_tasks.take


@pytest.mark.parametrize(
    ("option", "before", "after"),
    [
        ("priority", 0, 7),
        ("queue_name", "default", "emails"),
        ("run_after", None, datetime(2040, 1, 2, 3, tzinfo=UTC)),
    ],
)
def test_using_changes_a_copy_and_not_the_task(option, before, after):
    changed = sample_tasks.take.using(**{option: after})
    assert getattr(changed, option) == after
    assert getattr(sample_tasks.take, option) == before


def test_using_may_be_chained():
    moment = timezone.now()
    first = sample_tasks.take.using(run_after=moment)
    second = first.using(priority=10)
    assert (second.run_after, second.priority) == (moment, 10)
    assert first.priority == 0


def test_using_another_backend_gives_a_task_of_that_backend(settings):
    settings.TASKS = {**settings.TASKS, "dummy": {"BACKEND": DUMMY}}
    moved = sample_tasks.take.using(backend="dummy")
    assert moved.backend == "dummy"
    assert isinstance(moved.get_backend(), DummyBackend)
    assert isinstance(sample_tasks.take.get_backend(), DatabaseBackend)


def test_using_an_unknown_backend_raises():
    with pytest.raises(InvalidTaskBackend, match="The connection 'unknown' doesn't exist"):
        sample_tasks.take.using(backend="unknown")


def test_using_a_backend_that_cannot_be_imported_raises(settings):
    settings.TASKS = {**settings.TASKS, "missing": {"BACKEND": "does.not.exist"}}
    with pytest.raises(InvalidTaskBackend, match=r"Could not find backend 'does\.not\.exist'"):
        sample_tasks.take.using(backend="missing")


def test_a_naive_run_after_is_refused():
    with pytest.raises(InvalidTask, match=r"^run_after must be an aware datetime\.$"):
        sample_tasks.take.using(run_after=datetime(2040, 1, 1))


@pytest.mark.parametrize("priority", [TASK_MIN_PRIORITY - 1, TASK_MAX_PRIORITY + 1, 3.1])
def test_a_priority_out_of_bounds_is_refused(priority):
    with pytest.raises(
        InvalidTask, match=r"^priority must be a whole number between -100 and 100\.$"
    ):
        sample_tasks.take.using(priority=priority)


@pytest.mark.django_db
@pytest.mark.parametrize("priority", [TASK_MIN_PRIORITY, -1, 0, TASK_MAX_PRIORITY])
def test_a_priority_at_the_bounds_is_stored(priority):
    result = sample_tasks.take.using(priority=priority).enqueue()
    assert sample_tasks.take.get_result(result.id).task.priority == priority
    assert QueuedTask.objects.get().rank == -priority


def test_a_queue_that_the_settings_do_not_name_is_refused():
    with pytest.raises(InvalidTask, match=r"^Queue 'queue-2' is not valid for backend"):
        sample_tasks.take.using(queue_name="queue-2")


def test_without_names_of_queues_any_is_valid(settings):
    settings.TASKS = {"default": {"BACKEND": DATABASE, "QUEUES": []}}
    assert sample_tasks.take.using(queue_name="queue-2").queue_name == "queue-2"


def test_only_module_level_functions_become_tasks():
    def inner():
        return None

    method = sample_tasks.Holder().method
    for function in (any, method, inner, lambda: None):
        with pytest.raises(
            InvalidTask, match=r"^Task function must be defined at a module level\.$"
        ):
            task(function)


def test_a_static_method_is_refused_since_no_worker_would_find_it():
    with pytest.raises(InvalidTask, match=r"^Task function must be defined at a module level\.$"):
        task(sample_tasks.Holder.static)


def test_a_task_that_takes_the_context_has_it_as_first_parameter():
    message = r"^Task takes context but does not have a first argument of 'context'\.$"
    for function in (sample_tasks.answer.func, sample_tasks.note.func):
        with pytest.raises(InvalidTask, match=message):
            task(takes_context=True)(function)


def test_run_after_is_no_option_of_the_decorator():
    with pytest.raises(TypeError, match="run_after"):
        task(run_after=timezone.now())(sample_tasks.answer.func)


def test_a_backend_without_async_refuses_coroutine_functions(monkeypatch):
    backend = task_backends["default"]
    monkeypatch.setattr(type(backend), "supports_async_task", False)
    with pytest.raises(InvalidTask, match="Backend does not support async"):
        backend.validate_task(sample_tasks.take_async)


def test_a_task_can_be_called_without_being_enqueued():
    assert sample_tasks.answer.call() == 42
    assert sample_tasks.take_async.call() is None
    assert async_to_sync(sample_tasks.answer.acall)() == 42
    assert async_to_sync(sample_tasks.take_async.acall)() is None


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_a_task_survives_pickling(protocol):
    changed = sample_tasks.deliver.using(priority=3, max_attempts=2, backoff=[1, 2])
    for original in (sample_tasks.take, sample_tasks.take_async, sample_tasks.deliver, changed):
        copied = pickle.loads(pickle.dumps(original, protocol))
        assert copied == original
        assert copied.func is original.func
        assert copied.policy == original.policy


def test_unpickling_finds_nothing_but_tasks():
    pickled = pickle.dumps(sample_tasks.plain_name, 0)
    for path in (b"tests.sample_tasks.not_a_task", b"tests.sample_tasks.gone", b"builtins.any"):
        changed = pickled.replace(b"tests.sample_tasks.plain_name", path)
        assert changed != pickled
        with pytest.raises(ValueError, match=f"Expected '{path.decode()}' to point to a Task"):
            pickle.loads(changed)


def test_copies_of_a_task_are_the_task():
    assert copy.copy(sample_tasks.deliver) is sample_tasks.deliver
    assert copy.deepcopy(sample_tasks.deliver) is sample_tasks.deliver


def test_tasks_can_be_members_of_a_set():
    changed = sample_tasks.deliver.using(backoff=[1, 2], retry_on=[OSError])
    assert len({sample_tasks.deliver, sample_tasks.deliver.using(), changed}) == 2


# Enqueue and results


@pytest.mark.django_db
@pytest.mark.parametrize("called", [sample_tasks.take, sample_tasks.take_async])
@pytest.mark.parametrize("awaited", [False, True])
def test_enqueue_returns_a_result_that_is_ready(called, awaited):
    enqueue = async_to_sync(called.aenqueue) if awaited else called.enqueue
    before = timezone.now()
    result = enqueue(1, two=3)
    assert isinstance(result, TaskResult)
    assert isinstance(result, DatabaseTaskResult)
    assert result.task == called
    assert result.status == TaskResultStatus.READY
    assert result.is_finished is False
    assert (result.args, result.kwargs) == ([1], {"two": 3})
    assert before <= result.enqueued_at <= timezone.now()
    assert result.started_at is None
    assert result.last_attempted_at is None
    assert result.finished_at is None
    assert result.backend == "default"
    assert result.errors == []
    assert result.worker_ids == []
    assert result.attempts == 0
    assert 0 < len(result.id) <= 64


@pytest.mark.django_db
def test_the_backend_can_be_asked_to_enqueue():
    result = default_task_backend.enqueue(sample_tasks.take, (1,), {"two": 3})
    assert default_task_backend.get_result(result.id) == result
    result = async_to_sync(default_task_backend.aenqueue)(sample_tasks.take, [], {})
    assert async_to_sync(default_task_backend.aget_result)(result.id) == result


@pytest.mark.django_db
def test_get_result_returns_an_equal_result():
    later = timezone.now() + timedelta(hours=1)
    for enqueued in (
        sample_tasks.take.enqueue(1, two=[3]),
        sample_tasks.take.using(priority=9, queue_name="reports", run_after=later).enqueue(),
        sample_tasks.take_async.enqueue(None),
        sample_tasks.deliver.enqueue("ann@example.com"),
        sample_tasks.deliver.using(
            max_attempts=2, backoff=[1, 2.5], retry_on=[OSError, KeyError], on_lost="retry"
        ).enqueue("ann@example.com"),
    ):
        found = enqueued.task.get_result(enqueued.id)
        assert found == enqueued
        assert found.task == enqueued.task
        assert hash(found.task) == hash(enqueued.task)
        assert async_to_sync(enqueued.task.aget_result)(enqueued.id) == enqueued


@pytest.mark.django_db
@pytest.mark.parametrize(
    "id", ["123", "", "0193e7a2-0000-7000-8000-000000000000", "a\x00b", None, 123, b"123"]
)
def test_get_result_of_an_unknown_id_raises(id):
    with pytest.raises(TaskResultDoesNotExist):
        sample_tasks.take.get_result(id)
    with pytest.raises(TaskResultDoesNotExist):
        async_to_sync(sample_tasks.take.aget_result)(id)


@pytest.mark.django_db
def test_get_result_of_another_task_raises():
    result = sample_tasks.answer.enqueue()
    message = r"^Task does not match \(received 'tests\.sample_tasks\.answer'\)$"
    with pytest.raises(TaskResultMismatch, match=message):
        sample_tasks.take.get_result(result.id)
    with pytest.raises(TaskResultMismatch, match=message):
        async_to_sync(sample_tasks.take.aget_result)(result.id)
    assert default_task_backend.get_result(result.id).task == sample_tasks.answer


@pytest.mark.django_db
def test_get_result_takes_an_id_in_any_form_of_a_uuid():
    result = sample_tasks.take.enqueue()
    assert sample_tasks.take.get_result(result.id.upper()).id == result.id
    assert sample_tasks.take.get_result(result.id.replace("-", "")).id == result.id


@pytest.mark.django_db
def test_refresh_changes_nothing_while_nothing_happened():
    result = sample_tasks.take.using(priority=3).enqueue([1], two={"3": 4})
    before = dataclasses.asdict(result)
    result.refresh()
    assert dataclasses.asdict(result) == before
    async_to_sync(result.arefresh)()
    assert dataclasses.asdict(result) == before


@pytest.mark.django_db
@pytest.mark.parametrize("awaited", [False, True])
def test_refresh_reads_what_happened_meanwhile(awaited):
    result = sample_tasks.answer.enqueue()
    refresh = async_to_sync(result.arefresh) if awaited else result.refresh
    (claimed,) = factories.claim()
    assert result.status == TaskResultStatus.READY
    refresh()
    assert result.status == TaskResultStatus.RUNNING
    assert result.is_finished is False
    assert result.started_at == result.last_attempted_at
    assert result.started_at is not None
    assert (result.worker_ids, result.attempts) == (["w1"], 1)
    factories.end(claimed, value=42)
    refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.is_finished is True
    assert result.return_value == 42
    assert result.finished_at >= result.enqueued_at
    assert result.attempts == 1


@pytest.mark.django_db
def test_return_value_raises_until_the_task_was_successful():
    result = sample_tasks.answer.enqueue()
    with pytest.raises(ValueError, match=r"^Task has not finished yet$"):
        _ = result.return_value
    (claimed,) = factories.claim()
    result.refresh()
    with pytest.raises(ValueError, match=r"^Task has not finished yet$"):
        _ = result.return_value
    factories.end(claimed, error="builtins.KeyError")
    result.refresh()
    assert result.is_finished is True
    with pytest.raises(ValueError, match=r"^Task failed$"):
        _ = result.return_value


@pytest.mark.django_db
def test_a_successful_task_may_return_none():
    result = factories.succeed(sample_tasks.answer.enqueue(), None)
    result.refresh()
    assert result.return_value is None


@pytest.mark.django_db
def test_errors_say_the_class_and_the_traceback():
    result = factories.fail(sample_tasks.answer.enqueue(), "builtins.ZeroDivisionError")
    result.refresh()
    (error,) = result.errors
    assert error.exception_class is ZeroDivisionError
    assert error.traceback.endswith("ZeroDivisionError: as the worker saw it\n")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "raised"), [("subprocess.run", ValueError), ("does.not.exist", ImportError)]
)
def test_an_error_whose_class_is_no_exception_stays_text(path, raised):
    result = factories.fail(sample_tasks.answer.enqueue(), path)
    result.refresh()
    assert result.errors[0].exception_class_path == path
    with pytest.raises(raised):
        _ = result.errors[0].exception_class


@pytest.mark.django_db
def test_statuses_are_those_of_django():
    ready = sample_tasks.take.enqueue()
    later = sample_tasks.take.using(delay=60).enqueue()
    cancelled = sample_tasks.take.enqueue()
    assert cancelled.cancel()
    assert (ready.status, ready.state) == ("READY", "READY")
    assert (later.status, later.state) == ("READY", "SCHEDULED")
    assert (cancelled.status, cancelled.state) == ("FAILED", "CANCELLED")
    assert {type(r.status) for r in (ready, later, cancelled)} == {TaskResultStatus}


@pytest.mark.django_db
def test_a_result_survives_pickling_and_copying():
    result = sample_tasks.deliver.using(priority=4).enqueue("ann@example.com")
    for copied in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert copied is not result
        assert copied == result
        copied.refresh()
        assert copied == result


@pytest.mark.django_db
def test_results_differ_when_anything_that_is_told_differs():
    result = sample_tasks.take.enqueue()
    assert dataclasses.replace(result) == result
    assert dataclasses.replace(result, id="another") != result
    assert dataclasses.replace(result, status=TaskResultStatus.FAILED) != result
    assert dataclasses.replace(result, last_attempted_at=timezone.now()) != result
    assert result != "no result"


@pytest.mark.django_db
def test_a_due_run_after_is_ready_and_a_later_one_waits():
    past = sample_tasks.take.using(run_after=timezone.now() - timedelta(days=1)).enqueue()
    later = sample_tasks.take.using(run_after=timezone.now() + timedelta(days=1)).enqueue()
    assert [row.id for row in factories.claim()] == [past.id]
    assert later.task.run_after == QueuedTask.objects.get(pk=later.id).run_after


@pytest.mark.django_db
def test_a_run_after_of_another_time_zone_is_the_same_moment():
    zone = timezone.get_fixed_timezone(330)
    moment = datetime(2040, 6, 1, 12, 30, 15, 123456, tzinfo=zone)
    result = sample_tasks.take.using(run_after=moment).enqueue()
    assert sample_tasks.take.get_result(result.id).task.run_after == moment


@pytest.mark.django_db
def test_the_last_moment_of_the_calendar_can_be_stored():
    moment = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    result = sample_tasks.take.using(run_after=moment).enqueue()
    assert sample_tasks.take.get_result(result.id).task.run_after == moment


@pytest.mark.django_db
def test_a_task_of_djangos_own_decorator_is_enqueued_as_well():
    plain = Task(
        func=sample_tasks.answer.func,
        priority=2,
        backend="default",
        queue_name="reports",
        run_after=None,
    )
    result = plain.enqueue()
    row = QueuedTask.objects.get()
    assert (row.task_path, row.queue_name, row.priority) == (
        "tests.sample_tasks.answer",
        "reports",
        2,
    )
    assert plain.get_result(result.id).id == result.id


# Validation again when it matters


@pytest.mark.django_db
@pytest.mark.parametrize("backend", [DATABASE, IMMEDIATE, DUMMY])
@pytest.mark.parametrize("awaited", [False, True])
def test_enqueue_validates_again_under_settings_that_have_changed(settings, backend, awaited):
    settings.TASKS = {"default": {"BACKEND": backend, "QUEUES": []}}
    made = sample_tasks.take.using(queue_name="unknown_queue")
    settings.TASKS = {"default": {"BACKEND": backend, "QUEUES": ["queue-1"]}}
    enqueue = async_to_sync(made.aenqueue) if awaited else made.enqueue
    with pytest.raises(InvalidTask, match="Queue 'unknown_queue' is not valid for backend"):
        enqueue()
    assert QueuedTask.objects.count() == 0


# Signals and the log


@pytest.mark.django_db
@pytest.mark.parametrize("awaited", [False, True])
def test_task_enqueued_is_sent_once_by_the_class_of_the_backend(heard, awaited):
    enqueue = async_to_sync(sample_tasks.take.aenqueue) if awaited else sample_tasks.take.enqueue
    result = enqueue()
    assert heard == [("enqueued", DatabaseBackend, result.id, TaskResultStatus.READY)]


@pytest.mark.django_db
def test_task_enqueued_is_sent_once_for_each_of_many(heard):
    results = sample_tasks.take.enqueue_many([(1,), (2,), (3,)])
    assert [entry[2] for entry in heard] == [result.id for result in results]
    assert {entry[:2] for entry in heard} == {("enqueued", DatabaseBackend)}


@pytest.mark.django_db
def test_the_row_is_there_when_task_enqueued_is_sent():
    found = []

    def receive(sender, task_result, **kwargs):
        found.append(sample_tasks.take.get_result(task_result.id))

    task_enqueued.connect(receive)
    try:
        result = sample_tasks.take.enqueue()
    finally:
        task_enqueued.disconnect(receive)
    assert found == [result]


@pytest.mark.django_db
def test_nothing_is_signalled_for_a_call_that_is_refused(heard):
    with pytest.raises(TypeError):
        sample_tasks.answer.enqueue("too much")
    assert heard == []


@pytest.mark.django_db
def test_enqueue_is_logged_by_the_framework(caplog):
    with caplog.at_level(logging.DEBUG, logger=TASKS_LOGGER):
        result = sample_tasks.take.enqueue()
    (record,) = [record for record in caplog.records if record.name == TASKS_LOGGER]
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == (
        f"Task id={result.id} path=tests.sample_tasks.take enqueued backend=default"
    )


# The stand-ins


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("called", [sample_tasks.take, sample_tasks.take_async])
@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_runs_a_task_at_once(called, awaited, heard):
    enqueue = async_to_sync(called.aenqueue) if awaited else called.enqueue
    result = enqueue(1, two=3)
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.is_finished is True
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert result.return_value is None
    assert result.task == called
    assert (result.args, result.kwargs) == ([1], {"two": 3})
    assert result.attempts == 1
    assert [(name, sender) for name, sender, *_ in heard] == [
        ("enqueued", ImmediateBackend),
        ("started", ImmediateBackend),
        ("finished", ImmediateBackend),
    ]


@pytest.mark.parametrize(
    ("called", "exception", "ending"),
    [
        (sample_tasks.stop_with_value_error, ValueError, "ValueError: it went wrong\n"),
        (sample_tasks.stop_with_system_exit, SystemExit, "SystemExit: it left\n"),
        (sample_tasks.stop_with_nested_error, ValueError, "ValueError: inside\n"),
        (sample_tasks.give_a_function, TypeError, "Unsupported type: <class 'function'>\n"),
    ],
)
@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_keeps_what_a_task_raised(called, exception, ending, heard, caplog):
    result = called.enqueue()
    assert result.status == TaskResultStatus.FAILED
    assert result.is_finished is True
    with pytest.raises(ValueError, match=r"^Task failed$"):
        _ = result.return_value
    assert result.errors[0].exception_class is exception
    assert result.errors[0].traceback.endswith(ending)
    assert heard[-1] == ("finished", ImmediateBackend, result.id, TaskResultStatus.FAILED)
    failures = [r for r in caplog.records if r.name == TASKS_LOGGER and r.levelname == "ERROR"]
    assert len(failures) == 1
    assert f"Task id={result.id}" in failures[0].getMessage()
    assert "state=FAILED" in failures[0].getMessage()


@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_lets_a_keyboard_interrupt_through():
    with pytest.raises(KeyboardInterrupt):
        sample_tasks.stop_with_keyboard_interrupt.enqueue()


@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_logs_each_step(caplog):
    with caplog.at_level(logging.DEBUG, logger=TASKS_LOGGER):
        result = sample_tasks.take.enqueue()
    lines = [record.getMessage() for record in caplog.records if record.name == TASKS_LOGGER]
    assert [result.id in line for line in lines] == [True] * 3
    assert "enqueued" in lines[0]
    assert lines[1].endswith("state=RUNNING")
    assert lines[2].endswith("state=SUCCESSFUL")
    assert "NoneType" not in caplog.text


@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_passes_the_context():
    result = sample_tasks.own_id.enqueue()
    assert result.return_value == result.id
    result = sample_tasks.attempt_with.enqueue(5, six=7)
    assert result.return_value == [True, 1, [5], {"six": 7}]


@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_keeps_no_results():
    result = sample_tasks.answer.enqueue()
    for ask in (
        lambda: default_task_backend.get_result(result.id),
        lambda: async_to_sync(default_task_backend.aget_result)(result.id),
        result.refresh,
        async_to_sync(result.arefresh),
    ):
        with pytest.raises(NotImplementedError):
            ask()


@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_does_not_wait_for_run_after():
    result = sample_tasks.answer.using(delay=3600).enqueue()
    assert result.return_value == 42


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("immediate")
def test_the_immediate_backend_does_not_wait_for_the_commit():
    with transaction.atomic():
        result = sample_tasks.answer.enqueue()
        assert result.status == TaskResultStatus.SUCCESSFUL
        assert result.enqueued_at is not None


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("called", [sample_tasks.take, sample_tasks.take_async])
def test_the_dummy_backend_keeps_what_was_enqueued(dummy, called, awaited, heard):
    enqueue = async_to_sync(called.aenqueue) if awaited else called.enqueue
    result = enqueue(1, two=3)
    assert result.status == TaskResultStatus.READY
    assert result.is_finished is False
    assert (result.args, result.kwargs) == ([1], {"two": 3})
    assert result.attempts == 0
    assert result.errors == []
    assert result.started_at is None
    with pytest.raises(ValueError, match=r"^Task has not finished yet$"):
        _ = result.return_value
    assert [(name, sender) for name, sender, *_ in heard] == [("enqueued", DummyBackend)]


def test_the_dummy_backend_finds_its_results_until_it_is_cleared(dummy):
    result = sample_tasks.deliver.enqueue("ann@example.com")
    assert dummy.results == [result]
    assert sample_tasks.deliver.get_result(result.id) == result
    assert async_to_sync(sample_tasks.deliver.aget_result)(result.id) == result
    dummy.clear()
    with pytest.raises(TaskResultDoesNotExist, match=result.id):
        sample_tasks.deliver.get_result(result.id)


@pytest.mark.parametrize("awaited", [False, True])
def test_results_of_the_dummy_backend_can_be_refreshed(dummy, awaited):
    result = sample_tasks.answer.enqueue()
    object.__setattr__(dummy.results[0], "status", TaskResultStatus.SUCCESSFUL)
    assert result.status == TaskResultStatus.READY
    if awaited:
        async_to_sync(result.arefresh)()
    else:
        result.refresh()
    assert result.status == TaskResultStatus.SUCCESSFUL


def test_the_dummy_backend_takes_the_options_of_our_tasks(dummy):
    result = sample_tasks.deliver.using(max_attempts=7, delay=60).enqueue("ann@example.com")
    assert result.task.max_attempts == 7
    assert result.task.run_after > timezone.now()


@pytest.mark.parametrize("backend", [IMMEDIATE, DUMMY])
def test_the_stand_ins_find_nothing_wrong_with_themselves(settings, backend):
    settings.TASKS = {"default": {"BACKEND": backend}}
    assert list(task_backends["default"].check()) == []
    assert task_backends["default"].task_class is DatabaseTask
