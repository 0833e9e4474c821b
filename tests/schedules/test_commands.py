"""bgtasks schedules and bgtasks explain: what they print, and their exit codes."""

import getpass
import io
import json
import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import ProgrammingError
from django.utils import timezone

from django_bgtasks import every, schedule
from django_bgtasks.compat import task_backends
from django_bgtasks.cron import offset_changes
from django_bgtasks.management.subcommands.explain import relative
from django_bgtasks.management.subcommands.schedules import acting, common, listing
from django_bgtasks.models import QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules import declarations
from django_bgtasks.schedules.clock_changes import clock_changes
from django_bgtasks.timetables import read
from tests import tasks
from tests.test_commands import run as run_in_a_process

from .conftest import finish

DATABASE = "django_bgtasks.DatabaseBackend"


@pytest.fixture(autouse=True)
def nothing_declared():
    kept = declarations.forget()
    yield
    declarations.forget()
    declarations._declared.update(kept)


def bgtasks(*arguments):
    """Call a sub-command; return what it wrote to standard output, and to standard error."""
    out, err = StringIO(), StringIO()
    call_command("bgtasks", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def refused(*arguments):
    """Call a sub-command that refuses; return its exit code and message."""
    with pytest.raises(CommandError) as caught:
        bgtasks(*arguments)
    return caught.value.returncode, str(caught.value)


def schedules(*arguments):
    return bgtasks("schedules", *arguments)[0]


def add(name="nightly", *arguments, task="tests.tasks.nothing", when="0 2 * * *"):
    return schedules("add", name, "--task", task, "--when", when, *arguments)


def local(text, zone="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


class Terminal(io.StringIO):
    """A standard input at which somebody sits."""

    def isatty(self):
        return True


# explain


def test_explain_says_it_in_words_and_gives_the_next_times():
    out, _ = bgtasks("explain", "0 2 * * 1-5", "--tz", "Europe/Warsaw", "-n", "3")
    lines = out.splitlines()
    assert lines[:3] == [
        "At 02:00, Monday through Friday",
        "0 2 * * 1-5, Europe/Warsaw",
        "",
    ]
    for line in lines[3:6]:
        day, _date, clock, offset, *_ = line.split()
        assert day in ("Mon", "Tue", "Wed", "Thu", "Fri")
        assert clock == "02:00:00"
        assert offset in ("+01:00", "+02:00")
        assert " in " in line
    assert lines[6:] == []  # Clocks change on Sundays.


def test_explain_as_json():
    found = json.loads(bgtasks("explain", "@hourly", "-n", "2", "--json")[0])
    assert found["expression"] == "@hourly"
    assert found["time_zone"] == "UTC"
    assert found["description"] == "Every hour"
    first, second = (datetime.fromisoformat(moment["at"]) for moment in found["next"])
    assert second - first == timedelta(hours=1)
    assert 0 < found["next"][0]["in_seconds"] <= 3600
    assert found["next"][0]["offset"] == "+00:00"
    assert found["clock_changes"] == []


@pytest.mark.parametrize("words", [["every", "15", "minutes"], ["every 15 minutes"]])
def test_explain_knows_intervals_with_and_without_quotes(words):
    assert bgtasks("explain", *words)[0].startswith("Every 15 minutes\nevery 15 minutes, UTC\n")


def test_explain_says_that_a_time_has_passed():
    out, _ = bgtasks("explain", "at 2020-01-01 08:00")
    assert out.endswith("\n  Never again.\n")


NEVER = "'0 0 30 2 *' never comes: there is no such day."
SEVEN = "'60 * * * *': '60' is no minute (0 to 59)."
ZONE = "Unknown time zone 'Europe/Warsav'. Did you mean 'Europe/Warsaw'?"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["60 * * * *"], SEVEN),
        (["0 0 30 2 *"], NEVER),
        (["0 0 * *"], "'0 0 * *' has 4 fields, not 5"),
        (["* * * * * *"], "There is none for seconds"),
        (["every 0.5 seconds"], "is no interval"),
        (["next week"], "says no time"),
        (["@daily", "--tz", "Europe/Warsav"], ZONE),
        (["0", "2", "a", "b", "c", "d"], "has 6 fields"),
    ],
)
def test_explain_refuses_with_exit_code_2(arguments, text):
    code, message = refused("explain", *arguments)
    assert code == 2
    assert text in message


