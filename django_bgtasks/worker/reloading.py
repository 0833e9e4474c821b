"""Restart on a change of the code, for development."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.utils import autoreload

#: Set for the process that does the work.
CHILD_VARIABLE = "BGTASKS_RELOADED"


def snapshot() -> dict[str, float]:
    """Return when each source file of the loaded modules was last written."""
    times = {}
    for path in autoreload.iter_all_python_module_files():
        try:
            times[str(path)] = path.stat().st_mtime
        except OSError:
            continue
    return times


def changed_file(before: dict[str, float]) -> str | None:
    """Return a file that was written since, or None."""
    for path, written in before.items():
        try:
            if os.stat(path).st_mtime != written:
                return path
        except OSError:
            return path
    return None


def run_with_restarts(reload_code: int) -> int:
    """
    Run the same command line in a process, and again whenever it asks for it.

    A process that crashed, for a syntax error perhaps, is run again after the
    next change of a file below the working directory.
    """
    arguments = autoreload.get_child_arguments()
    while True:
        process = subprocess.Popen(arguments, env={**os.environ, CHILD_VARIABLE: "1"})
        signal.signal(signal.SIGTERM, _passing_on(process))
        code = _wait(process)
        if code == reload_code:
            continue
        if code != 1:
            return code
        sys.stderr.write("The worker crashed; it is started again when a file changes.\n")
        before = _below_here()
        try:
            while changed_file(before) is None and _below_here().keys() == before.keys():
                time.sleep(1)
        except KeyboardInterrupt:
            return code


def _passing_on(process: subprocess.Popen[bytes]) -> Callable[[int, Any], None]:
    def handler(number: int, frame: Any) -> None:
        process.send_signal(number)

    return handler


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the terminal sends Ctrl+C to it as well."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _below_here() -> dict[str, float]:
    return {
        str(path): path.stat().st_mtime
        for path in Path.cwd().rglob("*.py")
        if not any(part.startswith(".") for part in path.parts[1:])
    }
