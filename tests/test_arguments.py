"""Pure: arguments and return values as JSON, and signatures."""

import functools
import json
from datetime import date

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from django_bgtasks import compat
from django_bgtasks.arguments import MAX_DEPTH, NotJSON, Signature, encode_result, normalise
from django_bgtasks.exceptions import InvalidArguments

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
everything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.dates()
    | st.decimals()
    | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_what_json_knows_is_left_unchanged(value):
    assert normalise(value) == value
    assert json.loads(encode_result("f()", value, 10**9)) == value


@given(everything)
def test_what_is_accepted_survives_json_and_is_ascii(value):
    try:
        normalised = normalise(value)
    except NotJSON:
        return
    encoded = encode_result("f()", value, 10**9)
    assert encoded.isascii()
    assert json.loads(encoded) == normalised
    assert "\\u0000" not in encoded.replace("\\\\", "")
    json.loads(encoded, parse_constant=pytest.fail)


def refusal(value):
    """Return the NotJSON that a value is refused with, None if it is accepted."""
    try:
        normalise(value)
    except NotJSON as problem:
        return problem
    return None


@given(everything)
def test_the_place_of_a_refused_value_leads_to_the_culprit(value):
    problem = refusal(value)
    assume(problem is not None)
    for step in problem.path:
        value = value[step]
    culprit = refusal(value)
    assert (culprit.path, culprit.what, culprit.advice) == ((), problem.what, problem.advice)


@given(json_values)
def test_values_are_normalised_to_what_django_makes_of_them(value):
    if compat.HAS_DJANGO_TASKS:
        from django.utils.json import normalize_json
    else:
        from django_tasks.utils import normalize_json
    assert normalise(value) == normalize_json(value)


def test_the_depth_is_bounded():
    value = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert normalise(value) == value
    with pytest.raises(NotJSON):
        normalise([value])


# Return values


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, "null"),
        (42, "42"),
        ((1, b"a"), '[1,"a"]'),
        ({"é": 0.5}, '{"\\u00e9":0.5}'),
    ],
)
def test_a_return_value_is_encoded(value, encoded):
    assert encode_result("f()", value, 100) == encoded


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            {1},
            "f() returned a value that is a set, which JSON can't hold. Return list(value).",
        ),
        (
            {"days": [date(2040, 1, 1)]},
            "f() returned a value that has, at value['days'][0], one that is a date, which JSON "
            "can't hold. Return value['days'][0].isoformat().",
        ),
        (
            len,
            "f() returned a value that is a builtin_function_or_method, which JSON can't hold. "
            "Return strings, numbers, booleans, None, lists and dictionaries of them.",
        ),
        (float("nan"), "f() returned a value that is nan, which JSON can't hold. Pass None."),
        (
            "x" * 99,
            "f() returned 101 bytes of JSON; at most 100 are stored (OPTIONS['MAX_RESULT_SIZE']). "
            "Store the data and return its id.",
        ),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_return_value_that_cannot_be_stored_is_explained(value, said):
    with pytest.raises(ValueError, match=r"^f") as caught:
        encode_result("f()", value, 100)
    assert str(caught.value) == said


# Signatures


def plain(a, b=2, *, c=3):
    return (a, b, c)


def required(a, *, c):
    return (a, c)


def variadic(a, *rest, c=3, **more):
    return (a, rest, c, more)


def positional(a, b=2, /):
    return (a, b)


def nothing():
    return ()


@functools.wraps(plain)
def wrapped(*args, **kwargs):
    return plain(*args, **kwargs)


names = st.sampled_from(["a", "b", "c", "d"])


@pytest.mark.parametrize("function", [plain, required, variadic, positional, nothing, wrapped])
@given(
    args=st.lists(st.integers(), max_size=4),
    kwargs=st.dictionaries(names, st.integers(), max_size=4),
)
def test_a_call_is_accepted_exactly_if_python_accepts_it(function, args, kwargs):
    signature = Signature(function, takes_context=False)
    try:
        function(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidArguments):
            signature.bind(args, kwargs)
    else:
        signature.bind(args, kwargs)


def with_context(context, a, b=2):
    return (a, b)


def with_context_and_more(context, *args, **kwargs):
    return (args, kwargs)


def with_positional_context(context, /, **kwargs):
    return kwargs


@pytest.mark.parametrize("function", [with_context, with_context_and_more, with_positional_context])
@given(
    args=st.lists(st.integers(), max_size=3),
    kwargs=st.dictionaries(names | st.just("context"), st.integers(), max_size=3),
)
def test_a_call_with_context_is_accepted_exactly_if_python_accepts_it(function, args, kwargs):
    signature = Signature(function, takes_context=True)
    try:
        function(None, *args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidArguments):
            signature.bind(args, kwargs)
    else:
        signature.bind(args, kwargs)


def test_arguments_have_the_names_of_their_parameters():
    signature = Signature(variadic, takes_context=False)
    named = dict(signature.named((1, 2, 3), {"c": 4, "d": 5}))
    assert named == {"a": 1, "*args[0]": 2, "*args[1]": 3, "c": 4, "d": 5}


def test_encode_returns_the_arguments_and_their_json():
    signature = Signature(plain, takes_context=False)
    assert signature.encode((1, (2,)), {"c": b"x"}, 100) == (
        [1, [2]],
        {"c": "x"},
        "[1,[2]]",
        '{"c":"x"}',
    )
    assert signature.encode((), {}, 100) == ([], {}, "[]", "{}")