def test_what_a_shell_made_of_a_star_is_guessed():
    assert refused("explain", "0", "2", "docs", "src", "1-5", "x")[1].endswith(
        " Put it in quotes: a shell replaces *."
    )


def test_the_exit_code_is_that_of_the_process():
    assert run_in_a_process("bgtasks", "explain", "@daily")[0] == 0
    code, output = run_in_a_process("bgtasks", "explain", "0 0 30 2 *")
    assert (code, output.strip()) == (2, f"CommandError: {NEVER}")
    code, output = run_in_a_process(
        "bgtasks", "schedules", "add", "x", "--task", "tests.tasks.nothing", "--when", "0 0 30 2 *"
    )
    assert (code, output.strip().splitlines()[-1]) == (2, f"  --when: {NEVER}")


@pytest.mark.parametrize("count", ["0", "x", "1001"])
def test_the_number_of_times_is_bounded(count):
    with pytest.raises(CommandError, match="argument -n"):
        bgtasks("explain", "@daily", "-n", count)


# Daylight saving


@pytest.mark.parametrize(
    ("when", "texts"),
    [
        (
            "30 2 * * *",
            [
                "02:30 doesn't exist: one run at 03:00 instead.",
                "02:30 comes twice: it runs the first time, at +02:00.",
            ],
        ),
        (
            "0,30 2 * * *",
            [
                "2 times from 02:00 to 02:30 don't exist: one run at 03:00 instead.",
                "2 times from 02:00 to 02:30 come twice: they run the first time, at +02:00.",
            ],
        ),
        (
            "*/30 2 * * *",
            [
                "2 times from 02:00 to 02:30 don't exist: they are left out.",
                "2 times from 02:00 to 02:30 come twice: they run both times.",
            ],
        ),
        ("0 3 * * *", []),
        ("30 2 * * 1", []),
        ("*/15 * * * *", []),
        ("@hourly", []),
        ("every 1 hour", []),
        ("at 2026-03-29 02:30", ["02:30 doesn't exist: one run at 03:00 instead."]),
        ("at 2026-03-29 02:30+00:00", []),
    ],
)
def test_what_happens_when_the_clocks_change(when, texts):
    """Told by what the timetable itself does in these nights."""
    zone, now = ZoneInfo("Europe/Berlin"), local("2026-01-01")
    timetable = read(when)
    changes = list(clock_changes(timetable, zone, now))
    assert [change.text for change in changes] == texts
    for change in changes:
        start = change.at - timedelta(hours=1)
        due = list(timetable.between(start, change.at + timedelta(minutes=59), zone))
        if "doesn't" in change.text or "don't" in change.text:
            assert due == ([] if "left out" in change.text else [change.at])
        else:
            times = 2 if "both" in change.text else 1
            assert len(due) == times * (1 if change.text.startswith("02:30") else 2)


def test_the_changes_of_the_clocks_are_found_to_the_second():
    zone = ZoneInfo("Australia/Lord_Howe")
    assert [at.isoformat() for at in offset_changes(zone, 2026)] == [
        "2026-04-04T15:00:00+00:00",
        "2026-10-03T15:30:00+00:00",
    ]


