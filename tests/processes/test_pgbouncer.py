"""Behind Debian's PgBouncer in transaction mode, where a connection keeps no session."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from django.db import connection

from django_bgtasks.db import operations_for
from tests import tasks

from .conftest import until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed."),
]


@pytest.fixture
def pgbouncer(tmp_path_factory):
    """Return the port of a PgBouncer before the tests' server."""
    if connection.vendor != "postgresql":
        pytest.skip("PgBouncer is PostgreSQL's.")
    folder = tmp_path_factory.mktemp("pgbouncer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = connection.settings_dict
    password = f" password={given['PASSWORD']}" if given["PASSWORD"] else ""
    (folder / "users").write_text(f'"{given["USER"]}" "{given["PASSWORD"]}"\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host={given['HOST']} port={given['PORT'] or 5432} "
        f"user={given['USER']}{password}\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nauth_type=any\n"
        f"auth_file={folder}/users\npool_mode=transaction\nunix_socket_dir=\n"
        "ignore_startup_parameters=extra_float_digits\n"
    )
    command = ["pgbouncer", "ini"]
    if getpass.getuser() == "root":  # As which it refuses to run.
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "nobody")
        for parent in (folder.parent, folder.parent.parent):
            parent.chmod(parent.stat().st_mode | 0o011)
        command += ["-u", "nobody"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: _answers(port), timeout=20, message="PgBouncer did not come up")
    yield port
    process.send_signal(signal.SIGTERM)
    process.kill()
    process.wait()


def _answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "direct"])
def test_a_listener_finds_out_whether_it_hears(pgbouncer, pooled):
    operations = operations_for("default")
    detector = operations.change_detector(lambda: ["default"], listen=True)
    if pooled:
        detector._connection.settings_dict = {
            **connection.settings_dict,
            "HOST": "127.0.0.1",
            "PORT": str(pgbouncer),
        }
    try:
        detector.changed()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and not detector.works:
            detector.changed()
            time.sleep(0.02)
        assert detector.works is not pooled
        assert detector.keeps_session is not pooled
    finally:
        detector.close()


def test_a_worker_behind_a_pooler_runs_what_is_enqueued(pgbouncer, start_worker):
    url = os.environ["DATABASE_URL"]
    given = connection.settings_dict
    behind = url.replace(f":{given['PORT'] or 5432}/", f":{pgbouncer}/")
    assert behind != url
    start_worker("-p", 2, DATABASE_URL=behind)
    for number in range(3):
        results = tasks.add.enqueue_many([(n, number) for n in range(50)])
        assert [r.get(timeout=60) for r in results] == [n + number for n in range(50)]
