"""The options of TASKS[alias]["OPTIONS"]."""

from datetime import timedelta

import pytest

from django_bgtasks.conf import OPTIONS, Options, problems, suggestion

WHOLE = ("must be a whole number of at least", [True, "4", 1.5, -1, []])
SECONDS = ("must be seconds or a timedelta, at least", ["1 s", True, -1, timedelta(-1), [], "5"])
FUNCTION = (
    ["tests.progress.hooks.is_ann", None],
    "must be the path of a function that can be imported",
    ["is_ann", "tests.nowhere.f", "tests.progress.hooks.nothing", "tests.urls.urlpatterns", 5],
)
BOOLEAN = ("must be True or False", [0, 1, "yes"])

# What each option accepts, what it refuses, and why.
CASES = {
    "DATABASE": (["default", "other", None], "must be a key of DATABASES", ["second", 1]),
    "MAX_ARGUMENT_SIZE": ([64, 10**9], *WHOLE),
    "MAX_RESULT_SIZE": ([64, 10**9], *WHOLE),
    "MAX_WORKFLOW_SIZE": ([1, 10], *WHOLE),
    "MAX_PREVIOUS_SIZE": ([64, 10**9], *WHOLE),
    "MAX_TRACEBACK_SIZE": ([1_000], *WHOLE),
    "PROCESSES": ([1, None], *WHOLE),
    "THREADS": ([1, 64], *WHOLE),
    "ASYNC_CONCURRENCY": ([1], *WHOLE),
    "LEASE": ([1, 2.5, timedelta(minutes=1), None], *SECONDS),
    "POLL_INTERVAL": ([0.01, 5, timedelta(seconds=1)], *SECONDS),
    "SHUTDOWN_TIMEOUT": ([0, 0.5, timedelta(0)], *SECONDS),
    "LISTEN": ([True, False], *BOOLEAN),
    "MAX_LOST": ([1, 100], *WHOLE),
    "GRACE": ([0, 2.5, timedelta(seconds=30)], *SECONDS),
    "CAPTURE_LOG": ([0, 100_000], *WHOLE),
    "LATENCY_TARGET": ([1, 2.5, timedelta(minutes=1)], *SECONDS),
    "ENCRYPTION_KEYS": (
        [[], ("key",), ["new", "old"]],
        "must be a list of strings",
        ["key", [1], None],
    ),
    "UNKNOWN_TASK_GRACE": ([0, timedelta(days=2), None], *SECONDS),
    "RETAIN_SUCCESSFUL": ([0, timedelta(days=2), None], *SECONDS),
    "RETAIN_FAILED": ([0, 1.5, None], *SECONDS),
    "RECYCLE_TASKS": ([1, None], *WHOLE),
    "RECYCLE_AFTER": ([0.1, timedelta(hours=1), None], *SECONDS),
    "RECYCLE_MEMORY": ([2**30, None], *WHOLE),
    "ALIASES": (
        [{}, {"old.path": "new.path"}],
        "must be a dictionary of old task paths to new ones",
        [["old.path"], {"old.path": None}, {1: "new.path"}, "old.path"],
    ),
    "SCHEDULES": (
        [[], (), [{"task": "a.b", "when": "@daily"}]],
        "must be a list of dictionaries",
        [{}, "x", [1], None],
    ),
    "TASK_MODULES": (
        [[], ("a.b", "c"), ["a"]],
        "must be a list of strings",
        ["a.b", [1], {"a": 1}, None],
    ),
    "PROGRESS_PERMISSION": FUNCTION,
    "PROGRESS_DETAILS": FUNCTION,
    "PROGRESS_MAX_AGE": ([1, timedelta(hours=1), None], *SECONDS),
}


def test_each_option_has_its_cases_here():
    assert set(CASES) == set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, case in CASES.items() for value in case[0]]
)
def test_a_good_value_is_accepted(name, value):
    assert problems("default", {name: value}) == []


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [(name, case[1], value) for name, case in CASES.items() for value in case[2]],
)
def test_a_bad_value_is_explained(name, said, value):
    (text,) = problems("mine", {name: value})
    assert text.startswith(f"TASKS['mine']['OPTIONS'][{name!r}] {said}")
    shown = f"a {type(value).__name__}" if OPTIONS[name].secret else repr(value)
    assert text.endswith(f", not {shown}.")


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.optional])
def test_none_is_accepted_only_where_it_means_something(name):
    assert len(problems("default", {name: None})) == 1


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("MAX_ARGUMENT_SIZE", 63, "64"),
        ("THREADS", 0, "1"),
        ("LEASE", 0.5, "1 s"),
        ("POLL_INTERVAL", 0.001, "0.01 s"),
        ("MAX_LOST", 0, "1"),
        ("RECYCLE_MEMORY", 10, "1048576"),
        ("LEASE", float("nan"), "1 s"),
    ],
)
def test_a_value_below_the_minimum_is_told_the_minimum(name, value, least):
    (text,) = problems("default", {name: value})
    assert f"at least {least}, not {value!r}." in text


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_each_default_is_valid_and_explained(option):
    given = {} if option.optional and option.default is None else {option.name: option.default}
    assert problems("default", given) == []
    assert option.meaning.endswith(".")
    assert (option.default is None) <= option.optional


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("MAX_ARGUMENT_SIZES", "MAX_ARGUMENT_SIZE"),
        ("database", "DATABASE"),
        ("thread", "THREADS"),
        ("RETAIN_SUCESSFUL", "RETAIN_SUCCESSFUL"),
    ],
)
def test_an_unknown_option_is_told_the_one_that_was_meant(name, suggested):
    assert problems("default", {name: 1}) == [
        f"Unknown option {name!r} in TASKS['default']['OPTIONS']. Did you mean {suggested!r}?"
    ]


@pytest.mark.parametrize("name", ["QQQ", "", 5, None])
def test_an_unknown_option_without_a_likeness_is_named(name):
    assert problems("default", {name: 1}) == [
        f"Unknown option {name!r} in TASKS['default']['OPTIONS']."
    ]


def test_all_problems_are_found_at_once():
    assert len(problems("default", {"THREADS": 0, "LISTEN": 1, "QQQ": 2, "LEASE": 30})) == 3


def test_options_are_attributes_and_durations_are_seconds():
    options = Options({"LEASE": timedelta(minutes=2), "THREADS": 3, "DATABASE": "other"})
    assert (options.lease, options.threads, options.database) == (120.0, 3, "other")
    assert options.poll_interval == OPTIONS["POLL_INTERVAL"].default


def test_each_option_has_an_attribute_with_its_default():
    options = Options({})
    for name, option in OPTIONS.items():
        assert getattr(options, name.lower()) == option.default
        assert name.lower() in Options.__annotations__


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("emial", ["default", "emails"], " Did you mean 'emails'?"),
        ("EMAILS", ["default", "emails"], " Did you mean 'emails'?"),
        ("zzz", ["default", "emails"], ""),
        ("x", [], ""),
    ],
)
def test_a_suggestion_is_made_only_when_something_is_close(name, known, expected):
    assert suggestion(name, known) == expected
