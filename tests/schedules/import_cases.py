"""
Imports from real tables: tests that test_import.py runs in a process of their own.

Their apps can't be among those of the other tests, which run without them, too.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from django.apps import apps
from django.utils import timezone

from django_bgtasks.models import Schedule

from .test_import import imported, written

pytestmark = pytest.mark.django_db(databases=["default", "other"])

#: Winter, 00:30:05 of the first of December in Berlin: still November in UTC.
NEXT = datetime(2029, 11, 30, 23, 30, 5, tzinfo=UTC)
NOTHING = "tests.tasks.nothing"
LATER = datetime(2030, 1, 1, tzinfo=UTC)


# django-q2


@pytest.fixture
def add_q():
    if not apps.is_installed("django_q"):
        pytest.skip("django-q2 is not installed.")
    model = apps.get_model("django_q", "Schedule")

    def add(kind, **columns):
        columns = {"name": "x", "func": NOTHING, "next_run": NEXT, **columns}
        row = model(schedule_type=kind, **columns)
        row.save()
        # save() plans a new schedule of cron by itself.
        model.objects.filter(pk=row.pk).update(next_run=columns["next_run"])
        return row

    return add


def due(row, count):
    """Return the next due times on the clock of Berlin."""
    zone = ZoneInfo("Europe/Berlin")
    return [f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S}" for moment in row.upcoming(count)]


@pytest.mark.parametrize(
    ("kind", "columns", "when", "times"),
    [
        ("O", {}, "at 2029-11-30 23:30:05+00:00", ["2029-12-01 00:30:05"]),
        ("I", {"minutes": 7}, "every 7 minutes", ["2029-12-01 00:30:05", "2029-12-01 00:37:05"]),
        ("H", {}, "every 1 hour", ["2029-12-01 00:30:05", "2029-12-01 01:30:05"]),
        ("D", {}, "30 0 * * *", ["2029-12-01 00:30:00", "2029-12-02 00:30:00"]),
        ("W", {}, "30 0 * * 6", ["2029-12-01 00:30:00", "2029-12-08 00:30:00"]),
        ("BW", {}, "every 2 weeks", ["2029-12-01 00:30:05", "2029-12-15 00:30:05"]),
        ("M", {}, "30 0 1 * *", ["2029-12-01 00:30:00", "2030-01-01 00:30:00"]),
        ("BM", {}, "30 0 1 2,4,6,8,10,12 *", ["2029-12-01 00:30:00", "2030-02-01 00:30:00"]),
        ("Q", {}, "30 0 1 3,6,9,12 *", ["2029-12-01 00:30:00", "2030-03-01 00:30:00"]),
        ("Y", {}, "30 0 1 12 *", ["2029-12-01 00:30:00", "2030-12-01 00:30:00"]),
    ],
)
def test_each_type_of_django_q2_goes_on_where_it_was(add_q, kind, columns, when, times):
    add_q(kind, **columns)
    code, facts, _ = imported("django-q2")
    assert code == 0
    assert facts["x"]["status"] == "new"
    row = Schedule.objects.get()
    assert (row.expression, row.time_zone, row.source) == (when, "Europe/Berlin", "admin")
    assert (row.overlap, row.missed, row.enabled) == ("allow", "all", True)
    assert due(row, len(times)) == times


@pytest.mark.parametrize("kind", ["I", "H", "D", "W", "BW", "M", "BM", "Q", "Y"])
def test_the_second_run_is_that_of_django_q2_too(add_q, kind):
    """Compared with what the library itself plans; not at a change of the clocks."""
    start = datetime(2029, 11, 5, 9, 15, tzinfo=UTC)
    row = add_q(kind, minutes=20, next_run=start)
    row.refresh_from_db()
    imported("django-q2")
    first, second = Schedule.objects.get().upcoming(2)
    assert (first, second) == (start, row.calculate_next_run())


@pytest.mark.parametrize(
    ("cron", "when"),
    [
        ("0 8 * * 1-5", "0 8 * * 1-5"),
        ("0 8 */2 * 1", "0 8 1-31/2 * 1"),
        ("0 8 1 * */2", "0 8 1 * 0-6/2"),
        ("@daily", "@daily"),
    ],
)
def test_a_cron_of_django_q2_keeps_its_meaning(add_q, cron, when):
    add_q("C", cron=cron)
    imported("django-q2")
    row = Schedule.objects.get()
    assert row.expression == when
    moment = datetime(2029, 1, 1)
    theirs = croniter(cron, moment)
    ours = row.timetable
    last = moment.replace(tzinfo=UTC)
    for _ in range(200):
        last = ours.after(last, ZoneInfo("UTC"))
        assert last.replace(tzinfo=None) == theirs.get_next(datetime)


def test_what_django_q2_has_and_we_have_not_is_noted(add_q):
    add_q("D", hook="shop.hooks.done", intended_date_kwarg="day", next_run=NEXT.replace(second=0))
    add_q("H", name="y", kwargs="q_options={'timeout': 5, 'group': 'a'}", cluster="main")
    add_q("W", name="z", cluster="emails", repeats=4, next_run=NEXT.replace(second=0))
    _, facts, _ = imported("django-q2")
    assert facts["x"]["notes"] == ["Lost: hook, intended_date_kwarg."]
    assert facts["y"]["notes"] == ["Lost: group, timeout of q_options."]
    assert facts["z"]["notes"] == ["Its cluster becomes the queue 'emails'."]
    rows = Schedule.objects.in_bulk(field_name="name")
    assert [rows[name].queue_name for name in "xyz"] == ["", "", "emails"]
    assert [rows[name].max_runs for name in "xyz"] == [None, None, 4]


@pytest.mark.parametrize(
    ("day", "month_day", "note"),
    [
        (28, "28", None),
        (29, "29", "There is no run in a month without a day 29."),
        (30, "30", "There is no run in a month without a day 30."),
        (31, "L", "The 31st becomes the last day of the month."),
    ],
)
def test_the_last_days_of_a_month(add_q, day, month_day, note):
    add_q("M", next_run=datetime(2029, 12, day, 9, 0, tzinfo=UTC))
    _, facts, _ = imported("django-q2")
    assert facts["x"]["becomes"]["expression"] == f"0 10 {month_day} * *"
    assert facts["x"]["notes"] == ([note] if note else [])


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ("1, 2", "", ([1, 2], {})),
        ("'a'", "b=2", (["a"], {"b": 2})),
        ("", "{'a': [1], 'b': None}", ([], {"a": [1], "b": None})),
        ("(1, 2)", None, ([1, 2], {})),
        ("[1, 2], 3", None, ([[1, 2], 3], {})),
    ],
)
def test_arguments_of_django_q2_are_read_as_a_cluster_does(add_q, args, kwargs, expected):
    add_q("H", func="tests.tasks.add", args=args, kwargs=kwargs)
    imported("django-q2")
    row = Schedule.objects.get()
    assert (row.args, row.kwargs) == expected


def test_what_can_not_be_mapped_from_django_q2_is_named(add_q):
    add_q("H", name="call", args="print(1)")
    add_q("H", name="kwargs", kwargs="oops(")
    add_q("H", name="set", kwargs="{1, 2}")
    add_q("H", name="gone", func="tests.tasks.gone")
    add_q("H", name="plain", func="math.copysign", args="1, 2")
    add_q("C", name="seconds", cron="0 8 * * * 30")
    add_q("H", name="queue", cluster="long")
    add_q("H", name="fits not", args="1")
    code, facts, _ = imported("django-q2")
    assert code == 1
    assert {fact["status"] for fact in facts.values()} == {"not mapped"}
    reasons = {name: fact["reason"] for name, fact in facts.items()}
    assert reasons["call"].startswith("Its arguments are no literals: malformed node")
    assert reasons["kwargs"].startswith("Its arguments are no literals: ")
    assert reasons["set"] == "Its arguments are no literals: {1, 2} is no dictionary."
    assert reasons["gone"].startswith("There is no task 'tests.tasks.gone'.")
    assert reasons["plain"] == (
        "'math.copysign' is no task. Put @task above it, or name one: --map math.copysign=PATH."
    )
    assert "There is none for seconds" in reasons["seconds"]
    assert reasons["queue"].endswith("Add it to QUEUES, or: --map-queue long=NEW.")
    assert reasons["fits not"].startswith("nothing() takes ")
    assert not Schedule.objects.exists()


def test_what_is_over_in_django_q2_is_left_out(add_q):
    add_q("D", name="spent", repeats=0)
    add_q("O", name="past", next_run=datetime(2020, 1, 1, tzinfo=UTC))
    add_q("D", name="never", next_run=None)
    code, facts, _ = imported("django-q2")
    assert code == 0
    assert {name: fact["reason"] for name, fact in facts.items()} == {
        "spent": "It has no repeats left.",
        "past": "Its last due time has passed.",
        "never": "It has no next run.",
    }
    assert not Schedule.objects.exists()


def test_schedules_of_django_q2_without_names_get_some(add_q):
    add_q("D", name=None, next_run=NEXT.replace(second=0))
    second = add_q("D", name=None, next_run=NEXT.replace(second=0))
    _, facts, _ = imported("django-q2")
    assert list(facts) == [NOTHING, f"{NOTHING} ({second.pk})"]
    assert facts[NOTHING]["notes"] == []
    assert facts[f"{NOTHING} ({second.pk})"]["notes"] == [
        f"There are several {NOTHING!r}: this gets its number."
    ]


# django-celery-beat


@pytest.fixture
def beat():
    """Return functions that add rows to the tables of django-celery-beat."""
    if not apps.is_installed("django_celery_beat"):
        pytest.skip("django-celery-beat is not installed.")

    class Beat:
        def make(self, model, **columns):
            return apps.get_model("django_celery_beat", model).objects.create(**columns)

        def task(self, name="x", **columns):
            columns = {"task": NOTHING, **columns}
            return self.make("PeriodicTask", name=name, **columns)

        def cron(self, zone="America/New_York", **columns):
            columns = {"minute": "0", "hour": "2", "timezone": zone, **columns}
            return self.make("CrontabSchedule", **columns)

        def interval(self, every=1, period="days"):
            return self.make("IntervalSchedule", every=every, period=period)

    return Beat()


def test_a_crontab_of_django_celery_beat_keeps_its_zone(beat):
    beat.task(
        crontab=beat.cron(day_of_week="mon-fri", month_of_year="jan"),
        task="tests.tasks.add",
        args="[1]",
        kwargs='{"b": 2}',
        queue="emails",
        priority=4,
        expire_seconds=90,
        start_time=LATER,
        headers='{"a": 1}',
        enabled=False,
    )
    code, facts, _ = imported("django-celery-beat")
    assert code == 0
    row = Schedule.objects.get()
    assert (row.expression, row.time_zone) == ("0 2 * 1 1-5", "America/New_York")
    assert (row.task_path, row.args, row.kwargs) == ("tests.tasks.add", [1], {"b": 2})
    assert (row.queue_name, row.priority, row.expires) == ("emails", 4, 90)
    assert (row.start_at, row.enabled, row.source) == (LATER, False, "admin")
    assert (row.missed, row.overlap) == ("once", "allow")
    assert facts["x"]["was"]["when"] == "0 2 * jan mon-fri (America/New_York)"
    assert facts["x"]["notes"][1] == "Lost: headers."
    assert facts["x"]["notes"][0].startswith("Priority 4: ")


def test_an_interval_of_django_celery_beat_goes_on_where_it_was(beat):
    now = timezone.now().replace(microsecond=0)
    last = now - timedelta(hours=5, seconds=7)
    beat.task("day", interval=beat.interval(), last_run_at=last)
    beat.task("fresh", interval=beat.interval(3, "hours"))
    beat.task("later", interval=beat.interval(10, "minutes"), start_time=LATER, last_run_at=last)
    imported("django-celery-beat")
    rows = Schedule.objects.in_bulk(field_name="name")
    assert rows["day"].expression == "every 1 day"
    assert rows["day"].next_due_at == last + timedelta(days=1)
    assert (rows["fresh"].expression, rows["fresh"].start_at) == ("every 3 hours", None)
    assert rows["later"].next_due_at == LATER


def test_one_off_tasks_of_django_celery_beat(beat):
    clocked = beat.make("ClockedSchedule", clocked_time=LATER)
    past = beat.make("ClockedSchedule", clocked_time=datetime(2020, 1, 1, tzinfo=UTC))
    beat.task("clocked", clocked=clocked, one_off=True)
    beat.task("past", clocked=past, one_off=True)
    beat.task("cron", crontab=beat.cron(), one_off=True, expires=LATER)
    beat.task("has run", crontab=beat.cron(), one_off=True, total_run_count=1)
    code, facts, _ = imported("django-celery-beat")
    assert code == 0
    rows = Schedule.objects.in_bulk(field_name="name")
    assert set(rows) == {"clocked", "cron"}
    assert rows["clocked"].next_due_at == LATER
    assert (rows["cron"].max_runs, rows["cron"].end_at) == (1, LATER)
    assert facts["past"]["reason"] == "Its last due time has passed."
    assert facts["has run"]["reason"] == "It was to run once, and has run."


def test_what_can_not_be_mapped_from_django_celery_beat_is_named(beat):
    sun = beat.make("SolarSchedule", event="sunset", latitude=52, longitude=13)
    beat.task("sun", solar=sun)
    beat.task("micro", interval=beat.interval(10, "microseconds"))
    beat.task("seventh", crontab=beat.cron(day_of_week="7"))
    beat.task("both", crontab=beat.cron(day_of_week="1-5", day_of_month="1-8"))
    beat.task("args", crontab=beat.cron(), args="{}")
    beat.task("kwargs", crontab=beat.cron(), kwargs="x")
    beat.task("queue", crontab=beat.cron(), queue="celery")
    beat.task("celery.backend_cleanup", task="celery.backend_cleanup", crontab=beat.cron())
    code, facts, _ = imported("django-celery-beat")
    assert code == 1
    reasons = {name: fact["reason"] for name, fact in facts.items()}
    assert reasons.pop("celery.backend_cleanup") == "Workers delete old results by themselves."
    assert reasons["sun"].startswith("Nothing here follows the sun.")
    assert reasons["micro"].startswith("An interval is at least 1 second")
    assert reasons["seventh"] == "Celery refuses it, too: Invalid end range: 7 > 6."
    assert reasons["both"].startswith("Celery wants the day of the month and the weekday to match")
    assert reasons["args"] == "Its args are no JSON list."
    assert reasons["kwargs"].startswith("Its kwargs are no JSON: Expecting value")
    assert reasons["queue"].endswith("Add it to QUEUES, or: --map-queue celery=NEW.")
    assert {facts[name]["status"] for name in reasons} == {"not mapped"}
    assert not Schedule.objects.exists()


def test_with_the_zone_switched_off_that_of_celery_counts(beat, settings):
    settings.DJANGO_CELERY_BEAT_TZ_AWARE = False
    beat.task(crontab=beat.cron())
    imported("django-celery-beat")
    assert written() == [("x", "0 2 * * *", "UTC")]