# Bad input to add


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--when", "60 * * * *"], [f"  --when: {SEVEN}"]),
        (["--when", "0 0 30 2 *"], [f"  --when: {NEVER}"]),
        (["--when", "at 2020-01-01 08:00"], ["  --when: That time has passed."]),
        (["--tz", "Europe/Warsav"], [f"  --tz: {ZONE}"]),
        (["--tz", "Europe/Warsav", "--start", "2030-01-01 00:00"], [f"  --tz: {ZONE}"]),
        (
            ["--task", "tests.tasks.nothin"],
            [
                "  --task: No task 'tests.tasks.nothin'. Was it renamed? Add it to "
                "OPTIONS['ALIASES']. Did you mean 'tests.tasks.nothing'?"
            ],
        ),
        (["--args", "[1]"], ["  --args: nothing() takes no arguments but 1 was given"]),
        (["--kwargs", '{"x": 1}'], ["  --args: nothing() got an unexpected keyword argument 'x'"]),
        (["--args", '{"x": 1}'], ["  --args: args must be a list, not {'x': 1}."]),
        (
            ["--start", "2030-06-02 00:00", "--end", "2030-06-01 00:00"],
            [
                "  --end: The end, 2030-06-01 00:00+00:00, is not after the start, "
                "2030-06-02 00:00+00:00."
            ],
        ),
        (
            ["--start", "2030-06-02 03:00", "--end", "2030-06-02 04:00"],
            ["  --end: '0 2 * * *' is never due before the end, 2030-06-02 04:00+00:00."],
        ),
        (
            ["--missed", "al", "--overlap", "cancle"],
            [
                "  --missed: missed must be one of 'skip', 'once', 'all', not 'al'. "
                "Did you mean 'all'?",
                "  --overlap: overlap must be one of 'allow', 'skip', 'queue', 'cancel', not "
                "'cancle'. Did you mean 'cancel'?",
            ],
        ),
        (["--queue", "emial"], "  --queue: Queue 'emial'"),
        (["--priority", "101"], "priority must be a whole number between -100 and 100."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0][0] == "-" else "",
)
def test_add_refuses_with_a_line_for_each_wrong_option(arguments, lines):
    given = {"--task": "tests.tasks.nothing", "--when": "0 2 * * *"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    flat = [part for pair in given.items() for part in pair]
    code, message = refused("schedules", "add", "x", *flat)
    first, *rest = message.splitlines()
    assert (code, first) == (2, "Schedule 'x' is not added.")
    if isinstance(lines, str):
        assert len(rest) == 1
        assert lines in rest[0]
    else:
        # What Python says of arguments is not the same in all versions.
        assert [line.partition(" takes ")[0] for line in rest] == [
            line.partition(" takes ")[0] for line in lines
        ]
    assert not Schedule.objects.exists()


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--args", "[1"], "--args is no JSON: '[1'"),
        (["--start", "soon"], "--start: 'soon' is no date with a time."),
        (["--start", "0001-01-01", "--tz", "Asia/Tokyo"], "--start: '0001-01-01' is no date"),
    ],
)
def test_add_refuses_what_can_not_be_read(arguments, text):
    code, message = refused(
        "schedules", "add", "x", "--task", "tests.tasks.nothing", "--when", "@daily", *arguments
    )
    assert code == 2
    assert text in message


@pytest.mark.django_db(databases=["default", "other"])
def test_add_makes_what_the_admin_would_make():
    said = add(
        "nightly", "--tz", "Europe/Warsaw", "--args", "[1]", "--kwargs", '{"b": 2}',
        "--queue", "reports", "--priority", "7", "--missed", "all", "--overlap", "queue",
        "--start", "2030-01-01 00:00", "--end", "2030-12-31", "--max-runs", "9",
        "--jitter", "5m", "--expires", "1h", "--success-within", "2h",
        task="tests.tasks.add",
    )  # fmt: skip
    assert said == (
        "Schedule 'nightly' is added: At 02:00. Next run: Tue 2030-01-01 02:00:00 +01:00.\n"
    )
    row = Schedule.objects.get()
    assert (row.task_path, row.args, row.kwargs) == ("tests.tasks.add", [1], {"b": 2})
    assert (row.expression, row.time_zone, row.source) == ("0 2 * * *", "Europe/Warsaw", "admin")
    assert (row.queue_name, row.priority, row.missed, row.overlap) == ("reports", 7, "all", "queue")
    assert (row.max_runs, row.jitter, row.expires, row.success_within) == (9, 300, 3600, 7200)
    # A date alone is the whole day.
    assert row.start_at == local("2030-01-01", "Europe/Warsaw")
    assert row.end_at == local("2030-12-31T23:59:59", "Europe/Warsaw")
    assert row.enabled
    code, message = refused(
        "schedules", "add", "nightly", "--task", "tests.tasks.nothing", "--when", "@daily"
    )
    assert code == 2
    assert message.endswith("  NAME: There is one of this name already.")


