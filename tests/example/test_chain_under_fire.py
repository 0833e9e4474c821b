"""The chain of an upload, with SIGKILL of the child that runs each of its steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["download_orders", "split_orders", "import_rows", "write_report", "send_report_mail"]


@pytest.mark.processes
@pytest.mark.skipif(
    bool(os.environ.get("DATABASE_URL")), reason="The example runs on SQLite, once is enough."
)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_chain_completes_when_a_step_is_killed(tmp_path, step, moment):
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
    sys.stdout.write(f"{step} killed {moment}: {process.stdout}\n")
    assert json.loads(process.stdout) == {
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
