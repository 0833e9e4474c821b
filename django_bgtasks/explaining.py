"""
Why a task isn't running: one sentence that names the reason.

The page of a task and `bgtasks explain-task` both ask here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import dependencies, registry
from .db import operations_for
from .exceptions import UnknownTask
from .models.cancellation import Cancellation
from .models.finished import FinishedTask
from .models.limit import LimitHold, LimitKey, LimitWait
from .models.queue import Queue
from .models.queued import QueuedTask
from .models.record import TaskRecord
from .models.worker import Worker, WorkerState
from .models.workflow import Barrier, Node, Workflow
from .results import serving
from .states import FinalStatus, LiveStatus

#: Seconds after which what is due and still SCHEDULED is a matter of no worker.
LATE = 10.0
#: Tasks that are counted, and named.
COUNTED, NAMED = 1000, 3


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a caller knows of a task's workflow already: its name, and how many come before."""

    workflow: str
    barrier: UUID
    count: int


def explain(
    row: TaskRecord,
    *,
    now: datetime | None = None,
    with_keys: bool = True,
    ahead: Ahead | None = None,
) -> str:
    """
    Return why a task is in the state that it is in, in the active language.

    Without with_keys the keys of its limits are left out: they are made of arguments.
    """
    alias = row._state.db or "default"
    moment = now or operations_for(alias).now()
    if isinstance(row, FinishedTask):
        return _finished(row, moment)
    assert isinstance(row, QueuedTask)
    if row.status == LiveStatus.RUNNING:
        return _running(row, alias, moment)
    if row.status == LiveStatus.SCHEDULED:
        return _scheduled(row, alias, moment)
    if row.status == LiveStatus.WAITING:
        return _waiting(row, alias, moment, with_keys, ahead)
    return _ready(row, alias, moment)


def _finished(row: FinishedTask, now: datetime) -> str:
    state = str(FinalStatus(row.status).label).lower()
    text = _("It has ended %(ago)s ago: %(state)s.") % {
        "ago": span((now - row.finished_at).total_seconds()),
        "state": state,
    }
    return f"{text} {row.reason}" if row.reason else text


def _running(row: QueuedTask, alias: str, now: datetime) -> str:
    since = span((now - (row.last_attempted_at or row.enqueued_at)).total_seconds())
    if row.lease_until is not None and row.lease_until < now:
        return _(
            "It ran on %(worker)s, of which nothing was heard for its whole lease. Another "
            "worker takes it over soon."
        ) % {"worker": row.worker_id}
    asked = Cancellation.objects.using(alias).filter(task_id=row.pk).first()
    if asked is not None:
        return _(
            "It has been running for %(since)s on %(worker)s, and was asked to end: %(why)s"
        ) % {
            "since": since,
            "worker": row.worker_id,
            "why": asked.reason,
        }
    return _("It has been running for %(since)s on %(worker)s.") % {
        "since": since,
        "worker": row.worker_id,
    }


def _scheduled(row: QueuedTask, alias: str, now: datetime) -> str:
    due = row.due_at or row.run_after
    ahead = (due - now).total_seconds() if due is not None else 0.0
    if ahead < -LATE:
        return _(
            "It was due %(ago)s ago, and no worker has looked since. Is one running, without "
            "--no-maintenance?"
        ) % {"ago": span(-ahead)}
    text = _("It is due in %(time)s.") % {"time": span(max(ahead, 0.0))}
    return f"{text} {row.reason}" if row.reason else text


def _waiting(
    row: QueuedTask, alias: str, now: datetime, with_keys: bool, ahead: Ahead | None
) -> str:
    wait = LimitWait.objects.using(alias).filter(pk=row.pk).first()
    if wait is not None:
        return _at_a_limit(row, wait, alias, now, with_keys)
    if ahead is not None:
        barrier = Barrier.objects.using(alias).filter(pk=ahead.barrier).first()
        name, count = ahead.workflow, ahead.count
    else:
        node = Node.objects.using(alias).filter(pk=row.pk).first()
        barrier = None
        if node is not None and node.barrier_id is not None:
            barrier = Barrier.objects.using(alias).filter(pk=node.barrier_id).first()
        if node is not None and barrier is not None:
            workflow = Workflow.objects.using(alias).filter(pk=node.workflow_id).first()
            name = workflow.name if workflow else "?"
            count = dependencies.missing(alias, barrier)
    if barrier is None:
        return _("It waits, and nothing says for what: a worker looks into it soon.")
    text = ngettext(
        "It waits for %(count)s that comes before it in the workflow %(name)s.",
        "It waits for %(count)s that come before it in the workflow %(name)s.",
        count,
    ) % {"count": number_format(count), "name": name}
    if barrier.failed and barrier.cause:
        then = _("Then it is skipped: %(cause)s.") % {"cause": barrier.cause}
        return f"{text} {then}"
    return text


