"""A call that could not run, or could not be stored, is refused where it is made."""

import json
import uuid
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import IntegrityError, ProgrammingError, connections
from django.test.utils import CaptureQueriesContext
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from django_bgtasks import task, transitions
from django_bgtasks.backend import raise_if_tables_are_missing
from django_bgtasks.compat import InvalidTask, task_backends
from django_bgtasks.exceptions import ArgumentsTooLarge, InvalidArguments, TablesMissing
from django_bgtasks.models import QueuedTask
from tests import factories
from tests.sample_tasks import attempt_with, compare, note, own_id, received, send_receipt, take
from tests.sessions import committed_ids

DATABASE = "django_bgtasks.DatabaseBackend"
IMMEDIATE = "django_bgtasks.ImmediateBackend"
DUMMY = "django_bgtasks.DummyBackend"


class Color(IntEnum):
    RED = 3


class Text(str):
    pass


class Opaque:
    pass


def nested(depth, *, wrap=lambda value: [value], leaf=0):
    value = leaf
    for _ in range(depth):
        value = wrap(value)
    return value


def circular():
    value = []
    value.append(value)
    return value


SCALARS = "Pass strings, numbers, booleans, None, lists and dictionaries of them."

# A value, and what note("value" -> value) is told of it.
BAD_VALUES = {
    "date": (date(2040, 1, 2), "is a date, which JSON can't hold. Pass value.isoformat()."),
    "datetime": (
        datetime(2040, 1, 2, tzinfo=UTC),
        "is a datetime, which JSON can't hold. Pass value.isoformat().",
    ),
    "time": (time(1, 2), "is a time, which JSON can't hold. Pass value.isoformat()."),
    "timedelta": (
        timedelta(1),
        "is a timedelta, which JSON can't hold. Pass value.total_seconds().",
    ),
    "Decimal": (Decimal("1.5"), "is a Decimal, which JSON can't hold. Pass str(value)."),
    "UUID": (uuid.UUID(int=1), "is a UUID, which JSON can't hold. Pass str(value)."),
    "set": ({1}, "is a set, which JSON can't hold. Pass list(value)."),
    "frozenset": (frozenset({1}), "is a frozenset, which JSON can't hold. Pass list(value)."),
    "generator": ((n for n in ()), f"is a generator, which JSON can't hold. {SCALARS}"),
    "object": (Opaque(), f"is an Opaque, which JSON can't hold. {SCALARS}"),
    "function": (len, f"is a builtin_function_or_method, which JSON can't hold. {SCALARS}"),
    "class": (Opaque, f"is a type, which JSON can't hold. {SCALARS}"),
    "complex": (1j, f"is a complex, which JSON can't hold. {SCALARS}"),
    "lazy text": (
        gettext_lazy("Yes"),
        "is a lazy translation, which JSON can't hold. Pass str(value).",
    ),
    "model instance": (User(pk=3), "is an auth.User. Pass value.pk and load it in the task."),
    "queryset": (
        User.objects.none(),
        "is a QuerySet, which JSON can't hold. Pass a list of primary keys.",
    ),
    "bytes that are no text": (
        b"\xff",
        "is bytes that aren't UTF-8. Pass base64.b64encode(value).decode().",
    ),
    "NUL": ("a\x00b", "holds NUL or half a surrogate pair. Clean the text first."),
    "NUL in bytes": (b"a\x00b", "holds NUL or half a surrogate pair. Clean the text first."),
    "high surrogate": ("a\ud800", "holds NUL or half a surrogate pair. Clean the text first."),
    "low surrogate": ("\udfffz", "holds NUL or half a surrogate pair. Clean the text first."),
    "NUL in a str of another class": (
        Text("\x00"),
        "holds NUL or half a surrogate pair. Clean the text first.",
    ),
    "NaN": (float("nan"), "is nan, which JSON can't hold. Pass None."),
    "Infinity": (float("inf"), "is inf, which JSON can't hold. Pass None."),
    "-Infinity": (float("-inf"), "is -inf, which JSON can't hold. Pass None."),
    "huge int": (10**1300, "is an int of more than 1,200 digits. Pass it as a string."),
    "huge negative int": (-(10**1300), "is an int of more than 1,200 digits. Pass it as a string."),
    "int too long for Python to print": (
        10**5000,
        "is an int of more than 1,200 digits. Pass it as a string.",
    ),
    "int as a key": (
        {1: 2},
        "has the int 1 as a key, which JSON can't hold. Use strings as keys.",
    ),
    "None as a key": (
        {None: 2},
        "has the NoneType None as a key, which JSON can't hold. Use strings as keys.",
    ),
    "tuple as a key": (
        {(1, 2): 3},
        "has the tuple (1, 2) as a key, which JSON can't hold. Use strings as keys.",
    ),
    "NUL in a key": ({"a\x00": 1}, "holds NUL or half a surrogate pair. Clean the text first."),
    "surrogate in a key": (
        {"\ud800": 1},
        "holds NUL or half a surrogate pair. Clean the text first.",
    ),
}

