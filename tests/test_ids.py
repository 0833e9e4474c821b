"""Ids: UUIDs of version 7, in order, and different in each process."""

import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from django_bgtasks import ids
from django_bgtasks.ids import dashed, new_id

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")


def test_an_id_is_a_uuid_of_version_7_in_its_canonical_form():
    for _ in range(1000):
        text = new_id()
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


def test_an_id_holds_the_time_of_its_making():
    before = time.time_ns() // 1_000_000
    milliseconds = uuid.UUID(new_id()).int >> 80
    assert before <= milliseconds <= time.time_ns() // 1_000_000 + 1


def test_ids_of_a_process_are_in_order_of_their_making():
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_stay_in_order_when_the_clock_goes_back(monkeypatch):
    now = time.time_ns()
    clock = iter([now, now, now - 10**12, now - 10**12, now + 1])
    monkeypatch.setattr(ids, "time", SimpleNamespace(time_ns=lambda: next(clock)))
    made = [new_id() for _ in range(5)]
    assert made == sorted(made)
    assert len(set(made)) == 5


def test_ids_of_threads_are_all_different():
    made = []
    threads = [
        threading.Thread(target=lambda: made.extend([new_id() for _ in range(2_000)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8_000


def test_the_rest_of_an_id_is_random():
    tails = [uuid.UUID(new_id()).int & (1 << 62) - 1 for _ in range(2_000)]
    assert len(set(tails)) == 2_000
    for bit in range(62):
        ones = sum(tail >> bit & 1 for tail in tails)
        # Ten standard deviations.
        assert abs(ones - 1_000) < 224


def run(script):
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_fork
def test_a_forked_process_has_random_bits_of_its_own():
    made = run(
        "import os\n"
        "from django_bgtasks.ids import new_id\n"
        "new_id()\n"
        "child = os.fork()\n"
        "os.write(1, f'{new_id()}\\n'.encode())\n"
        "child and os.waitpid(child, 0)\n"
    )
    assert len(made) == 2
    assert made[0][-16:] != made[1][-16:]


@needs_fork
def test_a_forked_process_can_make_ids_whatever_other_threads_did():
    made = run(
        "import os, signal\n"
        "from django_bgtasks import ids\n"
        "ids._lock.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(20)\n"
        "    print(ids.new_id(), flush=True)\n"
        "else:\n"
        "    print(os.waitpid(child, 0)[1])\n"
    )
    assert made[1:] == ["0"]
    assert uuid.UUID(made[0]).version == 7


def test_dashed_returns_the_canonical_form():
    text = new_id()
    assert dashed(text.replace("-", "")) == text
