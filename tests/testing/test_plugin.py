"""The plugin of pytest: what a project's tests get without asking."""

import os
import subprocess
import sys
import tomllib
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest

from django_bgtasks.testing import plugin
from tests.models import Effect

from . import tasks

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.django_db
def test_the_fixture_tells_what_was_enqueued(bgtasks):
    result = tasks.send_receipt.enqueue(order_id=1)
    assert bgtasks.enqueued == [result]
    assert bgtasks.assert_enqueued(tasks.send_receipt, order_id=1, queue_name="emails") == result
    bgtasks.assert_not_enqueued(tasks.charge_card)
    with pytest.raises(AssertionError, match=r"was not enqueued\.\nEnqueued: send_receipt"):
        bgtasks.assert_enqueued(tasks.charge_card)
    with pytest.raises(AssertionError, match=r"send_receipt\(\) was enqueued\."):
        bgtasks.assert_not_enqueued(tasks.send_receipt)


@pytest.mark.django_db
def test_the_fixture_runs_tasks(bgtasks):
    tasks.note.enqueue("now")
    tasks.note.using(run_after=timedelta(hours=1)).enqueue("later")
    tasks.fail.enqueue()
    assert bgtasks.run(raise_errors=False).successful == 1
    assert bgtasks.run(until=timedelta(hours=2)).successful == 1


@pytest.mark.django_db
@pytest.mark.bgtasks("inline")
def test_the_marker_runs_each_task_when_it_is_enqueued(bgtasks):
    result = tasks.note.enqueue("at once", 3)
    assert result.return_value == 3
    assert Effect.objects.filter(name="at once").exists()
    bgtasks.assert_enqueued(tasks.note, "at once")


def test_the_package_tells_pytest_of_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (path,) = project["entry-points"]["pytest11"].values()
    assert import_module(path) is plugin


def run_pytest(directory, source):
    (directory / "test_it.py").write_text(source)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "pytest", "-p", "django_bgtasks.testing.plugin"]
    # Of all that is installed, the plugin alone: what has an entry point is loaded by it.
    command += ["-p", "no:bgtasks", "-p", "no:django", "-p", "no:cacheprovider", "--strict-markers"]
    done = subprocess.run(
        [*command, "--rootdir", str(directory), "test_it.py"],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_suite_without_django_is_left_alone(tmp_path):
    code, output = run_pytest(
        tmp_path,
        "import sys\n\ndef test_nothing_of_django_is_loaded():\n"
        "    assert 'django' not in sys.modules\n",
    )
    assert code == 0, output


def test_a_marker_that_says_something_else_is_refused(tmp_path):
    code, output = run_pytest(
        tmp_path,
        "import pytest\n\n@pytest.mark.bgtasks('threads')\ndef test_it():\n    pass\n",
    )
    assert code == 1, output
    assert "@pytest.mark.bgtasks('threads'): write bgtasks(\"inline\")." in output
