"""Pure: whether an attempt that raised is followed by another one, and when."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_bgtasks.retries import (
    EXPONENTIAL_CAP,
    LONGEST,
    RetryPolicy,
    checked_backoff,
    matches,
    names_of,
)


def lowest(low, high):
    return low


def highest(low, high):
    return high


class Busy(ConnectionError):
    pass


def test_by_default_there_is_no_second_attempt():
    assert RetryPolicy().delay(1, ValueError()) is None


@pytest.mark.parametrize(("failures", "again"), [(1, True), (2, True), (3, False), (9, False)])
def test_attempts_are_counted(failures, again):
    delay = RetryPolicy(max_attempts=3, backoff=5.0).delay(failures, ValueError())
    assert (delay == 5.0) is again
    assert (delay is None) is not again


@pytest.mark.parametrize(
    ("failures", "least", "most"),
    [(1, 7.5, 15), (2, 15, 30), (3, 30, 60), (8, 960, 1920), (9, 1800, 3600), (5000, 1800, 3600)],
)
def test_the_exponential_backoff_doubles_up_to_an_hour(failures, least, most):
    policy = RetryPolicy(max_attempts=10_000)
    assert policy.delay(failures, ValueError(), jitter=lowest) == least
    assert policy.delay(failures, ValueError(), jitter=highest) == most


@given(st.integers(1, 10**6), st.integers())
def test_the_exponential_backoff_stays_between_half_and_the_whole(failures, seed):
    policy = RetryPolicy(max_attempts=10**7)
    drawn = policy.delay(failures, ValueError(), jitter=random.Random(seed).uniform)
    assert policy.delay(failures, ValueError(), jitter=lowest) <= drawn
    assert drawn <= policy.delay(failures, ValueError(), jitter=highest) <= EXPONENTIAL_CAP


def test_the_exponential_backoff_is_drawn_at_random():
    policy = RetryPolicy(max_attempts=3)
    assert len({policy.delay(1, ValueError()) for _ in range(20)}) > 1


@pytest.mark.parametrize(("failures", "delay"), [(1, 1.0), (2, 5.0), (3, 30.0), (4, 30.0)])
def test_a_list_of_pauses_repeats_its_last(failures, delay):
    policy = RetryPolicy(max_attempts=9, backoff=(1.0, 5.0, 30.0))
    assert policy.delay(failures, ValueError()) == delay


def test_a_function_is_given_the_failures_and_the_exception():
    error = ValueError("why")
    policy = RetryPolicy(max_attempts=9, backoff=lambda *given: 7 if given == (4, error) else 0)
    assert policy.delay(4, error) == 7.0


@pytest.mark.parametrize(
    ("returned", "delay"),
    [(-5, 0.0), (2, 2.0), (float("inf"), LONGEST), (1e300, LONGEST), (float("nan"), 0.0)],
)
def test_what_a_function_returns_is_bounded(returned, delay):
    policy = RetryPolicy(max_attempts=9, backoff=lambda failures, error: returned)
    assert policy.delay(1, ValueError()) == delay


def test_only_exceptions_of_retry_on_are_worth_another_attempt():
    policy = RetryPolicy(max_attempts=3, backoff=0.0, retry_on=names_of([ConnectionError]))
    assert policy.delay(1, ConnectionError()) == 0.0
    assert policy.delay(1, Busy()) == 0.0
    assert policy.delay(1, OSError()) is None
    assert policy.delay(1, ValueError()) is None


def test_give_up_on_is_stronger_than_retry_on():
    policy = RetryPolicy(
        max_attempts=3,
        backoff=0.0,
        retry_on=names_of([Exception]),
        give_up_on=names_of([ConnectionError]),
    )
    assert policy.delay(1, OSError()) == 0.0
    assert policy.delay(1, ConnectionError()) is None
    assert policy.delay(1, Busy()) is None


def test_what_is_no_exception_in_the_narrow_sense_is_not_retried_by_default():
    policy = RetryPolicy(max_attempts=3, backoff=0.0)
    assert policy.delay(1, SystemExit()) is None
    assert policy.delay(1, KeyboardInterrupt()) is None
    assert (
        RetryPolicy(max_attempts=3, backoff=0.0, retry_on=names_of([BaseException])).delay(
            1, SystemExit()
        )
        == 0.0
    )


def test_names_are_dotted_paths():
    assert names_of([ValueError, Busy, "shop.Busy"]) == (
        "builtins.ValueError",
        f"{__name__}.Busy",
        "shop.Busy",
    )


def test_matches_compares_names_of_the_class_and_its_bases():
    assert matches(Busy(), ["builtins.OSError"])
    assert matches(Busy(), [f"{__name__}.Busy"])
    assert not matches(Busy(), ["builtins.ValueError", "Busy"])
    assert not matches(Busy(), [])


@pytest.mark.parametrize(
    "value",
    [
        *("linear", "", -0.1, True, None, float("nan"), float("inf"), LONGEST * 1.1, b"1"),
        *([], (), [1, -1], [1, True], [None], [float("inf")], [float("nan")], {"a": 1}),
    ],
    ids=repr,
)
def test_a_backoff_that_says_no_pause_is_refused(value):
    with pytest.raises(ValueError, match=r"^backoff must be") as caught:
        checked_backoff(value)
    assert str(caught.value).endswith(f"not {value!r}.")
