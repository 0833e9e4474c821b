"""Arguments, results and steps that only the code with the key can read."""

import json
import logging

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import override_settings

from django_bgtasks import encryption, task
from django_bgtasks.compat import task_backends
from django_bgtasks.exceptions import ArgumentsTooLarge, ResultNotStorable, Undecipherable
from django_bgtasks.models import FinishedTask, QueuedTask, Step
from django_bgtasks.transitions import exchange, put_off
from django_bgtasks.worker.execution import Execution
from tests import factories
from tests.sample_tasks import take

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
SECRET = "attack at dawn"

pytestmark = pytest.mark.django_db(transaction=True)


@task
def echo(*args, **kwargs):
    return [*args, kwargs]


@task(takes_context=True)
def in_steps(context, value):
    context.step("first", lambda: {"kept": value})
    if context.attempt == 1:
        context.retry()
    return context.step("second", str)


@task
def give(value):
    return {"$encrypted": value}


@pytest.fixture
def keys():
    """Return what sets ENCRYPTION_KEYS and further options for a block."""

    def configure(*given, **options):
        options = {"ENCRYPTION_KEYS": list(given), **options}
        return override_settings(
            TASKS={"default": {"BACKEND": "django_bgtasks.DatabaseBackend", "OPTIONS": options}}
        )

    return configure


