"""Deadlines of a child are kept for what runs, and for nothing else."""

import threading
import time

from django_bgtasks.exceptions import TaskTimeout
from django_bgtasks.worker.interrupts import Interrupts
from django_bgtasks.worker.run import State


class Running:
    """What Interrupts knows of an execution."""

    def __init__(self):
        self.has_run = False
        self.interruptible = True
        self.thread = self.coroutine = None
        self._state = State()

    def state(self):
        return self._state


def test_thousands_of_tasks_that_have_run_leave_no_deadlines_behind():
    interrupts = Interrupts(by_signal=False, done=lambda: None)
    for _ in range(1000):
        execution = Running()
        interrupts.watch(execution, 3600)
        execution.has_run = True
        interrupts.forget()
    assert len(interrupts._deadlines) <= 64


def test_a_sooner_deadline_is_met_before_a_later_one():
    heard = threading.Event()
    interrupts = Interrupts(by_signal=False, done=heard.set)
    later, sooner = Running(), Running()
    interrupts.watch(later, 3600)
    interrupts.watch(sooner, 0.01)
    assert heard.wait(10)
    until = time.monotonic() + 10
    while sooner.state().interrupt is None and time.monotonic() < until:
        time.sleep(0.001)
    assert isinstance(sooner.state().interrupt, TaskTimeout)
    assert later.state().interrupt is None


def test_what_raises_in_a_thread_reaches_python_code():
    interrupts = Interrupts(by_signal=False, done=lambda: None)
    execution = Running()
    caught = []

    def work():
        execution.thread = threading.get_ident()
        try:
            while True:
                time.sleep(0.001)
        except TaskTimeout as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while execution.thread is None:
        time.sleep(0.001)
    interrupts.watch(execution, 0.01)
    thread.join(10)
    assert len(caught) == 1
