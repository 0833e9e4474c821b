"""What a worker does when it can't renew its leases."""

import subprocess
import sys

from django_bgtasks.worker.leases import Contact, Fence, boot_clock


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_children_are_killed_once_before_their_leases_run_out():
    process = sleeper()
    contact, told = Contact(), []
    contact.renewed_at = boot_clock() - 28.5
    fence = Fence(contact, 30, lambda: [process.pid], told.append)
    fence.start()
    assert process.wait(30) == -9
    fence.stop()
    fence.join()
    assert fence.killed == {process.pid}
    assert len(told) == 1
    assert 28 <= told[0] < 60


def test_nobody_is_killed_while_leases_are_renewed():
    process = sleeper()
    fence = Fence(Contact(), 1.0, lambda: [process.pid], lambda silence: None)
    fence._contact.silence = lambda: 0.4
    fence.start()
    fence._stopped.wait(0.5)
    assert process.poll() is None
    fence.stop()
    fence.join()
    process.kill()
    process.wait()


def test_contact_is_unbroken_from_the_first_success_after_a_failure():
    contact = Contact()
    contact.since -= 100
    assert contact.unbroken() >= 100
    contact.lost()
    assert contact.unbroken() == 0
    contact.made(boot_clock())
    assert contact.unbroken() < 50
    assert contact.silence() < 50
