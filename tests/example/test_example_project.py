"""The example project has its own settings: it is tested in processes of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def manage(tmp_path):
    """Return a function that runs manage.py of the example and returns what it printed."""

    def run(*arguments, **variables):
        kept = {
            name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"
        }
        process = subprocess.run(
            [sys.executable, "-W", "error", "example_project/manage.py", *arguments],
            cwd=ROOT,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "DATA_DIR": str(tmp_path),
                "DATABASE_URL": "",
                "EMAIL_HOST": "",
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout + process.stderr

    return run


def test_its_own_tests_pass(manage):
    assert "OK" in manage("test", "shop")


@pytest.mark.parametrize(
    "backend", ["django_bgtasks.DatabaseBackend", "django_bgtasks.ImmediateBackend"]
)
def test_settings_and_migrations_are_in_order(manage, backend):
    assert "no issues" in manage("check", TASKS_BACKEND=backend)
    assert "No changes" in manage("makemigrations", "--check", "--dry-run", TASKS_BACKEND=backend)


def test_every_setting_has_a_line_in_env_example():
    settings = (ROOT / "example_project/config/settings.py").read_text()
    example = (ROOT / "example_project/.env.example").read_text()
    names = set(re.findall(r'env(?:\.\w+)?\(\s*"([A-Z_]+)"', settings))
    assert names == set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE))


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="The demo kills processes as Unix does.")
def test_nothing_is_lost_when_workers_are_killed(manage):
    printed = manage("demo", "--rows", "20000", TASKS_LEASE="15")
    assert "Nothing is lost, nothing is there twice." in printed