# The same, somewhere inside of the value.
BAD_INSIDE = {
    "in a list": (
        [1, [date(2040, 1, 2)]],
        "has, at value[1][0], a value that is a date, which JSON can't hold. "
        "Pass value[1][0].isoformat().",
    ),
    "in a dictionary": (
        {"user": {"ids": {4}}},
        "has, at value['user']['ids'], a value that is a set, which JSON can't hold. "
        "Pass list(value['user']['ids']).",
    ),
    "in a tuple": (
        (0, User(pk=1)),
        "has, at value[1], a value that is an auth.User. Pass value[1].pk and load it in the task.",
    ),
    "key inside": (
        [{2: 3}],
        "has, at value[0], a value that has the int 2 as a key, which JSON can't hold. "
        "Use strings as keys.",
    ),
    "nested lists": (
        nested(31),
        "has, at value[0], a value that is nested deeper than 30 levels. Flatten it.",
    ),
    "nested dictionaries": (
        nested(31, wrap=lambda value: {"k": value}),
        "has, at value['k'], a value that is nested deeper than 30 levels. Flatten it.",
    ),
    "deep beyond recursion": (
        nested(100_000),
        "has, at value[0], a value that is nested deeper than 30 levels. Flatten it.",
    ),
    "circular": (
        circular(),
        "has, at value[0], a value that is nested deeper than 30 levels. Flatten it.",
    ),
}
TABLE = [pytest.param(*case, id=name) for name, case in (BAD_VALUES | BAD_INSIDE).items()]


@pytest.fixture(params=[DATABASE, IMMEDIATE, DUMMY], ids=["database", "immediate", "dummy"])
def backend(request, settings, db):
    """One backend after the other, and how many tasks it was given."""
    settings.TASKS = {
        "default": {
            "BACKEND": request.param,
            "QUEUES": ["default", "emails"],
            "OPTIONS": {"MAX_ARGUMENT_SIZE": 1000},
        }
    }
    received.clear()
    made = task_backends["default"]

    def count():
        if request.param == DATABASE:
            return QueuedTask.objects.count()
        return len(received if request.param == IMMEDIATE else made.results)

    made.count = count
    return made


def refused(call, *args, **kwargs):
    with pytest.raises(InvalidArguments) as caught:
        call(*args, **kwargs)
    assert isinstance(caught.value, TypeError)
    return str(caught.value)


# What can't be stored


@pytest.mark.parametrize(("value", "said"), TABLE)
def test_a_value_that_no_database_stores_is_refused_by_each_way_to_enqueue(backend, value, said):
    text = f"note(): argument 'value' {said}"
    assert refused(note.enqueue, value) == text
    assert refused(note.enqueue, value=value) == text
    assert refused(async_to_sync(note.aenqueue), value) == text
    assert refused(backend.enqueue, note, [value], {}) == text
    assert refused(note.enqueue_many, [(1,), (value,)]) == text
    assert refused(note.enqueue_many, [{"value": 1}, {"value": value}]) == text
    assert refused(async_to_sync(note.aenqueue_many), [(1,), (value,), (2,)]) == text
    assert backend.count() == 0


