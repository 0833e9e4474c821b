"""What the command line answers to wrong input, and its exit codes."""

import getpass
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, connections

from django_bgtasks.management.commands.runworker import seconds, size
from django_bgtasks.management.subcommands import check, pause, queues
from django_bgtasks.models import FinishedTask, Queue, QueuedTask
from tests import factories
from tests.tasks import add, nothing

DATABASE = "django_bgtasks.DatabaseBackend"

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, **env):
    """Run a command of the tests' project; return exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["defualt"], "Unknown queue 'defualt'. Did you mean 'default'? Configured: default,"),
        (["-x", "emial"], "Unknown queue 'emial'. Did you mean 'emails'?"),
        (["-x", "default", "-x", "emails", "-x", "reports"], "No queue is left to serve."),
        (["--backend", "nope"], "The connection 'nope' doesn't exist. Aliases in TASKS: default."),
    ],
)
def test_wrong_arguments_are_answered_with_what_to_type(arguments, text):
    with pytest.raises(CommandError) as caught:
        call_command("runworker", *arguments, "--check")
    assert text in str(caught.value)
    assert caught.value.returncode == 2


@pytest.mark.django_db(databases="__all__")
def test_check_says_what_would_be_served():
    out = StringIO()
    call_command("runworker", "--check", stdout=out)
    assert "tasks known, queues default, emails, reports." in out.getvalue()
    out = StringIO()
    call_command("bgtasks", "worker", "emails", "--check", stdout=out)
    assert "queues emails." in out.getvalue()


@pytest.mark.django_db(databases="__all__")
def test_a_variable_with_a_wrong_value_is_named(monkeypatch):
    monkeypatch.setenv("BGTASKS_PROCESSES", "many")
    with pytest.raises(CommandError, match="BGTASKS_PROCESSES: 'many' is no whole number"):
        call_command("runworker", "--check")


@pytest.mark.django_db(databases="__all__")
def test_an_unknown_log_format_in_the_variable_is_named(monkeypatch):
    monkeypatch.setenv("BGTASKS_LOG_FORMAT", "yaml")
    with pytest.raises(CommandError, match="'yaml' is none of auto, pretty, text, json"):
        call_command("runworker", "--check")


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize(
    "command",
    [["prune"], ["bench"], ["worker"], ["pause", "emails"], ["resume", "emails"], ["queues"]],
    ids=lambda command: command[0],
)
def test_an_unknown_backend_is_answered_with_the_known_ones(command):
    with pytest.raises(CommandError, match=r"'nope' doesn't exist\. Aliases in TASKS: default"):
        call_command("bgtasks", *command, "--backend", "nope")


def test_durations_and_sizes_are_read_with_their_units():
    assert [seconds(t) for t in ("90", "90s", "15m", "1h", "7d")] == [90, 90, 900, 3600, 604800]
    assert [size(t) for t in ("1000", "512M", "2G", "8kb")] == [1000, 2**29, 2**31, 8192]


@pytest.mark.processes
def test_a_database_that_is_away_ends_with_exit_code_3():
    if connection.vendor == "sqlite":
        pytest.skip("SQLite's database is a file.")
    url = {
        "postgresql": "postgres://nobody@127.0.0.1:1/none",
        "mysql": "mysql://nobody@127.0.0.1:1/none",
    }[connection.vendor]
    code, output = run("runworker", "--burst", DATABASE_URL=url)
    assert code == 3
    assert "Database 'default' can't be reached" in output


@pytest.mark.processes
def test_a_database_without_tables_ends_with_exit_code_3(tmp_path):
    code, output = run(
        "runworker", "--burst", DATABASE_URL="sqlite:///unused", BGTASKS_TEST_TAG=f"-{os.getpid()}"
    )
    assert code == 3
    assert "do not exist in database 'default'. Run: python manage.py migrate" in output


@pytest.mark.django_db(transaction=True)
def test_prune_counts_first_and_then_deletes():
    nothing.enqueue().cancel()
    out = StringIO()
    call_command("bgtasks", "prune", "--failed", "0", "--dry-run", stdout=out)
    assert "1 result would be pruned." in out.getvalue()
    assert FinishedTask.objects.count() == 1
    call_command("bgtasks", "prune", "--failed", "0", stdout=out)
    assert "Pruned 1 result in" in out.getvalue()
    assert not FinishedTask.objects.exists()


def bgtasks(*arguments):
    """Call a sub-command; return what it wrote."""
    out = StringIO()
    call_command("bgtasks", *arguments, stdout=out)
    return out.getvalue()


# pause, resume, queues


@pytest.mark.django_db(databases="__all__")
def test_pause_and_resume_say_what_they_did():
    said = bgtasks("pause", "emails", "--reason", "The provider is down.")
    assert said == (
        "Queue 'emails' is paused. To resume it, type: manage.py bgtasks resume emails\n"
    )
    row = Queue.objects.get()
    assert (row.paused_by, row.reason) == (getpass.getuser(), "The provider is down.")
    said = bgtasks("pause", "emails")
    assert said.startswith("Queue 'emails' was paused already. Since ")
    assert said.endswith(f" UTC by {getpass.getuser()}: The provider is down.\n")
    assert bgtasks("resume", "emails") == "Queue 'emails' goes on.\n"
    assert bgtasks("resume", "emails") == "Queue 'emails' was not paused.\n"


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_queue_is_answered_with_the_one_that_was_meant(command):
    with pytest.raises(CommandError, match=r"Unknown queue 'emial'\. Did you mean 'emails'") as e:
        bgtasks(command, "emial")
    assert e.value.returncode == 2


@pytest.mark.django_db(databases="__all__")
def test_a_user_without_a_name_is_named_by_the_number(monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert pause.operator() == f"uid {os.getuid()}"


@pytest.fixture
def four_states(transactional_db):
    """One task in each state, and one more that is ready, in the queue emails."""
    mail = nothing.using(queue_name="emails")
    mail.enqueue()
    factories.claim(["emails"])
    mail.using(delay=3600).enqueue()
    parked = mail.enqueue()
    QueuedTask.objects.filter(pk=parked.id).update(status="WAITING")
    mail.enqueue_many([(), ()])


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("four_states")
def test_queues_shows_counts_and_pauses():
    bgtasks("pause", "reports", "--reason", "why\x1b[2J not")
    lines = bgtasks("queues").splitlines()
    assert lines[0].split() == ["queue", "ready", "scheduled", "waiting", "running", "paused"]
    table = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert list(table) == ["default", "emails", "reports"]
    assert table["emails"] == ["2", "1", "1", "1"]
    assert table["reports"][:5] == ["0", "0", "0", "0", "since"]
    assert lines[3].endswith(f"UTC by {getpass.getuser()}: why\\x1b[2J not")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("four_states")
def test_queues_counts_no_further_than_it_must(monkeypatch):
    monkeypatch.setattr(queues, "MOST", 1)
    assert "emails      1+ " in bgtasks("queues")
    found = {facts["name"]: facts for facts in json.loads(bgtasks("queues", "--json"))}
    assert found["emails"] == {
        "database": "default",
        "name": "emails",
        "paused_at": None,
        "paused_by": "",
        "reason": "",
        "ready": 1,
        "scheduled": 1,
        "waiting": 1,
        "running": 1,
        "capped": ["ready"],
    }


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_queues_shows_queues_of_tasks_that_nobody_has_configured():
    nothing.enqueue()
    QueuedTask.objects.update(queue_name="forgotten")
    assert "forgotten" in bgtasks("queues")


# check


@pytest.fixture
def checked(transactional_db, monkeypatch):
    """Return what runs bgtasks check; it returns the exit code and the report."""
    # The tests' MariaDB and SQLite may be warned of; that is not what is tested.
    monkeypatch.setattr(check.checks, "ask_database", lambda alias: [])
    monkeypatch.setattr(check.checks, "check_commands", list)
    # Paths that other tests have looked up, with aliases of their own.
    monkeypatch.setattr(check.registry, "_found", {})

    def run_it(*arguments):
        out = StringIO()
        code = 0
        try:
            call_command("bgtasks", "check", *arguments, stdout=out)
        except SystemExit as ended:
            code = ended.code
        return code, out.getvalue()

    return run_it


def report_of(checked):
    code, text = checked("--json")
    report = json.loads(text)
    assert report["ok"] is (code == 0)
    return {(f["cause"], f["subject"]): f for f in report["findings"]}


def move(result, **changes):
    QueuedTask.objects.filter(pk=result.id).update(**changes)
    return result.id


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_finds_good_what_can_run(checked):
    add.enqueue_many([(1, 2), {"a": 1, "b": 2}])
    nothing.using(delay=60).enqueue()
    assert checked() == (0, "All is well: 3 tasks looked at.\n")
    assert report_of(checked) == {}


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_finds_all_at_once(checked, settings):
    key = Fernet.generate_key().decode()
    settings.TASKS = {"default": {"BACKEND": DATABASE, "OPTIONS": {"ENCRYPTION_KEYS": [key]}}}
    sealed = nothing.enqueue()
    settings.TASKS = {
        "default": {
            "BACKEND": DATABASE,
            "QUEUES": ["default", "emails"],
            "OPTIONS": {"QQQ": 1, "ALIASES": {"shop.renamed": "tests.tasks.add"}},
        }
    }
    gone = [move(nothing.enqueue(), task_path="shop.gone") for _ in range(4)]
    fewer = move(add.enqueue(1, 2), args=[1])
    more = move(add.enqueue(1, 2), task_path="shop.renamed", kwargs={"c": 3})
    move(add.enqueue(1, 2), task_path="shop.renamed")
    unserved = move(nothing.enqueue(), queue_name="email")
    found = report_of(checked)
    assert {cause for cause, _ in found} == {
        "settings", "task", "arguments", "encryption", "queue",
    }  # fmt: skip
    assert found["task", "shop.gone"]["count"] == 4
    assert found["task", "shop.gone"]["examples"] == sorted(gone)[:3]
    assert found["task", "shop.gone"]["text"].startswith("No task 'shop.gone'. Was it renamed?")
    assert found["arguments", "tests.tasks.add"]["examples"] == [fewer]
    assert found["arguments", "tests.tasks.add"]["text"] == (
        "tests.tasks.add: add() missing 1 required argument: 'b'."
    )
    assert found["arguments", "shop.renamed"]["examples"] == [more]
    assert found["encryption", "tests.tasks.nothing"]["examples"] == [sealed.id]
    assert found["queue", "email"]["examples"] == [unserved]
    assert "Did you mean 'emails'?" in found["queue", "email"]["text"]
    (unknown,) = [f for f in found.values() if f["cause"] == "settings"]
    assert unknown["text"].startswith("bgtasks.E002: Unknown option 'QQQ'")
    code, text = checked()
    assert code == 1
    assert "Tasks that this code doesn't have:\n  No task 'shop.gone'." in text
    assert f"      for example {', '.join(sorted(gone)[:3])}, ...\n" in text
    assert text.endswith("6 findings, 9 tasks looked at.\n")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_reads_the_rows_in_chunks(checked, monkeypatch):
    monkeypatch.setattr(check, "CHUNK", 4)
    nothing.enqueue_many([()] * 10)
    QueuedTask.objects.update(task_path="shop.gone")
    assert report_of(checked)["task", "shop.gone"]["count"] == 10


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_takes_no_more_memory_for_more_kinds_of_findings(checked, monkeypatch):
    monkeypatch.setattr(check, "MOST", 2)
    for number in range(5):
        move(nothing.enqueue(), task_path=f"shop.gone_{number}")
    found = report_of(checked)
    assert [f["count"] for f in found.values()] == [1, 1, 3]
    assert found["task", ""]["text"] == "More than 2 others of this kind:"


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_asks_each_backend_of_a_database_for_its_own_queues(checked, settings):
    settings.TASKS = {
        "default": {"BACKEND": DATABASE, "QUEUES": ["default"]},
        "second": {
            "BACKEND": DATABASE,
            "QUEUES": ["reports"],
            "OPTIONS": {"ALIASES": {"shop.renamed": "tests.tasks.nothing"}},
        },
    }
    move(nothing.enqueue(), task_path="shop.renamed", queue_name="reports")
    assert report_of(checked) == {}


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_goes_on_after_a_module_that_cannot_be_imported(checked, settings):
    settings.TASKS = {
        "default": {"BACKEND": DATABASE, "OPTIONS": {"TASK_MODULES": ["no_such_module"]}}
    }
    gone = move(nothing.enqueue(), task_path="shop.gone")
    found = report_of(checked)
    assert "No module named 'no_such_module'" in found["settings", "modules"]["text"]
    assert found["task", "shop.gone"]["examples"] == [gone]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_heeds_what_is_silenced(checked, settings):
    settings.TASKS = {"default": {"BACKEND": DATABASE, "OPTIONS": {"QQQ": 1}}}
    assert checked()[0] == 1
    settings.SILENCED_SYSTEM_CHECKS = ["bgtasks.E002"]
    assert checked()[0] == 0


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_names_migrations_that_are_not_applied(checked):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'bgtasks' AND name LIKE '0006%'")
    try:
        found = report_of(checked)
    finally:
        call_command("migrate", "bgtasks", fake=True, verbosity=0)
    text = found["database", "migrations"]["text"]
    assert text.startswith("Database 'default' lacks migrations of bgtasks: 0006_schedule_corners")
    assert found["database", "migrations"]["hint"] == "Type: python manage.py migrate bgtasks"


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_check_names_a_database_that_cannot_be_reached(checked, monkeypatch):
    def away(self):
        raise DatabaseError("no route to host")

    monkeypatch.setattr(type(connections["default"]), "ensure_connection", away)
    found = report_of(checked)
    assert found["database", "default"]["text"] == (
        "Database 'default' can't be reached: no route to host"
    )


def test_the_help_of_check_says_when_to_use_it():
    assert check.HELP.startswith("Before a deploy")
