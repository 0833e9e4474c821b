"""What makes two failures one cause, and what keeps them apart."""

import json

import pytest

from django_bgtasks import fingerprints


def caught(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def deep(number):
    if number:
        return deep(number - 1)
    raise ValueError(f"order {id(number)} not found")


def charge(order):
    raise ValueError(f"order {order} not found")


def parse(text):
    return json.loads(text)


def of(function, *args, task="shop.tasks.one"):
    return fingerprints.of_exception(task, caught(function, *args))


def test_the_same_place_and_class_are_one_cause_whatever_the_message():
    assert of(charge, 1) == of(charge, 2)
    assert len(of(charge, 1)) == 32


def test_another_task_class_or_function_is_another_cause():
    assert len({of(charge, 1), of(deep, 0), of(parse, "{"), of(charge, 1, task="other")}) == 4


def test_a_moved_line_is_no_other_cause():
    source = "def broken():\n    raise ValueError('x')\n"
    moved = "\n\n\n" + source
    found = set()
    for text in (source, moved):
        space = {"__name__": "shop.orders"}
        exec(compile(text, "/srv/app/shop/orders.py", "exec"), space)
        found.add(of(space["broken"]))
    assert len(found) == 1


def test_only_the_innermost_frames_of_the_project_count():
    assert of(deep, 5) == of(deep, 50)


def test_without_a_frame_of_the_project_the_message_decides():
    one, same, other = (
        fingerprints.of_exception("t", LookupError(text)) for text in ("a 17", "a 99", "b 17")
    )
    assert one == same != other


def test_an_exception_that_can_not_be_shown_has_a_fingerprint():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    assert len(fingerprints.of_exception("t", Broken())) == 32


def test_frames_of_python_and_of_installed_packages_are_not_the_projects():
    assert not fingerprints.is_of_project(json.__file__)
    assert not fingerprints.is_of_project("/srv/venv/lib/python3.12/site-packages/requests/api.py")
    assert not fingerprints.is_of_project(fingerprints.__file__)
    assert not fingerprints.is_of_project("<string>")
    assert fingerprints.is_of_project(__file__)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("order 17 not found", "order <n> not found"),
        ("timed out after 30.5 s", "timed out after <n> s"),
        ("no 'blue shirt' here", "no <text> here"),
        ("0193e5a2-7c1e-7b7a-9d54-61c2e4b0f9aa is gone", "<id> is gone"),
        ("<Order object at 0x7f12ab>", "<Order object at <address>>"),
        ("GET https://shop.example/a?b=1 said no", "GET <url> said no"),
        ("ann@shop.example is unknown", "<mail> is unknown"),
        ("can't open /srv/app/data.csv", "can't open <path>"),
        ("commit 9f86c41ab23d4 failed", "commit <id> failed"),
        ("several\n  lines", "several lines"),
    ],
)
def test_what_varies_in_a_message_is_replaced(message, shown):
    assert fingerprints.normalised(message) == shown


def test_a_long_message_is_cut_and_takes_no_long_time():
    assert len(fingerprints.normalised("x" * 5_000_000)) == 255
    assert len(fingerprints.normalised("'" * 5_000_000)) <= 255
