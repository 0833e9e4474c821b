"""The settings of workers that tests start: the database is the test's own."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, TASKS

DATABASES["default"]["NAME"] = os.environ["BGTASKS_TEST_NAME"]
TASKS["default"]["OPTIONS"].update(
    {
        "LEASE": float(os.environ.get("TEST_LEASE", "30")),
        "UNKNOWN_TASK_GRACE": float(os.environ.get("TEST_GRACE", "86400")),
        "MAX_LOST": int(os.environ.get("TEST_MAX_LOST", "3")),
        "RECYCLE_TASKS": int(os.environ["TEST_RECYCLE"]) if "TEST_RECYCLE" in os.environ else None,
    }
)
