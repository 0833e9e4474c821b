"""Schedules in code and settings: what is refused, what becomes rows."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from django_bgtasks import every, schedule
from django_bgtasks.compat import task_backends
from django_bgtasks.exceptions import InvalidSchedule
from django_bgtasks.models import Schedule, ScheduleRun
from django_bgtasks.schedules import declarations
from django_bgtasks.schedules.by_hand import set_enabled
from django_bgtasks.schedules.checks import check_schedules
from django_bgtasks.schedules.sync import log_changes, sync
from tests import tasks


@pytest.fixture(autouse=True)
def nothing_declared():
    kept = declarations.forget()
    yield
    declarations.forget()
    declarations._declared.update(kept)


@pytest.fixture
def backend():
    return task_backends["default"]


@pytest.fixture
def settings_schedules(backend, monkeypatch):
    """Return a function that sets OPTIONS["SCHEDULES"]."""

    def give(*items):
        monkeypatch.setattr(backend.conf, "schedules", items)

    return give


# In code


def test_schedule_gives_back_the_task_and_keeps_what_it_was_told():
    made = schedule("0 2 * * 1-5", tz="Europe/Warsaw", name="nightly", args=(7, 8))(tasks.add)
    assert made is tasks.add
    (declaration,) = declarations._declared.values()
    said = declaration.specification
    assert (said.name, said.task, said.when) == ("nightly", "tests.tasks.add", "0 2 * * 1-5")
    assert (said.tz, said.args, said.missed, said.overlap) == (
        "Europe/Warsaw",
        [7, 8],
        "once",
        "skip",
    )
    assert (declaration.where, declaration.source) == ("tests.tasks", "code")


def test_the_name_and_the_zone_may_be_left_out(settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    schedule("@daily")(tasks.nothing)
    (declaration,) = declarations._declared.values()
    assert declaration.specification.name == "tests.tasks.nothing"
    assert declaration.specification.tz == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"minutes": 15}, "every 15 minutes"),
        ({"hours": 1, "minutes": 30}, "every 90 minutes"),
        ({"weeks": 2}, "every 2 weeks"),
        ({"seconds": 1}, "every 1 second"),
    ],
)
def test_every_is_an_interval(options, text):
    every(**options)(tasks.nothing)
    assert declarations._declared["tests.tasks.nothing"].specification.when == text


def test_one_task_may_have_several_schedules():
    schedule("@daily", name="a")(schedule(timedelta(hours=1), name="b")(tasks.nothing))
    assert sorted(declarations._declared) == ["a", "b"]


def test_a_module_may_be_imported_twice():
    for _ in range(2):
        schedule("@daily")(tasks.nothing)
    assert len(declarations._declared) == 1


@pytest.mark.parametrize(
    ("when", "options", "message"),
    [
        ("61 * * * *", {}, "'61 * * * *': '61' is no minute (0 to 59)."),
        ("0 2 * *", {}, "'0 2 * *' has 4 fields, not 5: minute, hour, day of month, month, day"),
        ("* * * * * *", {}, "There is none for seconds"),
        ("0 0 30 2 *", {}, "'0 0 30 2 *' never comes: there is no such day."),
        ("every 0 seconds", {}, "'every 0 seconds' is no interval."),
        (timedelta(seconds=0.5), {}, "An interval is at least 1 second"),
        ("tomorrow", {}, "'tomorrow' says no time. Write '0 2 * * 1-5', '@daily'"),
        (None, {}, "When is it due? Write '0 2 * * 1-5'"),
        ("@daily", {"tz": "Europe/Warsow"}, "Did you mean 'Europe/Warsaw'?"),
        ("@daily", {"args": [1, 2]}, "nothing() takes 0 positional arguments but 2 were given"),
        ("@daily", {"kwargs": {"x": 1}}, "nothing() got an unexpected keyword argument 'x'"),
        ("@daily", {"missed": "twice"}, "missed must be one of 'skip', 'once', 'all'"),
        ("@daily", {"overlap": "skpi"}, "Did you mean 'skip'?"),
        ("@daily", {"max_runs": 0}, "max_runs must be a whole number of at least 1, not 0."),
        ("@daily", {"jitter": -1}, "jitter must be seconds or a timedelta"),
        ("@daily", {"expires": "soon"}, "expires must be seconds or a timedelta"),
        ("@daily", {"queue_name": "emial"}, "Did you mean 'emails'?"),
        ("@daily", {"priority": 1000}, "priority must be"),
        ("@daily", {"start": datetime(2026, 1, 1)}, "start must be an aware datetime"),
        ("@daily", {"jitter": 600, "expires": 600}, "jitter, 600 s, must be less than expires"),
        ("@daily", {"name": " nightly"}, "name has no space before or behind it"),
        ("@daily", {"name": ""}, "name must be a text of printable characters"),
        (
            "@daily",
            {
                "start": datetime(2026, 2, 1, tzinfo=UTC),
                "end": datetime(2026, 1, 1, tzinfo=UTC),
            },
            "The end, 2026-01-01 00:00+00:00, is not after the start, 2026-02-01 00:00+00:00.",
        ),
        (
            "0 0 29 2 *",
            {
                "start": datetime(2026, 1, 1, tzinfo=UTC),
                "end": datetime(2026, 12, 31, tzinfo=UTC),
                "tz": "UTC",
            },
            "'0 0 29 2 *' is never due before the end",
        ),
    ],
)
def test_what_is_wrong_is_said_while_the_module_is_imported(when, options, message):
    with pytest.raises(InvalidSchedule) as caught:
        schedule(when, **options)(tasks.nothing)
    assert message in str(caught.value)
    assert not declarations._declared


def test_schedule_keeps_the_queue_and_the_priority_that_using_gave():
    made = every(hours=1)(tasks.nothing.using(queue_name="reports", priority=5))
    assert (made.queue_name, made.priority) == ("reports", 5)
    schedule("@daily", name="own", priority=7)(tasks.nothing.using(priority=5))
    schedule("@daily", name="plain")(tasks.nothing.using(priority=tasks.nothing.priority))
    found = {name: d.specification for name, d in declarations._declared.items()}
    first = found["tests.tasks.nothing"]
    assert (first.queue_name, first.priority) == ("reports", 5)
    assert first.task_object().priority == 5
    assert (found["own"].queue_name, found["own"].priority) == (None, 7)
    assert (found["plain"].queue_name, found["plain"].priority) == (None, None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_attempts": 3}, "using(max_attempts=...)"),
        ({"delay": 60}, "using(run_after=...)"),
        ({"metadata": {"a": 1}}, "using(metadata=...)"),
    ],
)
def test_what_a_schedule_of_a_task_cannot_keep_is_refused(options, text):
    with pytest.raises(InvalidSchedule) as caught:
        every(hours=1)(tasks.nothing.using(**options))
    assert f"A schedule can't keep {text}: give it to @task." in str(caught.value)


def test_schedule_stands_above_task():
    with pytest.raises(InvalidSchedule, match="@schedule stands above @task"):
        schedule("@daily")(len)


def test_a_second_schedule_needs_a_name():
    schedule("@daily")(tasks.nothing)
    with pytest.raises(InvalidSchedule, match="Several schedules of one task need names"):
        schedule("@hourly")(tasks.nothing)


def test_a_name_is_not_taken_twice():
    schedule("@daily", name="nightly")(tasks.nothing)
    with pytest.raises(InvalidSchedule, match=r"taken by a schedule in tests\.tasks"):
        schedule("@hourly", name="nightly")(tasks.nothing)


def test_code_with_schedules_imports_where_another_backend_stands_in(settings):
    settings.TASKS = {"default": {"BACKEND": "django_bgtasks.ImmediateBackend"}}
    schedule("@daily", name="local")(tasks.nothing)
    assert "local" in declarations._declared


# In settings


def test_settings_declare_schedules(settings_schedules, backend):
    settings_schedules(
        {"task": "tests.tasks.add", "when": "@hourly", "name": "e", "args": [1, 2]},
        {"task": "tests.tasks.nothing", "when": timedelta(minutes=5), "missed": "skip"},
    )
    first, second = declarations.declared(backend)
    assert (first.specification.name, first.specification.args) == ("e", [1, 2])
    assert (second.specification.name, second.specification.when) == (
        "tests.tasks.nothing",
        "every 5 minutes",
    )
    assert second.source == "settings"
    assert second.where == "TASKS['default']['OPTIONS']['SCHEDULES'][1]"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"when": "@daily"}, "'task' is missing."),
        ({"task": "tests.tasks.nothing"}, "'when' is missing."),
        ({"task": "tests.tasks.noting", "when": "@daily"}, "Did you mean 'tests.tasks.nothing'?"),
        ({"task": "tests.tasks.nothing", "when": "0 0 30 2 *"}, "never comes"),
        ({"task": "tests.tasks.nothing", "when": "0 25 * * *"}, "'25' is no hour (0 to 23)"),
        ({"task": "tests.tasks.nothing", "when": "@daily", "tz": "Mars"}, "Unknown time zone"),
        ({"task": "tests.tasks.nothing", "when": "@daily", "args": [1]}, "takes 0 positional"),
        (
            {"task": "tests.tasks.nothing", "when": "@daily", "jitter": 60, "expires": 30},
            "jitter, 60 s, must be less than expires, 30 s",
        ),
        ({"task": "tests.tasks.nothing", "when": "@daily", "mised": 1}, "Did you mean 'missed'?"),
        (
            {
                "task": "tests.tasks.nothing",
                "when": "@daily",
                "start": datetime(2026, 2, 1, tzinfo=UTC),
                "end": datetime(2026, 1, 1, tzinfo=UTC),
            },
            "is not after the start",
        ),
    ],
)
def test_what_is_wrong_in_settings_is_said_with_its_place(
    settings_schedules, backend, item, message
):
    settings_schedules(item)
    with pytest.raises(InvalidSchedule) as caught:
        list(declarations.declared(backend))
    assert message in str(caught.value)
    assert "TASKS['default']['OPTIONS']['SCHEDULES'][0]" in str(caught.value)


def test_code_and_settings_may_not_have_the_same_name(settings_schedules, backend):
    schedule("@daily", name="nightly")(tasks.nothing)
    settings_schedules({"task": "tests.tasks.raise_error", "when": "@daily", "name": "nightly"})
    with pytest.raises(InvalidSchedule, match="have the same name"):
        list(declarations.declared(backend))


def test_a_check_names_each_item_that_is_wrong(settings_schedules):
    settings_schedules(
        {"task": "tests.tasks.nothing", "when": "@daily"},
        {"task": "tests.tasks.nothing", "when": "0 0 30 2 *", "name": "leap"},
        {"task": "tests.tasks.gone", "when": "@daily"},
        {"task": "tests.tasks.nothing", "when": "@hourly"},
    )
    found = check_schedules()
    assert [message.id for message in found] == ["bgtasks.E010"] * 3
    assert "'0 0 30 2 *' never comes" in found[0].msg
    assert "No task 'tests.tasks.gone'" in found[1].msg
    assert "have the same name, 'tests.tasks.nothing'" in found[2].msg


def test_a_check_names_two_backends_that_give_the_same_name(two_backends, monkeypatch):
    item = {"task": "tests.tasks.nothing", "when": "@daily", "name": "a"}
    for one in two_backends:
        monkeypatch.setattr(one.conf, "schedules", [item])
    (message,) = check_schedules()
    assert "TASKS['low']['OPTIONS']['SCHEDULES'][0] and TASKS['default']" in message.msg


# Rows


@pytest.mark.django_db(transaction=True)
class TestSync:
    def test_declared_schedules_become_rows(self, backend):
        schedule("@daily", name="a", tz="UTC", jitter=timedelta(minutes=1))(tasks.nothing)
        changes = sync(backend)
        assert (changes.added, changes.changed, changes.removed) == (["a"], [], [])
        row = Schedule.objects.get()
        assert (row.source, row.source_detail, row.jitter) == ("code", "tests.tasks", 60.0)
        assert row.look_at == row.next_due_at > timezone.now()

    def test_a_second_sync_changes_nothing(self, backend):
        schedule(
            "@daily",
            name="a",
            tz="UTC",
            start=datetime(2026, 1, 1, tzinfo=UTC),
            args=((1, 2), {"b": (3,)}),
        )(tasks.add)
        sync(backend)
        before = Schedule.objects.values().get()
        changes = sync(backend)
        assert not changes
        assert changes.unchanged == ["a"]
        assert Schedule.objects.values().get() == before

    def test_what_changed_is_planned_anew_from_now_on(self, backend):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(backend)
        declarations.forget()
        schedule("*/5 * * * *", name="a", tz="UTC")(tasks.nothing)
        assert sync(backend).changed == ["a"]
        row = Schedule.objects.get()
        assert row.expression == "*/5 * * * *"
        assert row.next_due_at <= timezone.now() + timedelta(minutes=5)

    def test_a_schedule_goes_when_its_line_goes(self, backend):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(backend)
        row = Schedule.objects.get()
        ScheduleRun.objects.create(
            schedule=row, due_at=timezone.now(), fired_at=timezone.now(), status="FIRED"
        )
        declarations.forget()
        assert sync(backend).removed == ["a"]
        assert not Schedule.objects.exists()

    def test_what_an_operator_disabled_stays_disabled(self, backend):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(backend)
        set_enabled(Schedule.objects.get(), False, alias="default")
        declarations.forget()
        schedule("@hourly", name="a", tz="UTC")(tasks.nothing)
        sync(backend)
        row = Schedule.objects.get()
        assert (row.expression, row.enabled, row.look_at) == ("@hourly", False, None)

    def test_what_is_declared_as_disabled_starts_disabled(self, backend):
        schedule("@daily", name="a", tz="UTC", enabled=False)(tasks.nothing)
        sync(backend)
        assert not Schedule.objects.get().enabled
        set_enabled(Schedule.objects.get(), True, alias="default")
        sync(backend)
        assert Schedule.objects.get().enabled

    def test_schedules_of_operators_are_left_alone(self, backend):
        Schedule.objects.create(
            name="a", task_path="tests.tasks.nothing", expression="@daily", time_zone="UTC"
        )
        schedule("@hourly", name="a", tz="UTC")(tasks.nothing)
        changes = sync(backend)
        assert changes.taken == ["a"]
        assert Schedule.objects.get().expression == "@daily"

    def test_a_dry_run_changes_nothing(self, backend):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        assert sync(backend, dry_run=True).added == ["a"]
        assert not Schedule.objects.exists()

    def test_a_mistake_in_the_settings_changes_nothing(self, backend, settings_schedules):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        settings_schedules({"task": "tests.tasks.nothing", "when": "never"})
        with pytest.raises(InvalidSchedule):
            sync(backend)
        assert not Schedule.objects.exists()

    def test_new_rules_of_a_time_zone_are_obeyed_from_the_next_start_on(self, backend):
        schedule("0 12 * * *", name="a", tz="Europe/Berlin")(tasks.nothing)
        sync(backend)
        right = Schedule.objects.get().next_due_at
        wrong = right + timedelta(hours=1)
        Schedule.objects.update(next_due_at=wrong, look_at=wrong)
        sync(backend)
        assert Schedule.objects.get().next_due_at == right

    def test_names_may_differ_by_the_case_of_their_letters(self, backend):
        schedule("@daily", name="nightly", tz="UTC")(tasks.nothing)
        schedule("@daily", name="Nightly", tz="UTC")(tasks.nothing)
        assert sync(backend).added == ["nightly", "Nightly"]
        assert Schedule.objects.count() == 2

    def test_schedule_whose_name_changes_its_case_is_another_one(self, backend):
        schedule("@daily", name="nightly", tz="UTC")(tasks.nothing)
        sync(backend)
        declarations.forget()
        schedule("@daily", name="Nightly", tz="UTC")(tasks.nothing)
        changes = sync(backend)
        assert (changes.added, changes.removed) == (["Nightly"], ["nightly"])
        assert Schedule.objects.get().name == "Nightly"

    def test_what_its_errors_disabled_is_tried_again(self, backend):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(backend)
        Schedule.objects.update(
            enabled=False, errors=10, error="gone", look_at=None, next_due_at=None
        )
        assert sync(backend).changed == ["a"]
        row = Schedule.objects.get()
        assert (row.enabled, row.errors, row.error) == (True, 0, "")
        assert row.look_at == row.next_due_at > timezone.now()

    def test_what_its_errors_and_then_an_operator_disabled_stays_disabled(self, backend):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(backend)
        Schedule.objects.update(
            enabled=False, errors=10, error="gone", look_at=None, next_due_at=None
        )
        assert set_enabled(Schedule.objects.get(), False, alias="default")
        assert not sync(backend)
        assert not Schedule.objects.get().enabled


@pytest.fixture
def two_backends(settings):
    """Two backends of one database, default and low, and a task of each."""
    settings.TASKS = {
        alias: {"BACKEND": "django_bgtasks.DatabaseBackend", "QUEUES": []}
        for alias in ("default", "low")
    }
    return task_backends["default"], task_backends["low"]


@pytest.mark.django_db(transaction=True)
class TestOtherBackends:
    def test_row_follows_its_backend_to_a_new_alias(self, backend):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(backend)
        set_enabled(Schedule.objects.get(), False, alias="default")
        Schedule.objects.update(backend="former")
        assert sync(backend).changed == ["a"]
        row = Schedule.objects.get()
        assert (row.backend, row.enabled) == ("default", False)

    @pytest.mark.parametrize("first", [0, 1])
    def test_row_follows_its_task_to_another_backend(self, two_backends, first):
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(two_backends[0])
        before = Schedule.objects.get()
        set_enabled(before, False, alias="default")
        declarations.forget()
        schedule("@daily", name="a", tz="UTC")(tasks.nothing.using(backend="low"))
        # Whichever worker starts first.
        assert sync(two_backends[first]).changed == ["a"]
        assert not sync(two_backends[1 - first])
        row = Schedule.objects.get()
        assert (row.pk, row.backend, row.enabled) == (before.pk, "low", False)

    def test_name_that_two_backends_give_is_said_to_be_the_others(
        self, two_backends, monkeypatch, caplog
    ):
        item = {"task": "tests.tasks.nothing", "when": "@daily", "name": "a", "tz": "UTC"}
        for one in two_backends:
            monkeypatch.setattr(one.conf, "schedules", [item])
        sync(two_backends[0])
        changes = sync(two_backends[1])
        assert changes.taken == ["a"]
        log_changes(changes)
        assert "TASKS['default']['OPTIONS']['SCHEDULES'][0] for TASKS['default']" in caplog.text
        assert "by hand" not in caplog.text
        assert Schedule.objects.get().backend == "default"

    def test_what_another_backends_module_declares_stays_where_it_is_not_read(
        self, two_backends, monkeypatch
    ):
        default, low = two_backends
        schedule("@daily", name="a", tz="UTC")(tasks.nothing)
        sync(default)
        Schedule.objects.update(source_detail="shop.far_away")
        declarations.forget()
        # The module is named by the other backend alone, and this process has not read it.
        monkeypatch.setattr(low.conf, "task_modules", ["shop.far_away"])
        assert not sync(default)
        monkeypatch.setattr(low.conf, "task_modules", [])
        assert sync(default).removed == ["a"]
