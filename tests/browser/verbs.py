"""What can be done by click, a line each; a test says which line is missing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.urls import reverse
from django.utils import timezone

from django_bgtasks import chain, previous, queues
from django_bgtasks.ids import new_id
from django_bgtasks.models import (
    BulkOperation,
    FailureGroup,
    FinishedTask,
    Queue,
    QueuedTask,
    Schedule,
    ScheduleRun,
    Worker,
    Workflow,
)
from tests import factories
from tests.workflows.driver import Driver

from . import tasks


@dataclass(frozen=True)
class Verb:
    """
    One verb by click. make returns the row that it begins with; page is the end of the
    url name where it begins, press the names of what is pressed there and on the pages that
    follow, fill what is typed before the last press, by label. came says of the row whether
    it has happened. address is the end of the url name that this proves.
    """

    address: str
    make: Callable[[], Any]
    press: tuple[str, ...]
    came: Callable[[Any], Any]
    page: str = ""
    fill: dict[str, str] = field(default_factory=dict)

    def url(self, row):
        name = self.page or f"{self.address.partition('_')[0]}_change"
        if name.endswith("_bulk"):
            return reverse(f"admin:bgtasks_{name}") + f"?task={row.task_path}"
        return reverse(f"admin:bgtasks_{name}", args=[] if name.endswith("list") else [row.pk])

    def __str__(self):
        return self.address


@dataclass(frozen=True)
class Action:
    """One action on the ticked rows of a list; the fields are those of Verb."""

    model: str
    name: str
    make: Callable[[], Any]
    came: Callable[[Any], Any]
    press: tuple[str, ...] = ()
    fill: dict[str, str] = field(default_factory=dict)

    def url(self, row):
        return reverse(f"admin:bgtasks_{self.model}_changelist")

    def __str__(self):
        return f"{self.model}: {self.name}"


# Rows to begin with


def live(result):
    return QueuedTask.objects.get(pk=result.id)


def done(result):
    return FinishedTask.objects.get(pk=result.id)


def ready():
    # In a queue of its own: no other test's driver takes it.
    return live(tasks.monthly_report.enqueue("2026-06"))


def scheduled():
    later = timezone.now() + timedelta(hours=9)
    return live(tasks.monthly_report.using(run_after=later).enqueue("2026-07"))


def running():
    result = tasks.monthly_report.using(priority=99).enqueue("2026-06")
    factories.claim(("reports",), limit=1, lease=3_600)
    row = live(result)
    assert row.status == "RUNNING"
    return row


def failed():
    result = tasks.monthly_report.using(priority=98).enqueue("2026-06")
    return done(factories.fail(result))


def queue():
    return Queue.objects.get_or_create(name=f"queue-{new_id()[-8:]}")[0]


def paused():
    row = queue()
    queues.pause(row.pk, reason="to be resumed", by="ann", database="default")
    return row


def worker():
    row = Worker.objects.filter(name="web-1").get()
    row.pk, row.name, row.running = new_id(), f"web-{new_id()[-8:]}", 0
    row.save(force_insert=True)
    return row


def cause(**columns):
    """Return a cause of failures of its own."""
    row = FailureGroup.objects.all()[0]
    row.pk = new_id().replace("-", "")
    row.acknowledged_at = row.muted_until = None
    for name, value in columns.items():
        setattr(row, name, value)
    row.save(force_insert=True)
    return row


def acknowledged():
    return cause(acknowledged_at=timezone.now(), acknowledged_by="bob")


def muted():
    return cause(muted_until=timezone.now() + timedelta(days=1))


def bulk():
    row = BulkOperation.objects.filter(state="RUNNING")[0]
    row.pk, row.name = new_id(), "to be aborted"
    row.save(force_insert=True)
    return row


def schedule(enabled=True):
    return Schedule.objects.create(
        name=f"schedule-{new_id()[-8:]}",
        task_path=tasks.sync_stock.module_path,
        args=[7],
        expression="@daily",
        time_zone="UTC",
        enabled=enabled,
    )


def disabled():
    return schedule(enabled=False)


def workflow():
    flow = chain(
        tasks.monthly_report.with_args("2026-06"),
        tasks.monthly_report.with_args(previous),
        name="by click",
    ).enqueue()
    return Workflow.objects.get(pk=flow.id)


def failed_workflow():
    flow = chain(
        tasks.charge_card.using(queue_name="reports", priority=97).with_args(1, 99_000),
        tasks.monthly_report.with_args(previous),
        name="to be retried",
    ).enqueue()
    driver = Driver(queues=("reports",))
    # What other tests have left there may come first.
    while not Workflow.objects.filter(pk=flow.id, status="FAILED").exists():
        assert driver.step()
    return Workflow.objects.get(pk=flow.id)


# What has happened


def is_cancelled(row):
    return FinishedTask.objects.filter(pk=row.pk, status="CANCELLED").exists()


def is_asked_to_end(row):
    from django_bgtasks.models import Cancellation

    return Cancellation.objects.filter(pk=row.pk).exists()


def is_copied(row):
    return QueuedTask.objects.filter(options__origin__copy_of=str(row.pk)).exists()


def is_begun(row):
    found = BulkOperation.objects.filter(asked_by="ann", words__contains=row.task_name)
    return found.filter(finished=isinstance(row, FinishedTask)).exclude(name__gt="").exists()


def is_live(row):
    return QueuedTask.objects.filter(pk=row.pk).exists()


def is_gone(row):
    return not type(row).objects.filter(pk=row.pk).exists()


def is_paused(row):
    found = Queue.objects.get(pk=row.pk)
    return found.paused_at is not None and found.paused_by == "ann"


def is_paused_for_a_reason(row):
    return is_paused(row) and Queue.objects.get(pk=row.pk).reason == "mail server moves"


def is_open(row):
    return Queue.objects.get(pk=row.pk).paused_at is None


def is_enabled(row):
    return Schedule.objects.get(pk=row.pk).enabled


def is_disabled(row):
    return not is_enabled(row)


def has_run(row):
    return ScheduleRun.objects.filter(schedule=row, fired_at__lte=timezone.now()).exists()


def has(**columns):
    return lambda row: type(row).objects.filter(pk=row.pk, **columns).exists()


MONTH = {"Arguments": '{"month": "2031-01"}'}
SECONDS = {"Seconds": "90"}
RETRY, CANCEL = {"^Retry$": "retry"}, {"^Cancel$": "cancel"}
REASON = {"Reason": "mail server moves"}

VERBS = [
    Verb("queuedtask_cancel", ready, ("Cancel",), is_cancelled),
    Verb("queuedtask_cancel", running, ("Cancel", "Cancel"), is_asked_to_end),
    Verb("queuedtask_force", running, ("Cancel by force", "Cancel by force"), is_asked_to_end),
    Verb("queuedtask_run", scheduled, ("Run now",), has(status="READY")),
    Verb("queuedtask_copy", ready, ("Run a copy", "Enqueue the copy"), is_copied, fill=MONTH),
    Verb("finishedtask_copy", failed, ("Run a copy", "Enqueue the copy"), is_copied, fill=MONTH),
    Verb("finishedtask_retry", failed, ("Retry",), is_live),
    Verb("finishedtask_delete", failed, ("Delete", "Yes, I’m sure"), is_gone),
    Verb("queue_pause", queue, ("Pause", "Pause"), is_paused_for_a_reason, fill=REASON),
    Verb("queue_target", queue, ("Save",), has(latency_target=90.0), "queue_change", SECONDS),
    Verb("queue_resume", paused, ("Resume",), is_open),
    Verb("worker_quiet", worker, ("Quiet",), has(request="QUIET", requested_by="ann")),
    Verb("worker_stop", worker, ("Stop", "Stop"), has(request="STOP", requested_by="ann")),
    Verb("failuregroup_acknowledge", cause, ("Acknowledge",), has(acknowledged_by="ann")),
    Verb("failuregroup_reopen", acknowledged, ("Reopen",), has(acknowledged_at=None)),
    Verb("failuregroup_mute", cause, ("Mute for a day",), has(muted_until__isnull=False)),
    Verb("failuregroup_unmute", muted, ("Unmute",), has(muted_until=None)),
    Verb("bulkoperation_abort", bulk, ("Abort",), has(abort_by="ann")),
    Verb("finishedtask_bulk", failed, ("Begin",), is_begun, "finishedtask_bulk", RETRY),
    Verb("queuedtask_bulk", ready, ("Begin",), is_begun, "queuedtask_bulk", CANCEL),
    Verb("schedule_enable", disabled, ("Enable",), is_enabled),
    Verb("schedule_disable", schedule, ("Disable",), is_disabled),
    Verb("schedule_run", schedule, ("Run now", "Run now"), has_run),
    Verb("schedule_delete", schedule, ("Delete", "Yes, I’m sure"), is_gone),
    Verb(
        "schedule_change",
        schedule,
        ("Save",),
        has(expression="30 4 * * *"),
        fill={"When": "30 4 * * *"},
    ),
    Verb("workflow_cancel", workflow, ("Cancel",), has(status="CANCELLED")),
    Verb("workflow_retry", failed_workflow, ("Retry what failed",), has(status="RUNNING")),
]
ACTIONS = [
    Action("queuedtask", "cancel", ready, is_cancelled),
    Action("finishedtask", "retry", failed, is_live),
    Action("queue", "pause", queue, is_paused_for_a_reason, press=("Pause",), fill=REASON),
    Action("queue", "resume", paused, is_open),
    Action("worker", "quiet", worker, has(request="QUIET")),
    Action("worker", "stop", worker, has(request="STOP"), press=("Stop",)),
    Action("schedule", "enable", disabled, is_enabled),
    Action("schedule", "disable", schedule, is_disabled),
    Action("schedule", "run_ticked", schedule, has_run),
]