def _at_a_limit(
    row: QueuedTask, wait: LimitWait, alias: str, now: datetime, with_keys: bool
) -> str:
    marks = (row.options or {}).get("marks") or {}
    concurrency, rate = marks.get("concurrency"), marks.get("rate")
    key = LimitKey.objects.using(alias).filter(pk=wait.digest).first()
    before = LimitWait.objects.using(alias).filter(digest=wait.digest, rank__lte=wait.rank)
    ahead = before.filter(task_id__lt=row.pk)[:COUNTED].count()
    if concurrency and concurrency[0] == wait.digest:
        places = LimitHold.objects.using(alias).filter(digest=wait.digest)
        running = QueuedTask.objects.using(alias).filter(
            pk__in=list(places.values_list("task_id", flat=True)[:COUNTED]),
            status=LiveStatus.RUNNING,
        )
        named = ", ".join(map(str, running.order_by("pk")[:NAMED])) or "-"
        text = _("At most %(most)s of the key %(key)s run at once: now %(named)s.") % {
            "most": number_format(concurrency[2]),
            "key": concurrency[1] if with_keys else "••••",
            "named": named,
        }
    else:
        free = key.next_at if key is not None and key.next_at is not None else now
        text = _("The rate of the key %(key)s is used up; its next start is in %(time)s.") % {
            "key": rate[1] if rate and with_keys else "••••",
            "time": span(max((free - now).total_seconds(), 0.0)),
        }
    more = ngettext(
        "%(count)s other waits before it.", "%(count)s others wait before it.", ahead
    ) % {"count": _counted(ahead)}
    return f"{text} {more}" if ahead else text


def _ready(row: QueuedTask, alias: str, now: datetime) -> str:
    queue = Queue.objects.using(alias).filter(pk=row.queue_name, paused_at__isnull=False).first()
    if queue is not None:
        assert queue.paused_at is not None
        who = _(" by %(name)s") % {"name": queue.paused_by} if queue.paused_by else ""
        text = _("Its queue %(queue)s was paused%(who)s %(ago)s ago.") % {
            "queue": row.queue_name,
            "who": who,
            "ago": span((now - queue.paused_at).total_seconds()),
        }
        return f"{text} {queue.reason}" if queue.reason else text
    workers = serving(row.queue_name, row.backend, alias)
    if not workers:
        return _no_worker(row, alias)
    if _is_unknown(row):
        return _(
            "This code has no task %(path)s; a worker with the same code puts it off. Was it "
            "renamed?"
        ) % {"path": row.task_path}
    return _busy(row, alias, workers)


def _no_worker(row: QueuedTask, alias: str) -> str:
    quiet = [
        worker.name
        for worker in serving(row.queue_name, row.backend, alias, state=None)
        if worker.state in (WorkerState.QUIET, WorkerState.STOPPING)
    ]
    if quiet:
        return _("The workers that serve its queue %(queue)s take nothing now: %(names)s.") % {
            "queue": row.queue_name,
            "names": ", ".join(quiet[:NAMED]),
        }
    return _(
        "No live worker serves its queue %(queue)s. Start one: python manage.py runworker %(queue)s"
    ) % {"queue": row.queue_name}


def _busy(row: QueuedTask, alias: str, workers: list[Worker]) -> str:
    ready = QueuedTask.objects.using(alias).filter(
        status=LiveStatus.READY, queue_name=row.queue_name
    )
    ahead = ready.filter(rank__lt=row.rank)[:COUNTED].count()
    if ahead < COUNTED:
        same = ready.filter(rank=row.rank, fair_key=row.fair_key, pk__lt=row.pk)
        ahead = min(COUNTED, ahead + same[:COUNTED].count())
    slots = sum(worker.processes * worker.threads for worker in workers)
    text = ngettext(
        "It is ready. %(workers)s worker with %(slots)s slots runs %(running)s tasks now",
        "It is ready. %(workers)s workers with %(slots)s slots run %(running)s tasks now",
        len(workers),
    ) % {
        "workers": number_format(len(workers)),
        "slots": number_format(slots),
        "running": number_format(sum(worker.running for worker in workers)),
    }
    if not ahead:
        return _("%(text)s; it is the next of its queue.") % {"text": text}
    return _("%(text)s; %(ahead)s others of its queue come before it.") % {
        "text": text,
        "ahead": _counted(ahead),
    }


def _is_unknown(row: QueuedTask) -> bool:
    try:
        registry.resolve(row.task_path, **registry.lookup(row.backend))
    except UnknownTask:
        return True
    except Exception:  # Whatever a module raises while it is imported.
        return False
    return False


def _counted(number: int) -> str:
    return number_format(number) + ("+" if number >= COUNTED else "")


def span(seconds: float) -> str:
    """Return a duration in its largest unit: "45 s", "3 min", "2 h", "4 d"."""
    units: list[tuple[float, Any]] = [
        (86_400.0, _("%(number)s d")),
        (3_600.0, _("%(number)s h")),
        (60.0, _("%(number)s min")),
    ]
    for size, text in units:
        if seconds >= 2 * size:
            return text % {"number": number_format(int(seconds // size))}
    return _("%(number)s s") % {"number": number_format(round(max(seconds, 0.0)))}
