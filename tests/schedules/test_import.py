"""bgtasks import: what becomes of the plans of other libraries."""

import importlib
import itertools
import json
import os
import random
import subprocess
import sys
import types
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_bgtasks.cron import Cron
from django_bgtasks.management.imports import Found, celery_beat, crontabs, zone_name
from django_bgtasks.management.subcommands import importing
from django_bgtasks.models import Schedule

ROOT = Path(__file__).resolve().parents[2]
SPANS = (range(60), range(24), range(1, 32), range(1, 13), range(7))

needs_celery = pytest.mark.skipif(find_spec("celery") is None, reason="Celery is not installed.")


def run_import(*arguments):
    """Run an import; return its exit code, and what it wrote to both streams."""
    out, err, code = StringIO(), StringIO(), 0
    try:
        call_command("bgtasks", "import", *arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue(), err.getvalue()


def imported(*arguments):
    """Run an import; return its exit code, what became of each schedule, and the warnings."""
    code, out, err = run_import(*arguments, "--json")
    return code, {fact["name"]: fact for fact in json.loads(out)["schedules"]}, err


def refused(*arguments):
    with pytest.raises(CommandError) as caught:
        call_command("bgtasks", "import", *arguments)
    return caught.value.returncode, str(caught.value)


def written():
    return list(Schedule.objects.order_by("name").values_list("name", "expression", "time_zone"))


@pytest.fixture
def plan(settings, transactional_db):
    """Return a function that sets Beat's dictionary."""
    settings.TIME_ZONE = "Europe/Berlin"

    def give(**entries):
        settings.CELERY_BEAT_SCHEDULE = {
            name: {"task": "tests.tasks.nothing", "schedule": 60.0, **entry}
            for name, entry in entries.items()
        }

    return give


# Crontabs of Celery


def days_of(expression, count=800):
    """Return the days on which an expression is due, from a Wednesday on that begins a year."""
    cron, moment = Cron(expression), datetime(2025, 1, 1, tzinfo=UTC) - timedelta(seconds=1)
    end = moment + timedelta(days=count)
    found = set()
    while (moment := cron.after(moment, UTC)) is not None and moment <= end:
        found.add(moment.date())
        moment = moment.replace(hour=23, minute=59)
    return found


def days_of_celery(days, months, weekdays, count=800):
    """Return the days on which a crontab of Celery is due: all three must match."""
    listed = (date(2025, 1, 1) + timedelta(days=number) for number in range(count))
    return {
        day
        for day in listed
        if day.day in days and day.month in months and day.isoweekday() % 7 in weekdays
    }


def test_random_crontabs_mean_the_same_days():
    rng = random.Random(4)
    kinds = {"said": 0, "refused": 0}
    for _ in range(400):
        days = _some(rng, range(1, 32))
        months = _some(rng, range(1, 13))
        weekdays = _some(rng, range(7))
        values = ({0}, {0}, days, months, weekdays)
        expected = days_of_celery(days, months, weekdays)
        try:
            expression = crontabs.expression_of(values, values)
        except crontabs.NoExpression:
            kinds["refused"] += 1
            continue
        kinds["said"] += 1
        assert days_of(expression) == expected, (expression, values)
    assert kinds["said"] > 200
    assert kinds["refused"] > 20


def _some(rng, span):
    """Return all numbers, every so many, whole weeks, a range, or some."""
    numbers = list(span)
    kind = rng.randrange(5)
    if kind == 0:
        return set(numbers)
    if kind == 1:
        return set(numbers[:: rng.randrange(2, 9)])
    if kind == 2:
        weeks = rng.sample(range(5), rng.randrange(1, 4))
        return {n for n in numbers if (n - 1) // 7 in weeks} or {numbers[0]}
    if kind == 3:
        low = rng.randrange(len(numbers))
        return set(numbers[low : low + rng.randrange(1, 8)])
    return set(rng.sample(numbers, rng.randrange(1, 4)))


@pytest.mark.parametrize(
    ("texts", "expression"),
    [
        ("* * * * *", "* * * * *"),
        ("*/15 * * * *", "*/15 * * * *"),
        ("0 0-23/2 * * *", "0 0-23/2 * * *"),
        ("3-5,*/20 1 * * *", "0,3-5,20,40 1 * * *"),
        ("0 22-2 * * *", "0 0-2,22,23 * * *"),
        ("0 2 * * mon-fri", "0 2 * * 1-5"),
        ("0 2 * * monday,SUN", "0 2 * * 0,1"),
        ("0 2 * * fri-mon", "0 2 * * 0,1,5,6"),
        ("0 2 * january,jul *", "0 2 * 1,7 *"),
        ("0 2 1 */3 *", "0 2 1 */3 *"),
        ("0 2 1-31 * 1", "0 2 * * 1"),
        ("0 2 1 * 0-6", "0 2 1 * *"),
        ("0 8 1-7 * mon", "0 8 * * 1#1"),
        ("0 8 1-7,15-21 * 1,3", "0 8 * * 1#1,3#1,1#3,3#3"),
        ("0 8 29-31 * 5", "0 8 * * 5#5"),
        ("0 8 */2 * 1-5", "0 8 */2 * 1-5"),
        ("0 8 1,15 * */3", "0 8 1,15 * */3"),
        ("0, 30 2 * * *", None),
    ],
)
@needs_celery
def test_a_crontab_of_celery_in_our_words(texts, expression):
    schedules = importlib.import_module("celery.schedules")
    parts = ["0, 30", "2", "*", "*", "*"] if expression is None else texts.split()
    minute, hour, day, month, weekday = parts
    crontab = schedules.crontab(minute, hour, weekday, day, month)
    found = Found("x", "y")
    celery_beat.read_schedule(found, crontab, "Asia/Tokyo")
    assert found.problem == ""
    assert found.when == (expression or "0,30 2 * * *")
    assert found.options["tz"] == "Asia/Tokyo"
    assert found.was == f"{texts.replace(', ', ',')} (Asia/Tokyo)"
    # Its minutes and hours are those that Celery made of it.
    times = {divmod(n, 60) for n in range(1440) if _matches(found.when, n)}
    assert times == set(itertools.product(crontab.hour, crontab.minute))


def _matches(expression, minute):
    """Say whether an expression, on whatever day, is due at a minute of the day."""
    first, second, *_ = expression.split()
    moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    due = Cron(f"{first} {second} * * *").after(moment - timedelta(seconds=1), UTC)
    return due == moment


@needs_celery
def test_a_crontab_of_numbers_instead_of_texts():
    schedules = importlib.import_module("celery.schedules")
    found = Found("x", "y")
    crontab = schedules.crontab(minute=[0, 30], hour=range(8, 18), day_of_week={1, 2, 3, 4, 5})
    celery_beat.read_schedule(found, crontab, "UTC")
    assert found.when == "0,30 8-17 * * 1-5"
    assert found.was == "0,30 8,9,10,11,12,13,14,15,16,17 * * 1,2,3,4,5 (UTC)"


# Beat's dictionary


def test_a_plan_is_shown_first_and_then_written(plan):
    plan(
        tick={"schedule": 90, "options": {"queue": "emails", "expires": 30.5}},
        sum={"task": "tests.tasks.add", "schedule": timedelta(hours=1), "args": (1, 2)},
    )
    code, out, err = run_import("celery-beat", "--dry-run")
    assert code == 0
    assert out.splitlines()[0].split() == ["schedule", "task", "was", "becomes", "next", "result"]
    assert "tick      tests.tasks.nothing  every 90 seconds  every 90 seconds  " in out
    assert out.endswith("\n2 schedules: 2 would be added.\n")
    assert err == "A dry run: nothing is written.\n"
    assert not Schedule.objects.exists()
    code, out, err = run_import("celery-beat")
    assert code == 0
    assert out.endswith("\n2 schedules: 2 added.\n")
    assert err == "Stop the old scheduler: until then both enqueue.\n"
    assert written() == [("sum", "every 1 hour", "UTC"), ("tick", "every 90 seconds", "UTC")]
    rows = Schedule.objects.in_bulk(field_name="name")
    assert (rows["sum"].args, rows["sum"].kwargs) == ([1, 2], {})
    assert (rows["tick"].queue_name, rows["tick"].expires) == ("emails", 30.5)
    assert {row.source for row in rows.values()} == {"admin"}
    assert {(row.missed, row.overlap) for row in rows.values()} == {("once", "allow")}
    assert all(row.next_due_at for row in rows.values())


def test_what_can_not_be_mapped_is_named_and_the_rest_imported(plan):
    plan(
        good={},
        fast={"schedule": 0.5},
        endless={"schedule": float("inf")},
        gone={"task": "tests.tasks.nothin"},
        renamed={"task": "send-mail"},
        plain={"task": "math.copysign"},
        more={"args": [1]},
        number={"args": 5},
        date={"task": "tests.tasks.add", "args": [1, date(2025, 1, 1)]},
        queue={"options": {"queue": "celery"}},
        mine={"schedule": types.SimpleNamespace()},
        **{"long" * 50: {}},
    )
    code, facts, _ = imported("celery-beat")
    assert code == 1
    reasons = {name: fact["reason"] for name, fact in facts.items() if fact["reason"]}
    assert reasons["fast"].startswith("An interval is at least 1 second, in whole seconds")
    assert reasons["endless"] == "That is no interval."
    assert reasons["gone"] == (
        "There is no task 'tests.tasks.nothin'. Did you mean 'tests.tasks.nothing'? "
        "Name the task: --map tests.tasks.nothin=PATH."
    )
    assert reasons["renamed"].startswith("There is no task 'send-mail'. Name the task: --map send-")
    assert reasons["plain"].startswith("'math.copysign' is no task. Put @task above it")
    assert "nothing() takes" in reasons["more"]
    assert reasons["number"].startswith("Its arguments or options can't be read: ")
    assert "is a date, which JSON can't hold" in reasons["date"]
    assert reasons["queue"].endswith("Add it to QUEUES, or: --map-queue celery=NEW.")
    assert reasons["mine"] == ("Only its class, types.SimpleNamespace, knows when it is due.")
    assert reasons["long" * 50] == "name has at most 150 characters."
    assert [name for name, *_ in written()] == ["good"]
    _, out, _ = run_import("celery-beat")
    assert "\nNot mapped:\n  fast: An interval is at least" in out
    assert out.endswith(
        f"\n{len(facts)} schedules: 1 left as they are, {len(reasons)} not mapped.\n"
    )


def test_names_of_tasks_and_queues_are_mapped(plan):
    plan(
        a={"task": "send-mail", "options": {"queue": "celery"}},
        b={"task": "old.path", "options": {"queue": "slow"}},
        c={"task": "old.other"},
    )
    arguments = [
        "--map", "send-mail=tests.tasks.nothing", "--map", "old.path=tests.tasks.nothing",
        "--map", "old.other=tests.tasks.noting", "--map-queue", "celery=",
        "--map-queue", "slow=reports", "--map", "old.pth=x", "--map-queue", "sloow=x",
    ]  # fmt: skip
    code, facts, err = imported("celery-beat", *arguments)
    assert code == 1
    assert facts["a"]["was"]["task"] == "send-mail"
    assert facts["a"]["becomes"]["task_path"] == "tests.tasks.nothing"
    assert facts["c"]["reason"] == (
        "There is no task 'tests.tasks.noting' (of --map). Did you mean 'tests.tasks.nothing'?"
    )
    rows = Schedule.objects.in_bulk(field_name="name")
    assert [rows[name].queue_name for name in "ab"] == ["", "reports"]
    assert err.splitlines()[:2] == [
        "--map old.pth: nothing has that name. Did you mean 'old.path'?",
        "--map-queue sloow: nothing has that name. Did you mean 'slow'?",
    ]
    _, out, _ = run_import("celery-beat", *arguments[:8])
    assert "send-mail -> tests.tasks.nothing" in out


def test_what_gets_lost_is_noted(plan):
    plan(
        x={
            "options": {
                "priority": 3, "headers": {"a": 1}, "routing_key": "k", "exchange": None,
                "queue": types.SimpleNamespace(name="reports"),
                "expires": datetime(2030, 1, 1, tzinfo=UTC),
            },
            "relative": True,
            "enabled": True,
        },
        y={"options": {"priority": "high"}},
        z={"options": {"priority": 255}},
    )  # fmt: skip
    code, facts, _ = imported("celery-beat")
    assert code == 0
    assert facts["x"]["notes"] == [
        "Priority 3: here the highest number goes first, as with RabbitMQ, and not the lowest, "
        "as with Redis.",
        "Lost: headers, routing_key.",
        "Lost: enabled.",
    ]
    assert facts["y"]["notes"] == ["Lost: priority."]
    assert facts["z"]["notes"][0].startswith("Priority 255 becomes 100: ")
    rows = Schedule.objects.in_bulk(field_name="name")
    assert [rows[name].priority for name in "xyz"] == [3, None, 100]
    assert rows["x"].queue_name == "reports"
    assert rows["x"].end_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_what_is_there_stays_unless_update_is_given(plan):
    plan(a={}, b={"schedule": 30})
    run_import("celery-beat", "--disabled")
    assert not Schedule.objects.filter(enabled=True).exists()
    Schedule.objects.filter(name="a").update(enabled=True)
    plan(a={"schedule": 120}, b={"schedule": 30}, c={})
    code, facts, _ = imported("celery-beat")
    assert code == 0
    assert [facts[name]["status"] for name in "abc"] == ["exists", "exists", "new"]
    assert facts["a"]["reason"] == "There is a schedule of this name. --update would change it."
    assert written()[0] == ("a", "every 1 minute", "UTC")
    code, facts, err = imported("celery-beat", "--update", "--disabled")
    assert [facts[name]["status"] for name in "abc"] == ["updated", "unchanged", "unchanged"]
    assert err == ""
    assert written()[0] == ("a", "every 2 minutes", "UTC")
    # Who enabled or disabled one here has the last word.
    enabled = Schedule.objects.order_by("name").values_list("name", "enabled")
    assert list(enabled) == [("a", True), ("b", False), ("c", True)]


def test_what_code_declares_is_not_touched(plan):
    plan(a={"schedule": 120})
    run_import("celery-beat")
    Schedule.objects.update(source="code", source_detail="shop.tasks")
    plan(a={"schedule": 60})
    code, facts, _ = imported("celery-beat")
    assert (code, facts["a"]["status"]) == (0, "exists")
    assert facts["a"]["reason"] == "It is declared in shop.tasks."
    code, facts, _ = imported("celery-beat", "--update")
    assert (code, facts["a"]["status"]) == (1, "not mapped")
    assert facts["a"]["reason"] == "A schedule in shop.tasks has the name."
    assert written() == [("a", "every 2 minutes", "UTC")]


def test_all_are_written_or_none(plan, monkeypatch):
    plan(a={}, b={})
    save = Schedule.save

    def save_first(self, **kwargs):
        if self.name == "b":
            # Another process was faster.
            Schedule.objects.bulk_create([Schedule(name="b", expression="@daily", time_zone="UTC")])
        save(self, **kwargs)

    monkeypatch.setattr(Schedule, "save", save_first)
    code, message = refused("celery-beat")
    assert code == 1
    assert message == (
        "Somebody else changes schedules at the same time. Nothing is written; try again."
    )
    assert not Schedule.objects.exists()


def test_the_entry_that_beat_adds_itself_is_not_needed(plan):
    plan(**{"celery.backend_cleanup": {"task": "celery.backend_cleanup"}})
    code, out, err = run_import("celery-beat")
    assert code == 0
    assert "\nLeft out:\n  celery.backend_cleanup: Workers delete old results" in out
    assert out.endswith("\n1 schedule: 1 over.\n")
    assert err == ""


@pytest.mark.parametrize("entry", [None, {}, {"schedule": 5}, "x"])
def test_an_entry_that_is_none_is_named(entry):
    found = celery_beat.found_of("x", entry, "UTC")
    assert found.problem == "The entry is no dictionary with a task."


def test_the_old_name_of_the_setting_is_known(settings, transactional_db):
    settings.CELERYBEAT_SCHEDULE = {"x": {"task": "tests.tasks.nothing", "schedule": 5}}
    assert run_import("celery-beat")[0] == 0
    assert written() == [("x", "every 5 seconds", "UTC")]


@pytest.mark.parametrize(
    ("given", "zone"),
    [
        ({}, "UTC"),
        ({"CELERY_TIMEZONE": "Asia/Tokyo"}, "Asia/Tokyo"),
        ({"CELERY_ENABLE_UTC": False}, "Europe/Berlin"),
    ],
)
def test_the_zone_is_that_of_celery(settings, given, zone):
    settings.TIME_ZONE = "Europe/Berlin"
    for name, value in given.items():
        setattr(settings, name, value)
    assert celery_beat.zone_of_settings() == zone


def test_a_zone_without_a_name_is_that_of_django(settings):
    from zoneinfo import ZoneInfo

    settings.TIME_ZONE = "Europe/Berlin"
    assert zone_name(ZoneInfo("Asia/Tokyo")) == "Asia/Tokyo"
    assert zone_name(types.SimpleNamespace(zone="Asia/Tokyo")) == "Asia/Tokyo"
    assert zone_name(UTC) == "UTC"
    assert zone_name(types.SimpleNamespace()) == "Europe/Berlin"


def test_what_follows_the_sun_can_not_be_mapped():
    class solar:  # As Celery calls it.
        event, lat, lon = "sunset", 52.5, 13.4

    found = celery_beat.found_of("x", {"task": "y", "schedule": solar()}, "UTC")
    assert found.was == "sunset at 52.5, 13.4"
    assert found.problem.startswith("Nothing here follows the sun.")


@needs_celery
def test_classes_of_celery_are_told_apart(plan):
    schedules = importlib.import_module("celery.schedules")

    class Moody(schedules.crontab):
        """Due when it likes."""

    plan(
        interval={"schedule": schedules.schedule(timedelta(minutes=5))},
        cron={"schedule": schedules.crontab(0, 2)},
        mine={"schedule": Moody(0, 2)},
        own={"schedule": schedules.crontab(0, 2, nowfun=datetime.now)},
    )
    code, facts, _ = imported("celery-beat")
    assert code == 1
    assert facts["interval"]["becomes"]["expression"] == "every 5 minutes"
    assert facts["cron"]["becomes"]["expression"] == "0 2 * * *"
    assert facts["own"]["notes"] == ["Its nowfun is lost: the clock is that of UTC."]
    assert facts["mine"]["reason"].startswith("Only its class, tests.schedules.test_import.")


@needs_celery
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_the_schedule_of_an_app_of_celery(monkeypatch):
    celery = importlib.import_module("celery")
    schedules = importlib.import_module("celery.schedules")
    app = celery.Celery("made_up", set_as_current=False)
    app.conf.timezone = "Asia/Tokyo"
    app.conf.beat_schedule = {
        "a": {"task": "tests.tasks.nothing", "schedule": schedules.crontab(0, 2)}
    }

    @app.on_after_configure.connect(weak=False)
    def add_more(sender, **kwargs):
        job = sender.signature("tests.tasks.add", args=(1,), kwargs={"b": 2})
        sender.add_periodic_task(30.0, job, name="b", queue="emails")

    module = types.ModuleType("made_up_celery")
    module.app = app
    monkeypatch.setitem(sys.modules, "made_up_celery", module)
    assert run_import("celery-beat", "--app", "made_up_celery:app")[0] == 0
    assert written() == [("a", "0 2 * * *", "Asia/Tokyo"), ("b", "every 30 seconds", "Asia/Tokyo")]
    row = Schedule.objects.get(name="b")
    assert (row.args, row.kwargs, row.queue_name) == ([1], {"b": 2}, "emails")
    code, message = refused("celery-beat", "--app", "made_up_celery:nope")
    assert code == 2
    assert message.startswith("--app made_up_celery:nope can't be used: ")


# Nothing to read


def test_a_missing_library_or_setting_is_named(db):
    code, message = refused("celery-beat")
    assert code == 2
    assert message == (
        "The settings have neither CELERY_BEAT_SCHEDULE nor CELERYBEAT_SCHEDULE. If Beat's "
        "schedule belongs to an app of Celery, name that: --app proj.celery:app"
    )
    for source, app in (("django-celery-beat", "django_celery_beat"), ("django-q2", "django_q")):
        code, message = refused(source)
        assert code == 2
        assert message.startswith(f"{app} is not in INSTALLED_APPS")


def test_without_celery_an_app_of_it_can_not_be_read(db, monkeypatch):
    monkeypatch.setitem(sys.modules, "celery.app.utils", None)
    code, message = refused("celery-beat", "--app", "x:y")
    assert (code, message) == (2, "Celery is not installed: pip install celery")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["celery-beat", "--map", "x"], "--map is written OLD=NEW, not 'x'."),
        (["celery-beat", "--map", "x="], "--map is written OLD=NEW, not 'x='."),
        (["celery-beat", "--map-queue", "=x"], "--map-queue is written OLD=NEW, not '=x'."),
        (["django-q2", "--app", "x"], "--app belongs to celery-beat only."),
    ],
)
def test_wrong_options_are_refused(arguments, text):
    assert refused(*arguments) == (2, text)


def test_an_unknown_source_is_refused():
    with pytest.raises(CommandError, match="invalid choice: 'cron'"):
        call_command("bgtasks", "import", "cron")


def test_no_library_is_imported_with_the_commands():
    script = (
        "import sys, django\n"
        "django.setup()\n"
        "import django_bgtasks.management.subcommands\n"
        "print([n for n in ('celery', 'django_q', 'django_celery_beat') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_each_source_says_what_it_reads():
    assert set(importing.SOURCES) == {"celery-beat", "django-celery-beat", "django-q2"}
    assert all(module.TITLE for module in importing.SOURCES.values())


# Tables of the libraries


@pytest.mark.skipif(
    not any(map(find_spec, ("django_q", "django_celery_beat"))),
    reason="Neither django-q2 nor django-celery-beat is installed.",
)
def test_real_tables_are_imported(tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-W", "default",
            "--ds", "tests.schedules.import_settings", "tests/schedules/import_cases.py",
        ],
        cwd=ROOT,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
            "BGTASKS_IMPORT_DATABASE": str(tmp_path / "import.sqlite3"),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