@pytest.mark.django_db(databases=["default", "other"])
def test_add_may_add_it_disabled_and_answer_in_json():
    facts = json.loads(add("x", "--disabled", "--json"))
    assert (facts["name"], facts["enabled"], facts["next_due_at"]) == ("x", False, None)
    assert not Schedule.objects.get().enabled
    assert add("y", "--disabled").endswith("It is disabled.\n")


# An unknown schedule


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["next"], ["run"], ["enable"], ["disable"], ["runs"], ["remove"],
        ["backfill", "--from", "2025-01-01", "--to", "2025-01-02"],
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_an_unknown_schedule_is_answered_with_the_one_that_was_meant(arguments):
    action, *more = arguments
    code, message = refused("schedules", action, "nitely\x1b[2J", *more)
    assert code == 2
    assert message == r"Unknown schedule 'nitely\x1b[2J'. There are none."
    add("nightly")
    code, message = refused("schedules", action, "nigthly", *more)
    assert code == 2
    assert message == "Unknown schedule 'nigthly'. Did you mean 'nightly'? Known: nightly."


@pytest.mark.django_db(databases=["default", "other"])
def test_a_name_of_two_databases_needs_the_backend(settings):
    settings.TASKS = {
        "default": {"BACKEND": DATABASE},
        "second": {"BACKEND": DATABASE, "OPTIONS": {"DATABASE": "other"}},
    }
    add("x")
    add("x", "--backend", "second", "--tz", "Asia/Tokyo")
    code, message = refused("schedules", "next", "x")
    assert code == 2
    assert message == (
        "Databases 'default' and 'other' each have a schedule 'x'. Name one with --backend."
    )
    for where in (["--backend", "second", "next", "x"], ["next", "x", "--backend", "second"]):
        assert "+09:00" in schedules(*where)
    lines = schedules().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["database", "name"],
        ["default", "x"],
        ["other", "x"],
    ]


@pytest.mark.parametrize(
    "arguments",
    [["schedules"], ["schedules", "sync"], ["schedules", "list"], ["import", "celery-beat"]],
    ids=" ".join,
)
def test_an_unknown_backend_is_answered_with_the_known_ones(arguments):
    code, message = refused(*arguments, "--backend", "nope")
    assert code == 2
    assert "'nope' doesn't exist. Aliases in TASKS: default" in message


def test_missing_tables_are_answered_with_exit_code_3(monkeypatch):
    def missing(options):
        error = ProgrammingError("relation does not exist")
        error.__cause__ = Exception("no such table: bgtasks_schedule")
        raise error

    monkeypatch.setattr(listing, "rows_of", missing)
    code, message = refused("schedules")
    assert code == 3
    assert message.endswith("Run: python manage.py migrate")


# list


@pytest.mark.django_db(databases=["default", "other"])
def test_list_says_when_there_are_none():
    assert schedules() == "There are no schedules yet.\n"
    assert json.loads(schedules("list", "--json")) == {"schedules": [], "problems": []}


def test_list_shows_plan_and_outcome(add_schedule, fire, clock):
    add_schedule(time_zone="Europe/Warsaw", expression="0 15 * * *", name="tea\x1b[2J")
    clock.forward(minutes=30)
    finish(fire())
    Schedule.objects.update(next_due_at=datetime(2030, 6, 2, 13, tzinfo=UTC), look_at=None)
    heads, line = schedules().splitlines()
    assert heads.split() == [
        "name", "when", "expression", "zone", "next", "last", "outcome", "enabled", "source",
    ]  # fmt: skip
    assert [part for part in line.split("  ") if part] == [
        r"tea\x1b[2J", "At 15:00", "0 15 * * *", "Europe/Warsaw", "Sun 2030-06-02 15:00",
        "Mon 2026-06-01 15:00", "successful", "yes", "admin",
    ]  # fmt: skip
    (facts,) = json.loads(schedules("--json"))["schedules"]
    assert facts["next_due_at"] == "2030-06-02T15:00:00+02:00"
    assert facts["last_due_at"] == "2026-06-01T15:00:00+02:00"
    assert (facts["last_outcome"], facts["runs"], facts["enabled"]) == ("SUCCESSFUL", 1, True)
    assert (facts["database"], facts["backend"]) == ("default", "default")


