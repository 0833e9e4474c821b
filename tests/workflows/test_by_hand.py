"""Retry and cancel by hand in every state of a diamond: a, then b and c, then d."""

import pytest

from django_bgtasks import graph, transitions
from django_bgtasks.exceptions import WrongState
from django_bgtasks.models import FinishedTask, Node, QueuedTask

from . import tasks

pytestmark = pytest.mark.django_db

LETTERS = {
    "SCHEDULED": "D",
    "WAITING": "W",
    "READY": "R",
    "RUNNING": "r",
    "SUCCESSFUL": "S",
    "FAILED": "F",
    "CANCELLED": "C",
}


class Diamond:
    def __init__(self, driver, failing=""):
        self.driver = driver
        self.failing = set(failing)
        flow = graph("diamond")
        a = flow.add(tasks.play.with_args("a").named("a"))
        b = flow.add(tasks.play.with_args("b").named("b"), after=a)
        c = flow.add(tasks.play.with_args("c").named("c"), after=a)
        flow.add(tasks.play.with_args("d").named("d"), after=[b, c])
        tasks.script.clear()
        for name in failing:
            tasks.script[name] = ["fail", "fail"]
        self.workflow = flow.enqueue()
        self.held = {}

    @property
    def ids(self):
        nodes = Node.objects.filter(workflow_id=self.workflow.id)
        return {name: str(pk) for pk, name in nodes.values_list("pk", "name")}

    @property
    def states(self):
        """The states of a, b, c and d as letters, a space, the workflow's."""
        ids = self.ids
        letters = []
        for name in "abcd":
            row = QueuedTask.objects.filter(pk=ids[name]).first() or FinishedTask.objects.get(
                pk=ids[name]
            )
            letters.append(LETTERS[row.status])
        self.workflow.refresh()
        return f"{''.join(letters)} {self.workflow.state.lower()}"

    def run(self, name):
        """Run tasks until this one has ended."""
        for _ in range(20):
            if FinishedTask.objects.filter(pk=self.ids[name]).exists():
                return
            if not self.driver.step():
                self.driver.promote()
        raise AssertionError(name)

    def begin(self, name):
        """Claim this one, and finish it later."""
        self.held = {e.task.name and e.row.id: e for e in self.driver.claim(2)}
        assert self.ids[name] in self.held
        others = [e for pk, e in self.held.items() if pk != self.ids[name]]
        for execution in others:
            self.driver.run(execution)
            del self.held[execution.row.id]

    def finish(self):
        for execution in self.held.values():
            self.driver.run(execution)
        self.held = {}
        self.driver.drain()

    def cancel(self, names):
        moved = transitions.cancel("default", [self.ids[n] for n in names], by="ada")
        return len(moved)

    def retry(self, names):
        return len(transitions.retry("default", [self.ids[n] for n in names], by="ada"))


