"""manage.py bgtasks failures."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_bgtasks import failures
from django_bgtasks.models import FailureGroup

from .bulk.rows import FINGERPRINT, group

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def bgtasks(*arguments):
    out = StringIO()
    call_command("bgtasks", "failures", *arguments, stdout=out)
    return out.getvalue()


def refused(*arguments):
    with pytest.raises(CommandError) as caught:
        bgtasks(*arguments)
    return getattr(caught.value, "returncode", None), str(caught.value)


def test_causes_are_listed_by_their_frequency():
    group("a" * 32, counts={0: 2}, message="one\x1b[31m")
    group("b" * 32, counts={0: 1_200, 60: 5}, acknowledged_at="2026-01-01T00:00:00Z")
    group("c" * 32)
    failures.mute("default", "c" * 32, 3_600)
    lines = bgtasks().splitlines()
    assert lines[0].split() == ["count", "total", "last", "(UTC)", "state", "cause"]
    assert lines[1].split()[:2] == ["1,200", "1,205"]
    assert lines[1].endswith(
        "acknowledged  bbbbbbbbbbbb  ValueError in tests.tasks.add: order <n> not found"
    )
    assert lines[2].split()[:2] == ["2", "2"]
    assert lines[3:] == ["1 muted."]
    assert "\x1b" not in "".join(lines)


def test_json_has_the_numbers_of_each_hour():
    group(counts={0: 2, 1: 1, 3: 4})
    found = json.loads(bgtasks("--json", "--since", "3h"))
    (cause,) = found["causes"]
    assert (found["hours"], found["muted"]) == (3, 0)
    assert (cause["cause"], cause["count"], cause["by_hour"]) == (FINGERPRINT, 3, [0, 1, 2])
    assert (cause["exception"], cause["state"]) == ("builtins.ValueError", "open")


def test_nothing_is_said_in_words():
    assert bgtasks("--since", "2h") == "No failures in the last 2 hours.\n"


def test_a_cause_is_acknowledged_muted_and_reopened_by_its_first_digits():
    group()
    said = bgtasks("--acknowledge", "ffffff", "--note", "BUG-7")
    assert said == "ValueError in add is acknowledged.\n"
    row = FailureGroup.objects.get()
    assert row.note == "BUG-7"
    assert row.acknowledged_by
    assert bgtasks("--mute", FINGERPRINT, "1d") == "ValueError in add is muted for 1d.\n"
    assert FailureGroup.objects.get().muted_until is not None
    assert bgtasks("--reopen", "ffffff") == "ValueError in add is open again.\n"
    assert bgtasks("--reopen", "ffffff") == "ValueError in add was open.\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--acknowledge", "abc"], "'abc' is no cause. Give its first 6 digits or more"),
        (["--acknowledge", "ffff%f"], "is no cause."),
        (["--acknowledge", "abcdef"], "No cause begins with 'abcdef'."),
        (["--acknowledge", "ffffff"], "Several causes begin with 'ffffff'."),
        (["--mute", "ffffff", "long"], "'long' is no duration."),
    ],
)
def test_what_means_no_cause_ends_with_exit_code_2(arguments, text):
    group()
    group(f"{FINGERPRINT[:-1]}0")
    code, said = refused(*arguments)
    assert code == 2
    assert text in said


@pytest.mark.parametrize("since", ["8d", "0", "yesterday"])
def test_the_time_is_bounded(since):
    assert "--since" in refused("--since", since)[1]
