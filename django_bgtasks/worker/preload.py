"""
What a child needs before it works: imported once by the fork server, so that a
child starts within milliseconds and shares its memory with the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
from typing import Any

#: Tells the fork server where the supervisor finds its modules.
PATH_VARIABLE = "BGTASKS_SYS_PATH"

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
    if parent is not None:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)


def load_project(task_modules: Any = None) -> None:
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

    from ..observability.logs import configure

    for config in connections.settings.values():
        # 0, the default, would have every task connect anew.
        if not config.get("CONN_MAX_AGE"):
            config["CONN_MAX_AGE"] = None
    # Whatever was inherited belongs to somebody else.
    connections.close_all()
    configure(plan)


def _in_fork_server() -> None:
    die_with_parent()
    for path in json.loads(os.environ.get(PATH_VARIABLE, "[]")):
        if path not in sys.path:
            sys.path.append(path)
    # A child that can't load the project says so itself, where it can be read.
    with contextlib.suppress(Exception):
        load_project()
        from django.db import connections

        import django_bgtasks.observability.logs
        import django_bgtasks.worker.announcer
        import django_bgtasks.worker.child
        import django_bgtasks.worker.slots
        import django_bgtasks.transitions  # noqa: F401

        connections.close_all()
    # The collector of a child leaves alone what it has from here, so that the
    # pages stay shared.
    gc.collect()
    gc.freeze()


if os.environ.get(PATH_VARIABLE) and "multiprocessing.forkserver" in sys.modules:
    _in_fork_server()
