"""Nothing is made for listeners that don't listen."""

import logging

import pytest

from django_bgtasks.compat import TASKS_LOGGER
from django_bgtasks.worker import capture
from django_bgtasks.worker.observers import framework_log_is_heard


@pytest.fixture
def loggers():
    """Loggers as a process begins with them; put back what was there."""
    root, framework = logging.getLogger(), logging.getLogger(TASKS_LOGGER)
    before = [(one, one.handlers[:], one.level, one.propagate) for one in (root, framework)]
    for one in (root, framework):
        one.handlers, one.propagate = [], True
        one.setLevel(logging.INFO)
    parent = logging.getLogger(TASKS_LOGGER.partition(".")[0])
    kept, parent.handlers = parent.handlers, []
    framework_log_is_heard.cache_clear()

    def listen_alone():
        # pytest adds handlers of its own to the root for each phase of a test.
        root.handlers = []
        return root

    yield listen_alone
    for one, handlers, level, propagate in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)
    parent.handlers = kept
    framework_log_is_heard.cache_clear()


def test_the_log_that_is_captured_makes_nobody_hear_of_successes(loggers):
    root = loggers()
    capture.install(1000)
    assert [type(h) for h in root.handlers] == [capture.CaptureHandler]
    assert not framework_log_is_heard()


def test_a_handler_of_the_project_hears_them(loggers):
    root = loggers()
    capture.install(1000)
    root.addHandler(logging.NullHandler())
    assert framework_log_is_heard()
