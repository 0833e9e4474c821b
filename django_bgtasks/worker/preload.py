"""
What a process of a worker needs before it works.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """
    Have Linux kill this process when its parent ends.

    parent is the process that should live: if it has ended already, end, too.
    Elsewhere a child notices the end of its pipe.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def load_project() -> None:
    """Set up Django and import the modules with tasks."""
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()
    from django_bgtasks import registry
    from django_bgtasks.backend import DatabaseBackend
    from django_bgtasks.compat import task_backends

    modules: list[str] = []
    for backend in task_backends.all():
        if isinstance(backend, DatabaseBackend):
            modules += backend.conf.task_modules
    registry.load_task_modules(modules)


def set_up(plan: Any) -> None:
    """Prepare a child: the project, its logging, and connections that outlive a task."""
    load_project()
    from django.db import connections

    from ..compat import task_backends
    from ..observability.logs import configure
    from . import capture

    for config in connections.settings.values():
        # 0, the default, would have every task connect anew.
        if not config.get("CONN_MAX_AGE"):
            config["CONN_MAX_AGE"] = None
    # Whatever was inherited belongs to somebody else.
    connections.close_all()
    configure(plan)
    backend: Any = task_backends[plan.backend]
    capture.install(backend.conf.capture_log)
