"""
Workers whose writes don't ask for the claim any more.

The tests of the fence are run with these, too, and must fail: a test that
passes without the guard would prove nothing.
"""

from tests.processes.settings import *  # noqa: F403

# Imported by the worker once the apps are ready.
TASKS["default"]["OPTIONS"]["TASK_MODULES"] = ["tests.processes.unfenced"]  # noqa: F405
