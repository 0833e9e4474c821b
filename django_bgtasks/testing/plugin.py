"""
The plugin of pytest: the fixture bgtasks, and the marker of the same name.

pytest loads it before Django has its settings, so that all else is imported
when it is first needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .recording import Recorder
    from .running import TasksRun

MARKER = (
    'bgtasks(mode): with "inline" each task runs when it is enqueued, as with ImmediateBackend '
    "(django_bgtasks)."
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known: --strict-markers refuses others."""
    config.addinivalue_line("markers", MARKER)


class TasksOfTest:
    """What the fixture bgtasks is: the tasks that a test enqueues, and how to run them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @property
    def enqueued(self) -> list[Any]:
        """The results of the tasks that this test has enqueued, in their order."""
        return self._recorder.enqueued

    def assert_enqueued(self, task: Any, *args: Any, **given: Any) -> Any:
        """As TaskTestMixin.assertEnqueued()."""
        from .assertions import assert_enqueued

        __tracebackhide__ = True
        return assert_enqueued(self.enqueued, task, args, given)

    def assert_not_enqueued(self, task: Any, *args: Any, **given: Any) -> None:
        """As TaskTestMixin.assertNotEnqueued()."""
        from .assertions import assert_not_enqueued

        __tracebackhide__ = True
        assert_not_enqueued(self.enqueued, task, args, given)

    def run(self, **options: Any) -> TasksRun:
        """As run_tasks(), with its options."""
        from .running import run_tasks

        return run_tasks(**options)


@pytest.fixture
def bgtasks() -> Iterator[TasksOfTest]:
    """The tasks that this test enqueues: assert_enqueued(), enqueued, run(). The test needs db."""
    from .recording import recording

    with recording() as recorder:
        yield TasksOfTest(recorder)


@pytest.fixture(autouse=True)
def _bgtasks_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do what the marker says, if there is one."""
    marker = request.node.get_closest_marker("bgtasks")
    if marker is None:
        yield
        return
    if marker.args != ("inline",) or marker.kwargs:
        given = ", ".join(map(repr, marker.args))
        raise pytest.UsageError(f'@pytest.mark.bgtasks({given}): write bgtasks("inline").')
    with inline():
        yield


@contextmanager
def inline() -> Iterator[None]:
    """Have each task of ours run when it is enqueued, in this block."""
    from django.conf import settings
    from django.test import override_settings

    from ..queues import backends

    immediate = {"BACKEND": "django_bgtasks.ImmediateBackend"}
    ours = {backend.alias for backend in backends()}
    with override_settings(
        TASKS={
            alias: {**params, **(immediate if alias in ours else {})}
            for alias, params in getattr(settings, "TASKS", {}).items()
        }
    ):
        yield
