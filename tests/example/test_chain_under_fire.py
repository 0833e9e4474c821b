"""The chain of an upload, with SIGKILL of the child that runs each of its steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["download_orders", "split_orders", "import_rows", "write_report", "send_report_mail"]


def upload(tmp_path, step, moment):
    """Have one upload go through; return what came of it."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.example.one_upload"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'example_project'}",
            "DJANGO_SETTINGS_MODULE": "tests.example.killing",
            "DATA_DIR": str(tmp_path),
            "DATABASE_URL": "",
            "EMAIL_HOST": "",
            "STEP": step,
            "MOMENT": moment,
            "MARK": str(tmp_path / "killed"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    sys.stdout.write(f"{step}, {moment}: {process.stdout}\n")
    return json.loads(process.stdout)


@pytest.mark.processes
@pytest.mark.skipif(
    bool(os.environ.get("DATABASE_URL")), reason="The example runs on SQLite, once is enough."
)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_chain_completes_when_a_step_is_killed(tmp_path, step, moment):
    assert upload(tmp_path, step, moment) == {
        "state": "SUCCESSFUL",
        "orders": 3465,
        "bad_rows": 35,
        # Each part is stored once, whatever became of the process.
        "rows_read": 3500,
        "report": True,
        # mailed_at was written before the process died: a second run sends nothing.
        "mails": 1,
        "lost": [f"shop.tasks.{step}"],
        "killed": True,
    }


@pytest.mark.processes
@pytest.mark.skipif(
    bool(os.environ.get("DATABASE_URL")), reason="The example runs on SQLite, once is enough."
)
def test_later_steps_never_run_and_a_retry_in_the_admin_finishes_the_chain(tmp_path):
    outcome = upload(tmp_path, "write_report", "fail")
    states = outcome.pop("failed")
    assert states.pop("write_report") == [
        "FAILED",
        "RuntimeError: The partner's server is down.",
    ]
    state, reason = states.pop("send_report_mail")
    assert state == "CANCELLED"
    assert reason.startswith("Skipped: write_report ")
    assert {state for state, _ in states.values()} == {"SUCCESSFUL"}
    assert not outcome.pop("report_then")
    assert outcome.pop("page")
    assert outcome == {
        "says": ["1 task will be retried. 1 task that was skipped because of that waits again."],
        "state": "SUCCESSFUL",
        "orders": 3465,
        "bad_rows": 35,
        "rows_read": 3500,
        "report": True,
        "mails": 1,
        "lost": [],
        "killed": True,
    }
