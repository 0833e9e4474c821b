"""Database servers of a test's own, which it may stop."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A database server in a directory of its own; url is its DATABASE_URL."""

    user: str

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="bgtasks-server-"))
        self.port = free_port()
        self.log = (self.directory / "log").open("w")
        if os.getuid() == 0:
            os.chmod(self.directory, 0o755)

    def run(self, *command, **options):
        """Run a command as the user that may run the server."""
        if os.getuid() == 0:
            account = pwd.getpwnam(self.user)
            options.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
        return subprocess.run(
            [str(part) for part in command],
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            **options,
        )

    def own(self, path):
        path.mkdir()
        if os.getuid() == 0:
            shutil.chown(path, self.user, self.user)
        return path

    def wait(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("The server did not come up.")

    def close(self):
        self.stop()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class PostgreSQL(Server):
    user = "postgres"

    @staticmethod
    def binary(name):
        found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
        return found[-1] if found else shutil.which(name)

    @classmethod
    def available(cls):
        return cls.binary("initdb") is not None and cls.binary("pg_ctl") is not None

    def __init__(self):
        super().__init__()
        self.data = self.own(self.directory / "data")
        self.run(self.binary("initdb"), "-D", self.data, "-A", "trust", "-U", "tests", "-N")
        self.url = f"postgres://tests@127.0.0.1:{self.port}/postgres"
        self.start()

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.data} -F"
        self.run(self.binary("pg_ctl"), "-D", self.data, "-w", "-o", options, "start")
        self.wait()

    def stop(self):
        self.run(self.binary("pg_ctl"), "-D", self.data, "-w", "-m", "fast", "stop")


class MariaDB(Server):
    user = "mysql"

    @classmethod
    def available(cls):
        return bool(shutil.which("mariadbd") and shutil.which("mariadb-install-db"))

    def __init__(self):
        super().__init__()
        self.data = self.own(self.directory / "data")
        self.process = None
        self.run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        self.url = f"mysql://root@127.0.0.1:{self.port}/bgtasks"
        self.start()
        client = ["mariadb", "--no-defaults", "-uroot", "-h127.0.0.1", f"-P{self.port}"]
        self.run(*client, "-e", "CREATE DATABASE bgtasks CHARACTER SET utf8mb4")

    def start(self):
        options = {}
        if os.getuid() == 0:
            account = pwd.getpwnam(self.user)
            options = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.process = subprocess.Popen(
            [
                shutil.which("mariadbd"),
                "--no-defaults",
                f"--datadir={self.data}",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                f"--socket={self.data}/socket",
            ],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            **options,
        )
        self.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def manage(url, *arguments, **env):
    """Run a command of the tests' project on a server; return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.settings", **env},
    ).stdout
