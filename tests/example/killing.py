"""Settings of the shop whose worker is killed in one step: STEP, MOMENT and MARK say when."""

import functools
import os
import signal
from pathlib import Path

from config.settings import *  # noqa: F403
from django.apps import AppConfig

INSTALLED_APPS = [*INSTALLED_APPS, "tests.example.killing.Killing"]  # noqa: F405


class Killing(AppConfig):
    """Wraps a task's function: SIGKILL ends its process, once, or it fails until MARK is there."""

    name = "tests.example"

    def ready(self):
        step = os.environ.get("STEP")
        if not step:
            return
        from shop import tasks

        task = getattr(tasks, step)
        function = task.func

        @functools.wraps(function)
        def killed(*args, **kwargs):
            self.kill("before")
            if os.environ["MOMENT"] == "fail" and not Path(os.environ["MARK"]).exists():
                raise RuntimeError("The partner's server is down.")
            try:
                return function(*args, **kwargs)
            finally:
                self.kill("after")

        object.__setattr__(task, "func", killed)

    def kill(self, moment):
        mark = Path(os.environ["MARK"])
        if os.environ["MOMENT"] == moment and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