def test_list_says_what_is_wrong_and_check_makes_it_the_exit_code(add_schedule):
    add_schedule()
    out = schedules()
    assert "\n\nProblems:\n  Schedule 'hourly' was due " in out
    with pytest.raises(SystemExit) as ended:
        schedules("--check")
    assert ended.value.code == 1
    with pytest.raises(SystemExit):
        schedules("list", "--check", "--json")
    Schedule.objects.update(enabled=False)
    assert "Problems" not in schedules("--check")


def test_a_narrow_terminal_cuts_the_sentence_only(add_schedule, monkeypatch):
    add_schedule(expression="0,7,9 8-16/2 1-7 1,4,7 *", name="a long name of a schedule")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    line = schedules().splitlines()[1]
    assert line.startswith(
        "a long name of a schedule  At 0, 7, and 9 mi...  0,7,9 8-16/2 1-7 1,4,7 *"
    )


# next


@pytest.mark.django_db(databases=["default", "other"])
def test_next_is_on_the_clock_of_the_schedule():
    add("x", "--tz", "America/New_York", "--start", "2030-03-09 12:00")
    out, err = bgtasks("schedules", "next", "x", "-n", "2")
    assert [line.rpartition("  ")[0] for line in out.splitlines()] == [
        "Sun 2030-03-10 03:00:00 -04:00",
        "Mon 2030-03-11 02:00:00 -04:00",
    ]
    assert err == ""
    found = json.loads(schedules("next", "x", "-n", "1", "--json"))
    assert [moment["utc"] for moment in found] == ["2030-03-10T07:00:00+00:00"]


@pytest.mark.django_db(databases=["default", "other"])
def test_next_says_why_there_is_nothing_or_less():
    add("off", "--disabled")
    out, err = bgtasks("schedules", "next", "off", "-n", "1")
    assert len(out.splitlines()) == 1
    assert err == "Schedule 'off' is disabled: none of these runs comes.\n"
    add("spent", "--max-runs", "3")
    Schedule.objects.filter(name="spent").update(runs=3, next_due_at=None)
    assert bgtasks("schedules", "next", "spent") == (
        "",
        "Schedule 'spent' has run 3 times, and may not again.\n",
    )
    add("over", when="at 2030-01-01 00:00")
    Schedule.objects.filter(name="over").update(next_due_at=None)
    assert bgtasks("schedules", "next", "over") == ("", "Schedule 'over' is never due again.\n")
    add("spread", "--jitter", "90")
    assert (
        "Each starts up to 1 min 30 s later (jitter)." in bgtasks("schedules", "next", "spread")[1]
    )
    Schedule.objects.filter(name="over").update(error="Oh.", expression="0 0 30 2 *", enabled=False)
    code, message = refused("schedules", "next", "over")
    assert (code, message) == (1, f"Schedule 'over': {NEVER}")


# run, runs


@pytest.mark.django_db(databases=["default", "other"])
def test_run_enqueues_now_and_runs_shows_it():
    add("x")
    assert schedules("runs", "x") == "Schedule 'x' has not run yet.\n"
    said = schedules("run", "x")
    task = QueuedTask.objects.get()
    assert said == f"Task {task.pk} of schedule 'x' is enqueued. Its plan stays as it is.\n"
    assert json.loads(schedules("run", "x", "--json"))["name"] == "x"
    assert QueuedTask.objects.count() == 2
    heads, first, _ = schedules("runs", "x").splitlines()
    assert heads.split() == ["due", "why", "outcome", "drift", "took", "missed", "task", "note"]
    assert " manual  ready " in first
    assert first.endswith(f"Run by {getpass.getuser()}.")
    assert len(schedules("runs", "x", "-n", "1").splitlines()) == 2


