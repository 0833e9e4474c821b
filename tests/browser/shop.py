"""
A day of a made-up shop: hundreds of tasks in every state, failures of a few
causes, schedules, workflows, workers, bulk operations.

What happened is written by the worker's own parts, then moved into the past
and multiplied.
"""

import logging
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from uuid import UUID

from django.contrib.auth.models import User
from django.utils import timezone

from django_bgtasks import chain, group, previous, queues
from django_bgtasks.ids import new_id
from django_bgtasks.models import (
    BulkOperation,
    FinishedTask,
    Queue,
    QueuedTask,
    Schedule,
    ScheduleRun,
    Worker,
)
from django_bgtasks.statistics.ledger import bucket, write_buckets, write_failures
from django_bgtasks.statistics.tally import Failures, Tally, minute_of
from django_bgtasks.worker.capture import CaptureHandler
from tests import factories
from tests.workflows.driver import Driver

from . import tasks

#: The name and the password of the shop's superuser.
ANN = "ann"

DAY = 86_400


@dataclass(frozen=True)
class Kind:
    """Calls that ended alike: how many in a hundred, about how long they ran."""

    weight: float
    seconds: float
    call: object


def kinds():
    return [
        Kind(46, 0.09, lambda: tasks.send_receipt.enqueue(1042)),
        Kind(24, 1.4, lambda: tasks.resize_picture.enqueue(77, [200, 800, 1600])),
        Kind(12, 0.6, lambda: tasks.sync_stock.enqueue(7)),
        Kind(6, 32.0, lambda: tasks.import_feed.enqueue(118, partner="acme", api_key="k3y")),
        Kind(4, 2.2, lambda: tasks.charge_card.enqueue(1042, 4_950, token="t0k")),
        Kind(1, 260.0, lambda: tasks.monthly_report.enqueue("2026-01")),
        Kind(2.5, 20.1, lambda: tasks.import_feed.enqueue(9, partner="globex", api_key="k3y")),
        Kind(1.6, 4.0, lambda: tasks.import_feed.enqueue(31, partner="initech")),
        Kind(1.2, 1.9, lambda: tasks.charge_card.enqueue(1043, 129_000, token="t0k")),
        Kind(0.7, 0.2, lambda: tasks.monthly_report.enqueue("2026-02")),
        Kind(1.0, 0.0, cancelled),
    ]


def cancelled():
    result = tasks.send_newsletter.enqueue("subscribers 1 to 500")
    result.cancel(by=ANN)
    return result


def open_shop(*, results=300):
    """Fill the empty default database; return the superuser ann, whose password is ann."""
    ann = User.objects.create_superuser(ANN, "ann@example.com", ANN)
    # A worker ends what a task left open in its connection: here it is the caller's.
    with patch("django_bgtasks.worker.execution.clean_connections"), _captured_logs():
        _history(results)
        _workflows()
        _live()
    _workers()
    _queues()
    _schedules()
    _bulk_operations()
    return ann