#: What leads there; the states then; the act; how many moved; the states after it, and at the end.
TABLE = [
    ("", "RWWW running", "cancel a", 1, "CCCC cancelled", "CCCC cancelled"),
    ("", "RWWW running", "cancel b", 1, "RCWW running", "SCSC cancelled"),
    ("", "RWWW running", "cancel d", 1, "RWWC running", "SSSC cancelled"),
    ("", "RWWW running", "cancel abcd", 4, "CCCC cancelled", "CCCC cancelled"),
    ("", "RWWW running", "retry a", 0, "RWWW running", "SSSS successful"),
    ("", "RWWW running", "retry d", 0, "RWWW running", "SSSS successful"),
    ("begin a", "rWWW running", "cancel a", 0, "rWWW running", "SSSS successful"),
    ("begin a", "rWWW running", "cancel d", 1, "rWWC running", "SSSC cancelled"),
    ("begin a", "rWWW running", "retry a", 0, "rWWW running", "SSSS successful"),
    ("run a", "SRRW running", "cancel a", 0, "SRRW running", "SSSS successful"),
    ("run a", "SRRW running", "cancel b", 1, "SCRW running", "SCSC cancelled"),
    ("run a", "SRRW running", "cancel bc", 2, "SCCC cancelled", "SCCC cancelled"),
    ("run a", "SRRW running", "retry a", 0, "SRRW running", "SSSS successful"),
    ("run a, begin b", "SrSW running", "cancel d", 1, "SrSC running", "SSSC cancelled"),
    ("fail a", "FCCC failed", "cancel a", 0, "FCCC failed", "FCCC failed"),
    ("fail a", "FCCC failed", "retry a", 4, "RWWW running", "SSSS successful"),
    ("fail a", "FCCC failed", "retry b", 0, "FCCC failed", "FCCC failed"),
    ("fail a", "FCCC failed", "retry d", 0, "FCCC failed", "FCCC failed"),
    ("fail a", "FCCC failed", "retry abcd", 4, "RWWW running", "SSSS successful"),
    ("fail b", "SFRW running", "retry b", 1, "SRRW running", "SSSS successful"),
    ("fail b", "SFRW running", "cancel c", 1, "SFCC failed", "SFCC failed"),
    ("fail b", "SFRW running", "cancel d", 1, "SFRC running", "SFSC failed"),
    ("fail b, run c", "SFSC failed", "retry b", 2, "SRSW running", "SSSS successful"),
    ("fail b, run c", "SFSC failed", "retry d", 0, "SFSC failed", "SFSC failed"),
    ("fail bc", "SFFC failed", "retry b", 2, "SRFW running", "SSFC failed"),
    ("fail bc", "SFFC failed", "retry bc", 3, "SRRW running", "SSSS successful"),
    ("run d", "SSSS successful", "retry d", 0, "SSSS successful", "SSSS successful"),
    ("run d", "SSSS successful", "cancel a", 0, "SSSS successful", "SSSS successful"),
    ("fail d", "SSSF failed", "retry d", 1, "SSSR running", "SSSS successful"),
    ("cancel b", "RCWW running", "retry b", 1, "RWWW running", "SSSS successful"),
    ("cancel d", "RWWC running", "retry d", 1, "RWWW running", "SSSS successful"),
    ("cancel d, run c", "SSSC cancelled", "retry d", 1, "SSSR running", "SSSS successful"),
    ("cancel a", "CCCC cancelled", "retry a", 4, "RWWW running", "SSSS successful"),
    ("cancel a", "CCCC cancelled", "retry b", 0, "CCCC cancelled", "CCCC cancelled"),
    ("cancel abcd", "CCCC cancelled", "retry abcd", 4, "RWWW running", "SSSS successful"),
    ("cancel abcd", "CCCC cancelled", "retry b", 0, "CCCC cancelled", "CCCC cancelled"),
    ("cancel abcd", "CCCC cancelled", "retry ab", 2, "RWCC running", "SSCC cancelled"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0] or 'start'}: {row[2]}")
def test_diamond(driver, row):
    before, there, act, moved, after, at_the_end = row
    steps = [step.split() for step in before.split(", ") if step]
    failing = "".join(names for verb, names in steps if verb == "fail")
    diamond = Diamond(driver, failing)
    for verb, names in steps:
        if verb in ("run", "fail"):
            for name in names:
                diamond.run(name)
        elif verb == "begin":
            diamond.begin(names)
        else:
            diamond.cancel(names)
    assert diamond.states == there
    verb, names = act.split()
    assert getattr(diamond, verb)(names) == moved
    assert diamond.states == after
    diamond.finish()
    assert diamond.states == at_the_end


def test_retry_of_a_skipped_task_says_what_to_retry(driver):
    diamond = Diamond(driver, "a")
    diamond.run("a")
    with pytest.raises(WrongState) as raised:
        diamond.workflow.result("d").retry()
    short = diamond.ids["a"][-8:]
    assert str(raised.value) == (
        f"play ({diamond.ids['d']}) was skipped in its workflow, because a {short} failed. Retry "
        "that one, or the workflow."
    )


def test_workflow_is_cancelled_and_retried_as_a_whole(driver):
    diamond = Diamond(driver)
    diamond.run("a")
    assert diamond.workflow.cancel(by="ada", why="wrong file")
    assert diamond.states == "SCCC cancelled"
    assert diamond.workflow.reason == "Cancelled by ada: wrong file"
    assert diamond.workflow.retry() == 3
    assert diamond.states == "SRRW running"
    driver.drain()
    assert diamond.states == "SSSS successful"
    with pytest.raises(WrongState, match="Nothing of workflow 'diamond'"):
        diamond.workflow.retry()


def test_running_task_of_a_cancelled_workflow_is_asked_to_end_and_waited_for(driver):
    diamond = Diamond(driver)
    diamond.begin("a")
    assert not diamond.workflow.cancel(by="ada")
    assert diamond.states == "rCCC running"
    asked = transitions.requests_to_end("default", [diamond.ids["a"]])
    assert asked == [(diamond.ids["a"], "Cancelled by ada.", False)]
    diamond.finish()
    assert diamond.states == "SCCC cancelled"