def test_runs_shows_drift_and_outcome(add_schedule, fire, clock):
    add_schedule(time_zone="Asia/Kathmandu", overlap="allow")
    clock.forward(minutes=46)
    finish(fire(), status="FAILED")
    clock.forward(hours=2)
    fire()
    first, second = schedules("runs", "hourly").splitlines()[1:]
    assert first.split()[:8] == ["Mon", "2026-06-01", "21:00", "plan", "ready", "1", "min", "30"]
    assert first.split()[10:12] == ["1", str(ScheduleRun.objects.latest("due_at").task_id)]
    assert second.split()[:5] == ["Mon", "2026-06-01", "19:00", "plan", "failed"]
    facts = json.loads(schedules("runs", "hourly", "--json"))[-1]
    assert facts["due_at"] == "2026-06-01T19:00:00+05:45"
    assert (facts["outcome"], facts["drift"], facts["missed"]) == ("FAILED", 90.0, 0)


@pytest.mark.django_db(databases=["default", "other"])
def test_run_refuses_what_this_code_can_not_run():
    add("x")
    Schedule.objects.update(task_path="shop.gone")
    code, message = refused("schedules", "run", "x")
    assert code == 1
    assert message.startswith("Schedule 'x': No task 'shop.gone'.")
    Schedule.objects.update(task_path="tests.tasks.add")
    code, message = refused("schedules", "run", "x")
    assert code == 1
    assert "missing 2 required" in message
    assert not QueuedTask.objects.exists()


# enable, disable


@pytest.mark.django_db(databases=["default", "other"])
def test_disable_and_enable_say_what_they_did():
    add("x", "--start", "2030-01-01 00:00")
    assert schedules("disable", "x") == ("Schedule 'x' is disabled. What it has enqueued stays.\n")
    assert schedules("disable", "x") == "Schedule 'x' was disabled already.\n"
    due = "Next run: Tue 2030-01-01 02:00:00 +00:00."
    assert schedules("enable", "x") == f"Schedule 'x' is enabled. {due}\n"
    assert schedules("enable", "x") == f"Schedule 'x' was enabled already. {due}\n"
    assert json.loads(schedules("disable", "x", "--json")) == {
        "name": "x",
        "enabled": False,
        "changed": True,
        "next_due_at": None,
    }


@pytest.mark.django_db(databases=["default", "other"])
def test_enable_warns_of_what_will_go_wrong():
    add("x", "--disabled")
    Schedule.objects.update(task_path="shop.gone", expression="at 2020-01-01 00:00")
    out, err = bgtasks("schedules", "enable", "x")
    assert out == "Schedule 'x' is enabled. It is never due again.\n"
    assert "No task 'shop.gone'." in err


# backfill


RANGE = ["--from", "2025-06-01 02:00", "--to", "2025-06-03 02:00"]


@pytest.mark.django_db(databases=["default", "other"])
def test_backfill_shows_first_and_then_does():
    add("x", "--tz", "Europe/Warsaw", "--overlap", "allow")
    out, err = bgtasks("schedules", "backfill", "x", *RANGE, "--dry-run")
    assert out.splitlines() == [f"{day} 02:00:00 +02:00" for day in (
        "Sun 2025-06-01", "Mon 2025-06-02", "Tue 2025-06-03",
    )]  # fmt: skip
    assert err == "3 runs would be enqueued, at once. A dry run: nothing is changed.\n"
    assert not QueuedTask.objects.exists()
    _, err = bgtasks("schedules", "backfill", "x", *RANGE)
    assert err == "3 runs wait to run, at once.\n"
    assert QueuedTask.objects.count() == 3
    out, err = bgtasks("schedules", "backfill", "x", *RANGE)
    assert (out, err) == (
        "",
        "There is nothing to make up for. 3 due times had run already.\n",
    )
    lines = schedules("runs", "x").splitlines()
    assert " backfill  ready " in lines[1]
    assert f"Backfilled by {getpass.getuser()}." in lines[1]


@pytest.mark.django_db(databases=["default", "other"])
def test_backfill_as_json_and_in_turn():
    add("x")
    facts = json.loads(schedules("backfill", "x", *RANGE, "--json"))
    assert facts["in_turn"] is True
    assert facts["due"][0] == "2025-06-01T02:00:00+00:00"
    assert (len(facts["due"]), facts["done"]) == (3, [])
    assert set(ScheduleRun.objects.values_list("status", flat=True)) == {"HELD"}


