"""Workers whose signals leave a trace."""

from tests.processes.settings import *  # noqa: F403

TASKS["default"]["OPTIONS"]["TASK_MODULES"] = ["tests.processes.receivers"]  # noqa: F405