@contextmanager
def _captured_logs():
    handler = CaptureHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def id_at(moment):
    """Return a new id as if made at an aware moment."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(f"{milliseconds:012x}{new_id().replace('-', '')[12:]}")


def _history(count):
    """Write count results of the last day, with the figures and causes that belong to them."""
    chance = random.Random(7)
    now = timezone.now()
    tally, rows, failures = Tally(), [], []
    driver = Driver()
    for kind in kinds():
        result = kind.call()
        driver.drain()
        model = FinishedTask.objects.get(pk=result.id)
        for _ in range(max(1, round(count * kind.weight / 100))):
            # More of it lately, and at the same times of a day.
            ended = now - timedelta(seconds=20 + DAY * chance.random() ** 1.7)
            ran = kind.seconds * chance.uniform(0.5, 1.8)
            waited = chance.expovariate(0.8)
            row = _copy(model, ended, ran=ran, waited=waited, worker=f"web-{chance.randint(1, 2)}")
            rows.append(row)
            key = (minute_of(ended.timestamp()), row.queue_name, row.task_path)
            tally.add(key, row.status.lower(), waited=waited, ran=ran or None)
            if row.fingerprint:
                failures.append(row)
    FinishedTask.objects.bulk_create(rows)
    write_buckets(
        "default",
        [
            bucket(datetime.fromtimestamp(60 * minute, UTC), 60, queue, task, "", figures)
            for (minute, queue, task), figures in tally.figures.items()
        ],
    )
    for row in sorted(failures, key=lambda row: row.finished_at):
        last = row.errors[-1]
        cause = Failures(
            row.task_path,
            count=1,
            task_id=str(row.pk),
            exception_class=last["exception_class_path"],
            message=row.reason.partition(": ")[2],
            traceback=last["traceback"],
            last=row.finished_at.timestamp(),
        )
        write_failures("default", row.fingerprint, cause)


def _copy(model, ended, *, ran, waited, worker):
    values = {f.attname: getattr(model, f.attname) for f in FinishedTask._meta.fields}
    began = ended - timedelta(seconds=ran)
    enqueued = began - timedelta(seconds=waited)
    values.update(id=id_at(enqueued), enqueued_at=enqueued, finished_at=ended, claim_id=None)
    if model.started_at is not None:
        values.update(started_at=began, last_attempted_at=began, worker_id=worker)
    return FinishedTask(**values)


def _workflows():
    driver = Driver()
    for name, part in (("nightly import", "second"), ("newsletter of May", "broken")):
        chain(
            tasks.sync_stock.with_args(7).named("download"),
            group(
                tasks.send_newsletter.with_args(p).named(f"part {n}")
                for n, p in enumerate(("first", part, "third"), 1)
            ),
            tasks.send_newsletter.with_args("last", previous).named("report"),
            name=name,
        ).enqueue()
        driver.drain()
    going = chain(
        tasks.sync_stock.with_args(7).named("download"),
        group(tasks.send_newsletter.with_args(f"{n}").named(f"part {n}") for n in range(4)),
        tasks.send_newsletter.with_args("last", previous).named("report"),
        name="newsletter of June",
    )
    going.enqueue()
    driver.step()
    driver.step()


def _live():
    """Tasks that run, wait, are late, are lost, are tried again."""
    now = timezone.now()
    again = {"max_attempts": 4, "backoff": 3600.0, "priority": 100}
    tasks.import_feed.using(**again).enqueue(12, partner="globex")
    Driver().step()
    running = []
    for feed, partner in ((118, "acme"), (119, "umbrella")):
        result = tasks.import_feed.using(priority=90).enqueue(feed, partner=partner, api_key="k3y")
        running.append(result)
    lost = tasks.charge_card.using(priority=90).enqueue(1050, 1_200)
    claimed = {row.id for row in factories.claim(("default",), limit=3, worker_id="web-1")}
    assert claimed == {result.id for result in (*running, lost)}
    progress = {"current": 64, "total": 100, "message": "Importing rows", "at": time.time()}
    QueuedTask.objects.filter(pk__in=[r.id for r in running]).update(
        notes={"progress": progress, "labels": {"rows": 31_000}},
        lease_until=now + timedelta(hours=2),
        started_at=now - timedelta(seconds=42),
        last_attempted_at=now - timedelta(seconds=42),
    )
    QueuedTask.objects.filter(pk=lost.id).update(
        worker_id="batch-1", lease_until=now - timedelta(minutes=3)
    )
    for number in range(14):
        tasks.resize_picture.enqueue(500 + number, [200, 800])
    for number in range(23):
        tasks.send_receipt.enqueue(2_000 + number)
    for number in range(6):
        tasks.monthly_report.using(run_after=now + timedelta(hours=2 + number)).enqueue("2026-05")


def _queues():
    for name in ("default", "emails", "reports"):
        Queue.objects.get_or_create(name=name)
    queues.pause("emails", reason="The mail server is being moved", by=ANN, database="default")


def _workers():
    now = timezone.now()
    shared = {
        "backend": "default",
        "version": "0.1.0",
        "processes": 2,
        "threads": 4,
        "lease": 600.0,
    }
    Worker.objects.bulk_create(
        Worker(
            id=new_id(),
            name=name,
            hostname=f"{name}.shop.example",
            pid=4211 + number,
            state=state,
            queues=served,
            started_at=now - timedelta(hours=5 + number),
            heartbeat_at=now - timedelta(minutes=silent),
            running=running,
            finished=18_204,
            memory=210_000_000,
            **shared,
        )
        for number, (name, state, served, running, silent) in enumerate(
            (
                ("web-1", "RUNNING", ["default", "emails"], 2, 0),
                ("web-2", "QUIET", [], 0, 0),
                ("batch-1", "RUNNING", ["reports"], 1, 12),
            )
        )
    )


def _schedules():
    now = timezone.now()
    for name, task, args, when, columns in (
        ("nightly-stock", tasks.sync_stock, [7], "0 2 * * 1-5", {}),
        ("feeds", tasks.import_feed, [118, "acme"], "every 15 minutes", {}),
        ("month-end", tasks.monthly_report, ["2026-05"], "30 2 1 * *", {"queue_name": "reports"}),
        ("newsletter", tasks.send_newsletter, ["all"], "@weekly", {"enabled": False}),
    ):
        row = Schedule.objects.create(
            name=name,
            task_path=task.module_path,
            args=args,
            expression=when,
            time_zone="Europe/Warsaw",
            **columns,
        )
        ended = FinishedTask.objects.filter(task_path=task.module_path)[:12]
        ScheduleRun.objects.bulk_create(
            ScheduleRun(
                schedule=row,
                due_at=now - timedelta(hours=number + 1),
                fired_at=now - timedelta(hours=number + 1) + timedelta(seconds=0.4),
                status="FIRED",
                task_id=task.pk,
            )
            for number, task in enumerate(ended)
        )


def _bulk_operations():
    now = timezone.now()
    shared = {"up_to": new_id(), "asked_by": ANN, "asked_at": now - timedelta(minutes=9)}
    BulkOperation.objects.create(
        id=new_id(),
        name="After the outage of globex",
        verb="retry",
        finished=True,
        filter={"status": "FAILED", "task": tasks.import_feed.module_path},
        words="Results, status failed, task import_feed",
        estimate=4_830,
        state="DONE",
        done=4_620,
        skipped={"RUNNING": 210},
        started_at=now - timedelta(minutes=9),
        finished_at=now - timedelta(minutes=2),
        **shared,
    )
    BulkOperation.objects.create(
        id=new_id(),
        verb="delete",
        finished=True,
        filter={"status": "SUCCESSFUL"},
        words="Results, status successful",
        estimate=48_300,
        rate=50.0,
        state="RUNNING",
        done=21_500,
        started_at=now - timedelta(minutes=7),
        # Held, so that a worker of a test leaves it as it is.
        locked_until=now + timedelta(days=1),
        **shared,
    )