def stored(model, *columns):
    """Return columns of the only row as the database has them."""
    quoted = ", ".join(connection.ops.quote_name(column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {quoted} FROM {model._meta.db_table}")
        (row,) = cursor.fetchall()
    return [value if isinstance(value, str) else json.dumps(value) for value in row]


def is_ciphertext(text):
    return list(json.loads(text)) == ["$encrypted"] and SECRET not in text


def run(result=None):
    """Run the one task that is ready as a worker does; return its execution."""
    (claimed,) = factories.claim()
    execution = Execution(claimed, task_backends["default"], 0)
    execution.resolve()
    execution.run()
    if execution.ending is not None:
        exchange("default", [execution.ending], None)
    elif execution.put_off_delay is not None:
        put_off(
            "default",
            (claimed.id, claimed.claim_id),
            delay=execution.put_off_delay,
            reason=execution.reason,
        )
    if result is not None:
        result.refresh()
    return execution


def test_arguments_are_ciphertext_in_the_database_and_readable_in_the_api(keys):
    with keys(NEW):
        result = echo.enqueue(SECRET, 1, b=SECRET)
        args, kwargs = stored(QueuedTask, "args", "kwargs")
        assert is_ciphertext(args)
        assert is_ciphertext(kwargs)
        assert (result.args, result.kwargs) == ([SECRET, 1], {"b": SECRET})
        read = echo.get_result(result.id)
        assert (read.args, read.kwargs) == ([SECRET, 1], {"b": SECRET})


def test_what_a_task_returns_is_ciphertext_and_readable_in_the_api(keys):
    with keys(NEW):
        result = echo.enqueue(SECRET, b=SECRET)
        run(result)
        assert all(map(is_ciphertext, stored(FinishedTask, "args", "kwargs", "return_value")))
        assert result.get() == [SECRET, {"b": SECRET}]
        assert echo.get_result(result.id).return_value == [SECRET, {"b": SECRET}]


def test_the_value_of_a_step_is_ciphertext_and_given_back_to_a_later_attempt(keys):
    with keys(NEW):
        in_steps.using(max_attempts=2, backoff=0.0).enqueue(SECRET)
        execution = run()
        (value,) = stored(Step, "value")
        assert is_ciphertext(value)
        steps = execution._steps()
        steps.used.clear()
        assert steps.kept("first") == (True, {"kept": SECRET})


def test_the_same_value_is_another_ciphertext_each_time(keys):
    with keys(NEW):
        echo.enqueue_many([(SECRET,)] * 2)
        first, second = QueuedTask.objects.values_list("args", flat=True)
        assert first != second


def test_enqueue_many_encrypts_each_of_its_rows(keys):
    with keys(NEW):
        results = echo.enqueue_many([(SECRET, 1), {"b": SECRET}, ()])
        for row in QueuedTask.objects.all():
            assert is_ciphertext(json.dumps(row.args))
            assert is_ciphertext(json.dumps(row.kwargs))
        assert [echo.get_result(r.id).args for r in results] == [[SECRET, 1], [], []]
        assert echo.get_result(results[1].id).kwargs == {"b": SECRET}


# Rotation


def test_an_old_key_behind_the_new_one_still_reads_and_the_new_one_writes(keys):
    with keys(OLD):
        old = echo.enqueue(SECRET)
    with keys(NEW, OLD):
        assert echo.get_result(old.id).args == [SECRET]
        run(old)
        assert old.return_value == [SECRET, {}]
    with keys(NEW):
        # The row of the old key, the value of the new one.
        row = FinishedTask.objects.get()
        conf = task_backends["default"].conf
        assert encryption.opened(row.return_value, conf) == [SECRET, {}]
        with pytest.raises(Undecipherable, match="isn't in OPTIONS"):
            encryption.opened(row.args, conf)


def test_plain_rows_from_before_there_were_keys_stay_readable(keys):
    plain = echo.enqueue(SECRET, b=2)
    with keys(NEW):
        assert echo.get_result(plain.id).args == [SECRET]
        run(plain)
        assert plain.return_value == [SECRET, {"b": 2}]
        args, kwargs, value = stored(FinishedTask, "args", "kwargs", "return_value")
        assert json.loads(args) == [SECRET]
        assert json.loads(kwargs) == {"b": 2}
        assert is_ciphertext(value)


# A key that is missing


@pytest.mark.parametrize("given", [(), (OTHER,)], ids=["no key", "another key"])
def test_a_task_without_its_key_is_put_off_and_runs_when_the_key_is_there(keys, given):
    with keys(OLD):
        result = echo.enqueue(SECRET)
    with keys(*given):
        execution = run()
        assert execution.ending is None
        assert execution.retry_delay is None
        row = QueuedTask.objects.get()
        assert (row.status, row.attempt, row.failures) == ("SCHEDULED", 0, 0)
        assert row.errors is None
        assert "Undecipherable" in row.reason
        # Its arguments can't be shown; all else can, and it can be cancelled.
        assert echo.get_result(result.id).args == ["(encrypted)"]
    with keys(OLD):
        QueuedTask.objects.update(status="READY", due_at=None)
        run(result)
        assert result.return_value == [SECRET, {}]
        assert result.attempts == 1


# Limits


def test_the_limit_of_arguments_is_of_what_is_passed_and_not_of_the_ciphertext(keys):
    with keys(NEW, MAX_ARGUMENT_SIZE=100):
        echo.enqueue("x" * 90)
        (args,) = stored(QueuedTask, "args")
        assert len(args) > 100
        with pytest.raises(ArgumentsTooLarge, match="at most 100"):
            echo.enqueue("x" * 99)


def test_the_limit_of_results_is_of_what_is_returned(keys):
    with keys(NEW, MAX_RESULT_SIZE=100):
        result = echo.enqueue("x" * 90)
        run(result)
        assert result.return_value == ["x" * 90, {}]
        too_large = echo.enqueue("x" * 99)
        assert isinstance(run(too_large).exception, ResultNotStorable)
        assert too_large.state == "FAILED"


# Keys that are none


@pytest.mark.parametrize(
    "key",
    ["", "short", "ü" * 32, Fernet.generate_key().decode()[:-4]],
    ids=["empty", "short", "not ASCII", "cut"],
)
def test_a_bad_key_is_told_by_its_place_and_never_shown(keys, key):
    with keys(NEW, key), pytest.raises(ImproperlyConfigured) as caught:
        take.enqueue(1)
    assert str(caught.value).startswith("OPTIONS['ENCRYPTION_KEYS'][1] is no Fernet key")
    assert "Fernet.generate_key()" in str(caught.value)
    assert not key or key not in str(caught.value)
    assert not QueuedTask.objects.exists()


def test_a_missing_package_is_answered_with_what_to_type(keys, monkeypatch):
    with keys(OLD):
        result = take.enqueue(1)
    encryption._cipher.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "cryptography.fernet", None)
    assert not encryption.is_available()
    for act in (lambda: take.enqueue(1), lambda: take.get_result(result.id)):
        with (
            keys(OLD),
            pytest.raises(ImproperlyConfigured, match=r"pip install 'django-bgtasks\[encryption"),
        ):
            act()


# What only looks encrypted


@pytest.mark.parametrize("value", [5, None, "text", ["gAAAA"]])
@pytest.mark.parametrize("given", [(), (NEW,)], ids=["no key", "a key"])
def test_a_value_that_only_looks_encrypted_is_given_back(keys, given, value):
    with keys(*given):
        result = give.enqueue(value)
        run(result)
        assert result.return_value == {"$encrypted": value}


def test_nothing_secret_is_logged(keys, caplog):
    caplog.set_level(logging.DEBUG)
    with keys(NEW):
        run(echo.enqueue(SECRET))
    assert NEW not in caplog.text
    assert "gAAAA" not in caplog.text
