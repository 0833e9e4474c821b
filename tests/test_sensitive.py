"""What hide_args hides: nowhere in what is stored about a run, and on no line of a log."""

import json
import logging
from io import StringIO
from types import SimpleNamespace

import pytest

from django_bgtasks import task
from django_bgtasks.compat import TASKS_LOGGER, task_backends
from django_bgtasks.models import FinishedTask, QueuedTask
from django_bgtasks.observability import logs
from django_bgtasks.transitions import exchange, retry_later
from django_bgtasks.worker import capture
from django_bgtasks.worker.execution import Execution
from tests import factories

SECRET = "hunter2-and-more"
CARD = 4111111111111111

pytestmark = pytest.mark.django_db(transaction=True)
logger = logging.getLogger(__name__)


@task(hide_args=("password", "card"))
def sign_in(user, password, card=None):
    logger.warning("%s signs in with %s and %s", user, password, card)
    raise ValueError(f"{user} may not use {password} or {card}")


@task(hide_args="password", max_attempts=2, backoff=0.0)
def sign_in_twice(user, password):
    raise ConnectionError(f"no answer for {user} and {password}")


@task(hide_args="password")
async def sign_in_async(user, password):
    raise ValueError(f"{user} may not use {password}")


@task(hide_args="password", takes_context=True)
def snooze(context, password):
    context.snooze(60, reason=f"{password} is not valid yet")


@task
def show(user, api_key, data):
    return None


@pytest.fixture
def captured():
    """Capture what tasks log, as a worker does."""
    handler = capture.CaptureHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


def execution_of(result):
    (claimed,) = [row for row in factories.claim() if row.id == result.id]
    execution = Execution(claimed, task_backends["default"], 0)
    execution.resolve()
    return execution


def run(result):
    """Run a task as a worker does, and write what came of it."""
    execution = execution_of(result)
    execution.run()
    write(execution)
    return execution


def write(execution):
    held = (execution.row.id, execution.row.claim_id)
    if execution.ending is not None:
        exchange("default", [execution.ending], None)
    elif execution.retry_delay is not None:
        retry_later(
            "default",
            held,
            delay=execution.retry_delay,
            failures=execution.failures,
            errors=execution.errors,
            reason=execution.reason,
        )


def said(row):
    """Return all texts about a run that its row has, but not its arguments."""
    return json.dumps([row.errors, row.notes, row.reason], ensure_ascii=False)


@pytest.mark.parametrize(
    "call", [lambda: sign_in.enqueue("ann", SECRET, CARD),
             lambda: sign_in.enqueue("ann", password=SECRET, card={"number": [CARD]})],
    ids=["by position", "by name, within others"],
)  # fmt: skip
@pytest.mark.usefixtures("captured")
def test_a_failure_says_all_but_what_is_hidden(call):
    run(call())
    row = FinishedTask.objects.get()
    assert SECRET not in said(row)
    assert str(CARD) not in said(row)
    assert "ann may not use •••• or" in row.reason
    assert "ann may not use •••• or" in row.errors[0]["traceback"]
    assert "ann signs in with •••• and" in row.errors[0]["log"]
    assert "ann signs in with •••• and" in row.notes["log"]


def test_an_attempt_that_is_followed_by_another_hides_too():
    run(sign_in_twice.enqueue("ann", SECRET))
    row = QueuedTask.objects.get()
    assert SECRET not in said(row)
    assert "no answer for ann and ••••" in row.reason
    assert "no answer for ann and ••••" in row.errors[0]["traceback"]


def test_a_coroutine_hides_too():
    from asgiref.sync import async_to_sync

    execution = execution_of(sign_in_async.enqueue("ann", SECRET))
    async_to_sync(execution.arun)()
    write(execution)
    row = FinishedTask.objects.get()
    assert SECRET not in said(row)
    assert "ann may not use ••••" in row.errors[0]["traceback"]


def test_the_reason_of_a_snooze_hides_too():
    assert run(snooze.enqueue(SECRET)).reason == "•••• is not valid yet"


def test_the_worker_itself_runs_with_the_value():
    execution = run(sign_in.enqueue("ann", SECRET))
    assert SECRET in str(execution.exception)


def test_what_is_hidden_is_not_hidden_from_who_enqueued_it():
    result = sign_in.enqueue("ann", SECRET)
    assert sign_in.get_result(result.id).args == ["ann", SECRET]


def test_a_value_too_short_to_be_told_from_other_text_does_not_spoil_it():
    run(sign_in.enqueue("ann", "an"))
    assert "ann may not use an" in FinishedTask.objects.get().reason


# What the worker writes


def result_of(made):
    return execution_of(made).result


def test_the_line_of_a_start_masks_hidden_arguments():
    text = logs.call_in_words(result_of(sign_in.enqueue("ann", SECRET, card=CARD)))
    assert text == "user='ann' password='••••' card='••••'"


def test_the_line_of_a_start_masks_what_looks_secret():
    made = show.enqueue("ann", "k", [{"token": "t"}])
    text = logs.call_in_words(result_of(made))
    assert text == "user='ann' api_key='••••' data=[{'token': '••••'}]"


def records_of(act):
    """Return the records that act makes the worker's log of tasks."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logs.logger.addHandler(handler)
    level = logs.logger.level
    logs.logger.setLevel(logging.DEBUG)
    try:
        act()
    finally:
        logs.logger.removeHandler(handler)
        logs.logger.setLevel(level)
    return records


@pytest.mark.parametrize("name", ["pretty", "text", "json"])
def test_no_line_of_any_format_shows_a_hidden_argument(name):
    plan = SimpleNamespace(ascii=False, color=False, verbosity=3)
    execution = run(sign_in.enqueue("ann", SECRET, CARD))
    retried = execution_of(sign_in_twice.enqueue("ann", SECRET))
    retried.run()

    def tell():
        final = execution._final_result()
        logs.log_started(task_result=final)
        try:
            raise execution.exception
        except ValueError:
            logs.log_finished(task_result=final)
        logs.log_retried(
            task_result=retried._final_result(), exception=retried.exception, delay=1.0
        )

    records = records_of(tell)
    assert len(records) == 3
    lines = "\n".join(logs._FORMATTERS[name](plan).format(record) for record in records)
    assert SECRET not in lines
    assert str(CARD) not in lines
    assert lines.count("ann") >= 3
    # Handlers of the project are given the record, and not only the line.
    assert not any(SECRET in repr(record.__dict__) for record in records[1:])


def test_a_hidden_argument_in_a_long_message_is_masked_before_the_message_is_cut():
    execution = execution_of(sign_in_twice.enqueue("x" * 160, SECRET * 3))
    execution.run()
    (record,) = records_of(
        lambda: logs.log_retried(
            task_result=execution._final_result(), exception=execution.exception, delay=1.0
        )
    )
    assert SECRET[:6] not in record.error
    assert len(record.error) <= logs.ERROR_WIDTH


def test_the_frameworks_own_line_of_a_failure_shows_what_is_stored():
    """A project's handler takes it, with the traceback of the exception itself."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    framework = logging.getLogger(TASKS_LOGGER)
    framework.addHandler(handler)
    try:
        run(sign_in.enqueue("ann", SECRET, CARD)).announce()
    finally:
        framework.removeHandler(handler)
    assert "ValueError: ann may not use •••• or" in stream.getvalue()
    assert SECRET not in stream.getvalue()
    assert str(CARD) not in stream.getvalue()