@pytest.mark.django_db(databases=["default", "other"])
def test_backfill_takes_whole_days():
    add("x", "--overlap", "allow", when="0 */12 * * *")
    arguments = ["backfill", "x", "--from", "2025-06-01", "--to", "2025-06-02", "--json"]
    due = json.loads(schedules(*arguments))["due"]
    assert [text[5:13] for text in due] == ["06-01T00", "06-01T12", "06-02T00", "06-02T12"]


@pytest.mark.django_db(databases=["default", "other"])
def test_backfill_takes_both_passes_of_a_clock_time():
    add("x", "--tz", "Europe/Berlin", "--overlap", "allow", when="*/30 2 * * *")
    arguments = ["--from", "2025-10-26 02:00", "--to", "2025-10-26 02:30", "--json"]
    due = json.loads(schedules("backfill", "x", *arguments))["due"]
    assert [text[11:] for text in due] == [
        "02:00:00+02:00", "02:30:00+02:00", "02:00:00+01:00", "02:30:00+01:00",
    ]  # fmt: skip


@pytest.mark.django_db(databases=["default", "other"])
def test_a_large_backfill_asks(monkeypatch):
    add("x", "--overlap", "allow", when="0 * * * *")
    few = ["--from", "2025-06-01 01:00", "--to", "2025-06-01 10:00"]
    schedules("backfill", "x", *few)
    assert QueuedTask.objects.count() == acting.ASKED_FROM
    many = ["--from", "2025-06-02 00:00", "--to", "2025-06-02 23:00"]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, message = refused("schedules", "backfill", "x", *many)
    assert code == 2
    assert message == "Schedule 'x' would run 24 times. Nobody can be asked: add --yes."
    for answer in ("n\n", ""):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        code, message = refused("schedules", "backfill", "x", *many)
        assert (code, message) == (1, "Nothing is changed.")
    assert QueuedTask.objects.count() == acting.ASKED_FROM
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    out, _ = bgtasks("schedules", "backfill", "x", *many)
    assert out.splitlines()[-1] == "... and 4 more"
    assert QueuedTask.objects.count() == acting.ASKED_FROM + 24
    more = ["--from", "2025-06-03 00:00", "--to", "2025-06-03 23:00", "--yes"]
    schedules("backfill", "x", *more)
    assert QueuedTask.objects.count() == acting.ASKED_FROM + 48


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ("2025-06-02 00:00", "2025-06-01 00:00", "The range ends, 2025-06-01 00:00+00:00, before"),
        ("2025-06-01 03:00", "2025-06-01 04:00", "Schedule 'x' is not due in that range."),
        ("2025-10-26 02:30+01:00", "2025-10-26 02:30+02:00", "02:30+02:00, before it starts"),
        ("2020-06-01 03:00", "2025-06-01 04:00", "is due more than 1,000 times in that range."),
        ("2025-06-01 03:00", "9000-06-01 04:00", "has not come yet"),
        ("yesterday", "2025-06-01 04:00", "--from: 'yesterday' is no date with a time."),
        ("2025-06-01 04:00", "25", "--to: '25' is no date with a time."),
    ],
)
def test_backfill_refuses_a_wrong_range(start, end, text):
    add("x")
    code, message = refused("schedules", "backfill", "x", "--from", start, "--to", end)
    assert code == 2
    assert text in message


# remove


@pytest.mark.django_db(databases=["default", "other"])
def test_remove_asks_and_deletes(monkeypatch):
    add("x")
    schedules("run", "x")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, message = refused("schedules", "remove", "x")
    assert code == 2
    assert message.endswith("Nobody can be asked: add --yes.")
    said = schedules("remove", "x", "--yes")
    assert said == "Schedule 'x' is removed. What it has enqueued stays.\n"
    assert not Schedule.objects.exists()
    assert QueuedTask.objects.count() == 1


@pytest.mark.django_db(databases=["default", "other"])
def test_remove_leaves_what_code_declares():
    schedule("@daily", name="x")(tasks.nothing)
    schedules("sync")
    code, message = refused("schedules", "remove", "x", "--yes")
    assert code == 2
    assert message == (
        "Schedule 'x' is declared in tests.tasks. Remove it there, or type: "
        "manage.py bgtasks schedules disable x"
    )
    assert Schedule.objects.exists()


# sync