def test_arguments_beyond_the_named_ones_are_named_by_their_place(backend):
    text = refused(take.enqueue, 1, {2})
    assert text == (
        "take(): argument '*args[1]' is a set, which JSON can't hold. Pass list(*args[1])."
    )
    assert "take(): argument 'extra' is a set" in refused(take.enqueue, extra={2})
    assert backend.count() == 0


@pytest.mark.parametrize("name", ["a\x00", "\ud800"])
def test_a_keyword_that_no_database_stores_is_refused(backend, name):
    assert refused(take.enqueue, **{name: 1}) == (
        f"take(): the name {name!r} of an argument holds NUL or half a surrogate pair. "
        "Clean the text first."
    )
    assert backend.count() == 0


@pytest.mark.parametrize("depth", range(27, 34))
@pytest.mark.parametrize(
    "wrap", [lambda value: [value], lambda value: {"k": value}], ids=["lists", "dictionaries"]
)
@pytest.mark.django_db
def test_what_is_not_refused_for_its_depth_is_stored(depth, wrap):
    value = nested(depth, wrap=wrap)
    if depth > 30:
        assert "is nested deeper than 30 levels" in refused(note.enqueue, value)
        assert QueuedTask.objects.count() == 0
    else:
        result = note.enqueue(value)
        keyed = note.enqueue(value=value)
        assert note.get_result(result.id).args == [value]
        assert note.get_result(keyed.id).kwargs == {"value": value}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "value",
    [
        2**4096 - 1,
        -(2**4096) + 1,
        2**63,
        0.1,
        -1e-300,
        2.5e17,
        "",
        "☃ \U0001f600 \u202e \x01\x7f\u2028",
        '"\\/\b\f\n\r\t%s %%s {} \\u0000',
        {"": {"☃": None}, "a.b": True, "$x": [False]},
        [[], {}, "", 0, None],
        "x" * 60_000,
    ],
    ids=lambda value: repr(value)[:25],
)
def test_odd_values_that_json_knows_come_back_unchanged(value):
    result = note.enqueue(value)
    many = note.enqueue_many([{"value": value}, (value,)])
    assert result.args == [value]
    assert note.get_result(result.id).args == [value]
    assert note.get_result(many[0].id).kwargs == {"value": value}
    assert note.get_result(many[1].id).args == [value]
    for claimed in factories.claim():
        args = json.loads(claimed.args) or [json.loads(claimed.kwargs)["value"]]
        assert args == [value]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (b"caf\xc3\xa9", "café"),
        ({b"key": b"value"}, {"key": "value"}),
        (range(3), [0, 1, 2]),
        (deque([1, 2]), [1, 2]),
        (OrderedDict(a=(1,)), {"a": [1]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Color.RED, 3),
        (Text("text"), "text"),
        (mark_safe("<b>"), "<b>"),
        (True, True),
    ],
    ids=repr,
)
def test_values_are_normalised_as_django_does_it(backend, given, kept):
    for result in (
        note.enqueue(given),
        note.enqueue_many([(given,)])[0],
        async_to_sync(note.aenqueue)(given),
    ):
        assert result.args == [kept]
        assert type(result.args[0]) is type(kept)
    assert note.enqueue(value=given).kwargs == {"value": kept}
    assert backend.count() == 4


@pytest.mark.django_db
def test_a_worker_gets_what_the_result_shows():
    given = ([(1, b"two")], {"three": (3.5, None), "four": {"five": ((),)}})
    result = take.enqueue(*given[0], **given[1])
    (claimed,) = factories.claim()
    assert json.loads(claimed.args) == result.args == [[1, "two"]]
    assert json.loads(claimed.kwargs) == result.kwargs
    assert result.kwargs == {"three": [3.5, None], "four": {"five": [[]]}}
    row = QueuedTask.objects.get()
    assert (row.args, row.kwargs) == (result.args, result.kwargs)


