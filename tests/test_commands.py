"""What the command line answers to wrong input, and its exit codes."""

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from django_bgtasks.management.commands.runworker import seconds, size
from django_bgtasks.models import FinishedTask
from tests.tasks import nothing

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
@pytest.mark.parametrize("command", [["prune"], ["bench"], ["worker"]])
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