@pytest.mark.django_db(databases=["default", "other"])
def test_sync_says_what_it_does():
    schedule("@daily", name="a")(tasks.nothing)
    every(minutes=5, name="b")(tasks.nothing)
    out, err = bgtasks("schedules", "sync", "--dry-run")
    assert out == "added    a\nadded    b\n"
    assert err == "A dry run: nothing is changed.\n"
    assert not Schedule.objects.exists()
    assert schedules("sync") == "added    a\nadded    b\n"
    assert schedules("sync") == "Nothing to change: 2 schedules.\n"
    declarations.forget()
    schedule("@hourly", name="a")(tasks.nothing)
    assert schedules("sync") == "changed  a\nremoved  b\n"
    assert json.loads(schedules("sync", "--json")) == [
        {
            "backend": "default",
            "dry_run": False,
            "added": [],
            "changed": [],
            "removed": [],
            "unchanged": ["a"],
            "taken": [],
            "owners": {},
        }
    ]


@pytest.mark.django_db(databases=["default", "other"])
def test_sync_warns_of_a_name_that_is_taken():
    add("a")
    schedule("@daily", name="a")(tasks.nothing)
    out, err = StringIO(), StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("bgtasks", "schedules", "sync", stdout=out, stderr=err)
    assert ended.value.code == 1
    assert out.getvalue().startswith("taken    a\n")
    assert err.getvalue().startswith("Schedule 'a' is declared, but one that was added by hand")


@pytest.mark.django_db(databases=["default", "other"])
def test_sync_refuses_wrong_settings_and_changes_nothing(monkeypatch):
    schedule("@daily", name="a")(tasks.nothing)
    backend = task_backends["default"]
    wrong = {"task": "tests.tasks.nothing", "when": "0 0 30 2 *", "name": "b"}
    monkeypatch.setattr(backend.conf, "schedules", [wrong])
    code, message = refused("schedules", "sync")
    assert code == 2
    assert message == f"Schedule \"b of TASKS['default']['OPTIONS']['SCHEDULES'][0]\": {NEVER}"
    assert not Schedule.objects.exists()


def test_a_module_that_declares_nonsense_is_named(monkeypatch, tmp_path):
    (tmp_path / "wrong_schedules.py").write_text(
        "from django_bgtasks import schedule\n"
        "from tests.tasks import nothing\n"
        "schedule('61 * * * *', name='x')(nothing)\n"
    )
    (tmp_path / "broken_schedules.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    backend = task_backends["default"]
    monkeypatch.setattr(backend.conf, "task_modules", ["wrong_schedules"])
    code, message = refused("schedules", "sync")
    assert (code, message) == (2, "Schedule 'x': '61 * * * *': '61' is no minute (0 to 59).")
    monkeypatch.setattr(backend.conf, "task_modules", ["broken_schedules"])
    code, message = refused("schedules", "sync")
    assert (code, message) == (
        1,
        "The tasks could not be loaded: ZeroDivisionError: division by zero",
    )


# Moments in words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "in 0 s"),
        (119, "in 119 s"),
        (121, "in 2 minutes"),
        (-7200, "2 hours ago"),
        (86_400 * 3, "in 3 days"),
    ],
)
def test_a_moment_relative_to_now(seconds, text):
    now = timezone.now()
    assert relative(now + timedelta(seconds=seconds), now) == text


@pytest.mark.parametrize(
    ("text", "last", "expected"),
    [
        ("2025-06-01 02:00", False, "2025-06-01T02:00:00+02:00"),
        ("2025-06-01", False, "2025-06-01T00:00:00+02:00"),
        ("2025-06-01", True, "2025-06-01T23:59:59+02:00"),
        ("2025-06-01T02:00Z", True, "2025-06-01T02:00:00+00:00"),
        ("2025-10-26 02:30", False, "2025-10-26T02:30:00+02:00"),
        ("2025-10-26 02:30", True, "2025-10-26T02:30:00+01:00"),
        ("2025-03-30 02:30", False, "2025-03-30T03:00:00+02:00"),
    ],
)
def test_a_moment_that_was_given(text, last, expected):
    moment = common.moment_of("--from", text, ZoneInfo("Europe/Berlin"), last=last)
    assert moment.isoformat() == expected