def test_the_arguments_of_a_result_are_not_the_callers_objects(backend):
    given = [1, {"two": 3}]
    result = note.enqueue(given)
    given[1]["two"] = "changed afterwards"
    assert result.args == [[1, {"two": 3}]]


# Size


def test_arguments_that_are_too_large_are_refused_and_the_largest_named(backend):
    with pytest.raises(ArgumentsTooLarge) as caught:
        send_receipt.enqueue(7, day="x" * 1000, order="y" * 20)
    size = len('[7]{"day":"","order":""}') + 1020
    assert str(caught.value) == (
        f"send_receipt(): the arguments take {size:,} bytes as JSON; at most 1,000 are allowed "
        "(OPTIONS['MAX_ARGUMENT_SIZE']). The largest is 'day' with 1,002. "
        "Store the data and pass its id."
    )
    with pytest.raises(ArgumentsTooLarge):
        send_receipt.enqueue_many([(1,), ("x" * 1000,)])
    with pytest.raises(ArgumentsTooLarge):
        async_to_sync(send_receipt.aenqueue)("x" * 1000)
    assert backend.count() == 0


def test_arguments_of_just_the_size_that_is_allowed_are_accepted(backend):
    exactly = 1000 - len('[""]{}')
    note.enqueue("x" * exactly)
    assert backend.count() == 1
    with pytest.raises(ArgumentsTooLarge):
        note.enqueue("x" * (exactly + 1))
    with pytest.raises(ArgumentsTooLarge):
        note.enqueue("é" * (exactly // 6 + 1))
    assert backend.count() == 1


# Arguments that don't fit the function


@task
def plain(a, b, c=3):
    return None


@task
def keywords(a, *, b, c=3):
    return None


@pytest.mark.parametrize(
    ("called", "args", "kwargs", "said"),
    [
        (send_receipt, (), {}, "send_receipt() missing 1 required argument: 'order_id'"),
        (plain, (), {}, "plain() missing 2 required arguments: 'a' and 'b'"),
        (plain, (), {"b": 1}, "plain() missing 1 required argument: 'a'"),
        (plain, (1, 2, 3, 4), {}, "plain() takes 3 positional arguments but 4 were given"),
        (plain, (1,), {"a": 1}, "plain() got multiple values for argument 'a'"),
        (plain, (1, 2), {"d": 1}, "plain() got an unexpected keyword argument 'd'"),
        (keywords, (1, 2), {}, "keywords() takes 1 positional argument but 2 were given"),
        (keywords, (1,), {}, "keywords() missing 1 required argument: 'b'"),
        (own_id, (1,), {}, "own_id() takes 0 positional arguments but 1 was given"),
        (
            own_id,
            (),
            {"context": 1},
            "own_id() got an unexpected keyword argument 'context'",
        ),
        (
            attempt_with,
            (),
            {"context": 1},
            "attempt_with() got multiple values for argument 'context'",
        ),
        (compare, (1,), {}, "compare() missing a required argument: 'second'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_the_call(backend, called, args, kwargs, said):
    assert refused(backend.enqueue, called, args, kwargs) == said
    assert refused(async_to_sync(backend.aenqueue), called, args, kwargs) == said
    assert backend.count() == 0


def test_one_call_of_many_that_does_not_fit_stops_them_all(backend):
    assert refused(plain.enqueue_many, [(1, 2), {"a": 1, "b": 2}, (1,)]) == (
        "plain() missing 1 required argument: 'b'"
    )
    assert refused(note.enqueue_many, [(1,), {"valeu": 2}]) == (
        "note() got an unexpected keyword argument 'valeu'"
    )
    assert backend.count() == 0


def test_what_python_alone_explains_is_said_in_its_words(backend):
    assert refused(compare.enqueue, 1, second=2).startswith("compare() ")
    assert refused(backend.enqueue, take, (), {1: 2}).startswith("take() ")
    assert backend.count() == 0


def test_arguments_that_fit_are_accepted(backend):
    take.enqueue()
    take.enqueue(1, 2, three=4)
    plain.enqueue(1, 2)
    plain.enqueue(1, b=2)
    plain.enqueue(b=1, a=2, c=3)
    keywords.enqueue(1, b=2)
    compare.enqueue(1, 2, third=3)
    own_id.enqueue()
    attempt_with.enqueue(1, b=2)
    # received, which counts for the immediate backend, is filled by note alone.
    note.enqueue(1)
    assert backend.count() == (1 if "Immediate" in type(backend).__name__ else 10)


def test_enqueue_many_says_how_calls_are_written(backend):
    with pytest.raises(TypeError) as caught:
        note.enqueue_many([(1,), 2])
    assert str(caught.value) == (
        "enqueue_many() takes tuples of positional or dictionaries of keyword arguments, "
        "not 2. One argument alone is written (2,)."
    )
    with pytest.raises(TypeError, match=r"One argument alone is written \('abc',\)"):
        note.enqueue_many("abc" for _ in range(1))
    assert backend.count() == 0


# enqueue_many


def test_enqueue_many_keeps_the_order_of_the_calls(backend):
    results = note.enqueue_many([(0,), {"value": 1}, (2,)])
    assert [r.args or r.kwargs for r in results] == [[0], {"value": 1}, [2]]
    assert len({r.id for r in results}) == 3
    assert backend.count() == 3


def test_enqueue_many_takes_any_iterable(backend):
    assert len(note.enqueue_many((n,) for n in range(4))) == 4
    assert len(async_to_sync(note.aenqueue_many)(iter([(4,)]))) == 1
    assert len(async_to_sync(backend.aenqueue_many)(note, [(5,)])) == 1
    assert backend.count() == 6


def test_enqueue_many_of_nothing_does_nothing(backend, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert note.enqueue_many([]) == []
    assert backend.count() == 0


@pytest.mark.django_db
def test_enqueue_many_returns_results_that_can_be_found_again():
    later = note.using(priority=7, queue_name="reports", delay=60, max_attempts=3)
    results = later.enqueue_many([(1,), {"value": [2]}])
    assert [later.get_result(result.id) for result in results] == results
    assert {row.status for row in QueuedTask.objects.all()} == {"SCHEDULED"}


def inserts(queries):
    return [query["sql"] for query in queries if query["sql"].startswith("INSERT")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("calls", "statements"), [(1, 1), (2, 1), (1000, 1), (1001, 2), (2500, 3)])
def test_enqueue_many_sends_one_insert_for_each_thousand(calls, statements):
    with CaptureQueriesContext(connections["default"]) as queries:
        results = note.enqueue_many((n,) for n in range(calls))
    assert len(inserts(queries)) == statements
    ids = sorted(result.id.replace("-", "") for result in results)
    assert sorted(committed_ids()) == ids
    assert [result.args for result in results] == [[n] for n in range(calls)]


@pytest.mark.django_db
def test_enqueue_is_a_single_statement(django_assert_num_queries):
    with django_assert_num_queries(1) as queries:
        note.enqueue(1)
    assert len(inserts(queries)) == 1
    with django_assert_num_queries(1):
        note.using(priority=3, delay=5, max_attempts=4).enqueue(value=[1])


@pytest.mark.django_db(transaction=True)
def test_enqueue_many_is_undone_when_a_later_insert_fails(monkeypatch):
    insert = transitions.enqueue

    def insert_and_fail(alias, rows, **options):
        insert(alias, rows, **options)
        insert(alias, rows[:1], **options)

    monkeypatch.setattr(transitions, "enqueue", insert_and_fail)
    with pytest.raises(IntegrityError):
        note.enqueue_many([(1,), (2,)])
    assert committed_ids() == set()


# Queues


def test_an_unknown_queue_is_refused_with_a_suggestion(settings):
    with pytest.raises(InvalidTask) as caught:
        note.using(queue_name="emial")
    assert str(caught.value) == (
        "Queue 'emial' is not valid for backend. Queue 'emial' is not in "
        "TASKS['default']['QUEUES'] (default, emails, reports). Did you mean 'emails'?"
    )
    with pytest.raises(InvalidTask) as caught:
        note.using(queue_name="zzz")
    assert str(caught.value).endswith("(default, emails, reports).")


@pytest.mark.django_db
def test_a_queue_that_was_taken_from_the_settings_is_refused_at_enqueue(settings):
    made = note.using(queue_name="reports")
    settings.TASKS = {"default": {"BACKEND": DATABASE, "QUEUES": ["default"]}}
    for call in (
        lambda: made.enqueue(1),
        lambda: made.enqueue_many([(1,), (2,)]),
        lambda: async_to_sync(made.aenqueue)(1),
    ):
        with pytest.raises(InvalidTask, match="Queue 'reports' is not in TASKS"):
            call()
    assert QueuedTask.objects.count() == 0


@pytest.mark.parametrize("name", ["", "x" * 101, "a\x00b", "a\nb", "\ud800", 5, None, ["a"]])
def test_a_name_that_is_no_name_of_a_queue_is_refused(settings, name):
    settings.TASKS = {"default": {"BACKEND": DATABASE, "QUEUES": []}}
    with pytest.raises(InvalidTask) as caught:
        task(queue_name=name)(note.func)
    assert str(caught.value) == f"queue_name must have 1 to 100 printable characters, not {name!r}."


@pytest.mark.django_db
def test_a_queue_of_a_hundred_characters_beyond_ascii_can_be_used(settings):
    settings.TASKS = {"default": {"BACKEND": DATABASE, "QUEUES": []}}
    name = "ü☃ " * 33 + "x"
    assert len(name) == 100
    result = note.using(queue_name=name).enqueue(1)
    assert note.get_result(result.id).task.queue_name == name


def test_a_path_that_does_not_fit_the_column_is_refused():
    def long():
        return None

    long.__qualname__ = "x" * 250
    with pytest.raises(InvalidTask, match="is longer than 255 characters"):
        task(long)


# Tables


@pytest.fixture
def renamed_table(request, transactional_db):
    """Take the table of live tasks away, as if migrate had not been run."""
    connection = connections["default"]
    old, new = QueuedTask._meta.db_table, "bgtasks_away"
    with connection.schema_editor() as editor:
        editor.alter_db_table(QueuedTask, old, new)
    yield
    with connection.schema_editor() as editor:
        editor.alter_db_table(QueuedTask, new, old)


@pytest.mark.usefixtures("renamed_table")
def test_without_tables_enqueue_says_what_to_type():
    text = "The bgtasks tables do not exist in database 'default'. Run: python manage.py migrate"
    for call in (
        lambda: note.enqueue(1),
        lambda: note.enqueue_many([(1,), (2,)]),
        lambda: async_to_sync(note.aenqueue)(1),
        lambda: note.get_result("0193e7a2-0000-7000-8000-000000000000"),
        lambda: async_to_sync(note.aget_result)("0193e7a2-0000-7000-8000-000000000000"),
    ):
        with pytest.raises(TablesMissing) as caught:
            call()
        assert str(caught.value) == text
        assert caught.value.__cause__ is not None


def test_the_advice_names_another_database_than_the_default():
    class Missing(Exception):
        sqlstate = "42P01"

    error = ProgrammingError()
    error.__cause__ = Missing()
    with pytest.raises(TablesMissing, match=r"migrate --database other$"):
        raise_if_tables_are_missing(error, "other")
    error.__cause__ = None
    raise_if_tables_are_missing(error, "other")
