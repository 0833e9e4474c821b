"""What went wrong once, and where several things meet."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_bgtasks.cron import Cron
from django_bgtasks.exceptions import InvalidSchedule
from django_bgtasks.models import QueuedTask, Schedule, ScheduleRun
from django_bgtasks.schedules import declarations
from django_bgtasks.schedules.by_hand import backfill, set_enabled
from django_bgtasks.schedules.firing import TRIES, Scheduler
from django_bgtasks.worker.maintenance import forget_runs
from tests import policy_tasks, tasks

from .conftest import finish, runs

pytestmark = pytest.mark.django_db


def at(hour):
    return datetime(2026, 6, 1, hour, tzinfo=UTC)


def test_time_that_comes_twice_is_the_first_of_both_when_looked_back_at_too():
    berlin = ZoneInfo("Europe/Berlin")
    for hour in range(2, 24):
        moment = datetime(2026, 10, 25, hour, 10, tzinfo=UTC)
        assert Cron("30 2 * * *").before(moment, berlin) == datetime(
            2026, 10, 25, 0, 30, tzinfo=UTC
        )


@pytest.mark.parametrize("missed", ["once", "all"])
def test_missed_time_that_comes_twice_is_fired_once(add_schedule, fire, clock, missed):
    clock.now = datetime(2026, 10, 24, 12, tzinfo=UTC)
    add_schedule("30 2 * * *", time_zone="Europe/Berlin", missed=missed, overlap="allow")
    clock.now = datetime(2026, 10, 25, 13, 10, tzinfo=UTC)
    fire()
    assert runs() == [("25 00:30", "FIRED", 0)]


def made(**columns):
    columns = {"expression": "0 * * * *", "time_zone": "UTC", **columns}
    return Schedule.objects.create(name="a", task_path=tasks.nothing.module_path, **columns)


def test_late_save_after_a_disable_leaves_no_schedule_that_is_never_due():
    row = made()
    stale = Schedule.objects.get()
    set_enabled(row, False, alias="default")
    stale.priority = 5
    stale.save()
    now = Schedule.objects.get()
    assert not now.enabled or now.look_at is not None


def test_late_save_plans_by_what_it_saves():
    made()
    stale, other = Schedule.objects.get(), Schedule.objects.get()
    other.expression = "0 0 1 1 *"
    other.save()
    stale.priority = 5
    stale.save()
    row = Schedule.objects.get()
    assert row.next_due_at == row.next_after(timezone.now())


def test_row_that_was_read_in_part_is_planned_anew():
    made()
    row = Schedule.objects.defer("args", "kwargs").get()
    row.expression = "0 0 1 1 *"
    row.save()
    row = Schedule.objects.get()
    assert row.next_due_at == row.next_after(timezone.now())
    row = Schedule.objects.only("name", "enabled").get()
    row.enabled = False
    row.save(update_fields=["enabled"])
    row = Schedule.objects.get()
    assert (row.enabled, row.look_at, row.next_due_at) == (False, None, None)


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_held_runs_count(add_schedule, fire, clock, overlap):
    add_schedule(missed="all", overlap=overlap, max_runs=2)
    clock.forward(hours=5)
    for _ in range(8):
        finish(fire())
        clock.forward(seconds=2)
    assert [status for _, status, _ in runs()].count("FIRED") == 2
    assert Schedule.objects.get().next_due_at is None


def test_backfill_in_turn_neither_expires_nor_counts(add_schedule, fire):
    row = add_schedule(expires=600, max_runs=2)
    backfill(row, at(9), at(10), alias="default")
    now = timezone.now()
    for _ in range(3):
        now += timedelta(seconds=2)
        finish(fire.scheduler.fire_due(now=now).ids)
    fired = ScheduleRun.objects.filter(kind="backfill", status="FIRED")
    assert fired.count() == 2
    assert Schedule.objects.get().runs == 0


def test_run_of_a_backfill_of_long_ago_is_kept(add_schedule, fire):
    row = add_schedule(overlap="skip")
    Schedule.objects.update(last_due_at=timezone.now())
    long_ago = timezone.now() - timedelta(days=40)
    backfill(row, long_ago, long_ago + timedelta(hours=3), alias="default")
    now = timezone.now()
    for _ in range(2):
        now += timedelta(seconds=2)
        fire.scheduler.fire_due(now=now)
        forget_runs("default")
    assert QueuedTask.objects.count() == 1


def test_clock_that_goes_back_cancels_nothing(add_schedule, fire, clock):
    add_schedule(overlap="cancel")
    clock.forward(minutes=31)
    (task_id,) = fire()
    clock.back(minutes=10)
    assert fire() == []
    clock.forward(minutes=10)
    fire()
    assert QueuedTask.objects.filter(pk=task_id).exists()


def test_held_run_is_looked_at_after_the_clock_went_back(add_schedule, fire, clock):
    add_schedule("every 1 minute", overlap="queue")
    clock.forward(minutes=1)
    first = fire()
    clock.forward(minutes=1)
    fire()
    clock.forward(seconds=2)
    fire()
    clock.back(hours=5)
    fire()
    finish(first)
    clock.forward(minutes=5)
    assert fire()


def test_schedule_that_errors_disabled_fires_no_plan_with_a_backfill(add_schedule, fire, clock):
    add_schedule(overlap="skip")
    clock.forward(minutes=59)
    Schedule.objects.update(errors=TRIES - 1, task_path="tests.tasks.gone")
    fire()
    Schedule.objects.update(task_path=tasks.nothing.module_path)
    backfill(Schedule.objects.get(), at(9), at(9), alias="default")
    scheduler, now = Scheduler("default", ["default"]), timezone.now()
    for _ in range(4):
        now += timedelta(hours=1)
        finish(scheduler.fire_due(now=now).ids)
    assert not ScheduleRun.objects.filter(kind="plan").exists()
    assert ScheduleRun.objects.filter(kind="backfill", status="FIRED").count() == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "hourly"],
        ["backfill", "hourly", "--from", "2026-06-01", "--to", "2026-06-01", "--yes"],
    ],
)
def test_commands_say_which_task_has_the_unique_key(add_schedule, arguments):
    add_schedule(task_path=policy_tasks.charge.module_path, args=[7], overlap="allow")
    policy_tasks.charge.enqueue(7)
    with pytest.raises(CommandError, match="has the unique key"):
        call_command("bgtasks", "schedules", *arguments, stdout=StringIO())


def test_item_of_another_backend_is_refused():
    item = {"task": tasks.nothing.module_path, "when": "@daily", "backend": "low"}
    with pytest.raises(InvalidSchedule, match="It belongs to TASKS"):
        declarations.from_settings("default", 0, item)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"when": "every 2 hours", "start": "2026-01-01"}, "start"),
        ({"end": datetime.max.replace(tzinfo=UTC)}, "end"),
        ({"end": datetime(1, 1, 1, tzinfo=UTC)}, "end"),
        ({"start": datetime(9995, 12, 31, tzinfo=UTC)}, "start"),
        ({"when": "at 9999-12-31 23:59"}, "when"),
        ({"when": "at 0001-01-01 00:00+14:00"}, "when"),
        ({"tz": []}, "tz"),
    ],
)
def test_what_no_clock_can_be_computed_with_is_refused_in_words(changes, field):
    item = {"task": tasks.nothing.module_path, "when": "*/5 * * * *", **changes}
    with pytest.raises(InvalidSchedule) as raised:
        declarations.from_settings("default", 0, item)
    assert field in raised.value.problems


def test_ten_workers_of_an_old_version_disable_no_new_schedule(add_schedule, clock):
    add_schedule(task_path="tests.tasks.new_in_v2")
    clock.forward(minutes=30)
    for _ in range(TRIES):
        Scheduler("default", ["default"]).fire_due(now=clock.now)
    assert Schedule.objects.get().enabled
    clock.forward(minutes=15)
    Scheduler("default", ["default"]).fire_due(now=clock.now)
    assert not Schedule.objects.get().enabled


# Clocks


def test_plan_is_made_by_the_clock_of_the_database(monkeypatch):
    ahead = timezone.now() + timedelta(days=3)
    with monkeypatch.context() as patched:
        patched.setattr("django.utils.timezone.now", lambda: ahead)
        row = made(enabled=False)
        set_enabled(row, True, alias="default")
    row = Schedule.objects.get()
    assert row.next_due_at < timezone.now() + timedelta(hours=2)


@pytest.mark.parametrize("end", [None, datetime(2026, 12, 1, tzinfo=UTC)])
def test_process_that_starts_after_the_clock_was_ahead_plans_anew(add_schedule, fire, clock, end):
    add_schedule("0 0 * * *", overlap="allow", missed="skip", end_at=end)
    right = clock.now
    clock.forward(days=400)
    fire()
    clock.now = right + timedelta(hours=12)
    # Another process, which has not seen the wrong time.
    scheduler = Scheduler("default", ["default"])
    assert len(scheduler.fire_due(now=clock.now).ids) == 0
    row = Schedule.objects.get()
    assert row.next_due_at == datetime(2026, 6, 3, tzinfo=UTC)
    clock.now = row.next_due_at
    assert len(scheduler.fire_due(now=clock.now).ids) == 1
    # And a change of it is planned from now on, too.
    row.refresh_from_db()
    row.plan(clock.now)
    assert row.next_due_at == datetime(2026, 6, 4, tzinfo=UTC)


def test_what_was_planned_by_a_clock_that_was_ahead_is_planned_anew(add_schedule, clock):
    right = clock.now
    clock.forward(days=400)
    add_schedule("0 0 * * *")
    clock.now = right
    Scheduler("default", ["default"]).fire_due(now=clock.now)
    assert Schedule.objects.get().next_due_at == datetime(2026, 6, 2, tzinfo=UTC)


# Names


def test_command_finds_a_schedule_by_its_exact_name():
    made()
    with pytest.raises(CommandError, match="Unknown schedule 'A'"):
        call_command("bgtasks", "schedules", "run", "A", stdout=StringIO())


def test_schedule_of_a_backend_that_is_gone_may_be_removed():
    made(source="code", source_detail="shop.tasks", backend="former")
    call_command("bgtasks", "schedules", "remove", "a", "--yes", stdout=StringIO())
    assert not Schedule.objects.exists()


def test_command_refuses_more_jitter_than_expires():
    with pytest.raises(CommandError, match="--jitter: jitter, 600 s, must be less than expires"):
        call_command(
            "bgtasks", "schedules", "add", "a", "--task", tasks.nothing.module_path, "--when",
            "@daily", "--jitter", "10m", "--expires", "5m",
        )  # fmt: skip


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000])
def test_command_refuses_arguments_that_no_reader_takes(text):
    with pytest.raises(CommandError, match="--args is"):
        call_command(
            "bgtasks", "schedules", "add", "a", "--task", tasks.nothing.module_path, "--when",
            "@daily", "--args", text,
        )  # fmt: skip


def test_command_says_that_a_unique_key_gave_the_task_away(add_schedule):
    add_schedule(task_path=policy_tasks.import_feed.module_path, args=[7], overlap="allow")
    there = policy_tasks.import_feed.enqueue(7)
    with pytest.raises(CommandError, match=f"is not run: Task {there.id} has its unique key"):
        call_command("bgtasks", "schedules", "run", "hourly", stdout=StringIO())


def test_command_counts_no_backfill_that_a_unique_key_gave_away(add_schedule):
    add_schedule(task_path=policy_tasks.import_feed.module_path, args=[7], overlap="allow")
    out, err = StringIO(), StringIO()
    call_command(
        "bgtasks", "schedules", "backfill", "hourly", "--from", "2026-06-01 09:00", "--to",
        "2026-06-01 11:00", stdout=out, stderr=err,
    )  # fmt: skip
    assert "1 run waits to run, at once." in err.getvalue()
    assert err.getvalue().count("has its unique key") == 2
