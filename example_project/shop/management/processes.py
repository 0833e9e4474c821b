"""The processes of the shop, for the commands demo and serve: a site and its workers."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from django.conf import settings


class Process:
    """manage.py with arguments, in a process of its own that Ctrl-C doesn't reach."""

    def __init__(self, *arguments, log=None):
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments]
        output = open(log, "ab") if log else None  # noqa: SIM115
        self.popen = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,
        )
        if output:
            output.close()
        self.pid = self.popen.pid
        self.log = log

    @property
    def running(self):
        return self.popen.poll() is None

    def stop(self, patience=30):
        """Ask the process to finish; end it, and what it started, if it doesn't."""
        if self.running:
            self.popen.terminate()
        try:
            self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.popen.wait()

    def kill(self):
        """End the process as a crash or the kernel would: without asking it."""
        self.popen.kill()
        self.popen.wait()

    def children(self):
        """Return the ids of the processes below this one that run tasks."""
        parents, commands = {}, {}
        for pid, parent, command in all_processes():
            parents[pid], commands[pid] = parent, command
        below = [pid for pid in parents if self.pid in ancestors(pid, parents)]
        # Between a worker and its children, there may be a server that forks them.
        return sorted(
            pid
            for pid in below
            if pid not in parents.values() and "resource_tracker" not in commands[pid]
        )


def ancestors(pid, parents):
    while (pid := parents.get(pid)) is not None:
        yield pid


def all_processes():
    """Yield the id, the parent's id and the command of each process."""
    if sys.platform == "linux":  # ps may not be installed.
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                yield int(folder.name), int(fields[1]), (folder / "cmdline").read_text("latin-1")
            except OSError:
                continue  # It has ended meanwhile.
    else:
        listing = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,command="], text=True)
        for line in listing.splitlines():
            pid, parent, command = line.split(None, 2)
            yield int(pid), int(parent), command


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
