"""
Whether all is well, in words: the one place that decides it.

The dashboard, `bgtasks status`, `bgtasks health` and the health view show the
same findings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..db import operations_for
from ..models import Duty, FinishedTask
from ..schedules.watching import problems
from ..workers import clock_differs
from .snapshot import Counted, Snapshot, take_snapshot

#: Failures that are too many: this share of what ended of late, and so many at least.
FAILURE_SHARE = 0.1
FEWEST_FAILURES = 20
#: Finished tasks from which on it matters that they are pruned, and how often.
MANY_RESULTS = 1_000_000
PRUNE_WITHIN = timedelta(days=7)
#: Seconds for which an estimate of their number is good enough.
ESTIMATE_SECONDS = 300.0
#: Findings that one sentence holds.
MOST = 3


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Noun:
    """A part of a sentence, and what it is about: a kind (queue, worker, ...) and its key."""

    text: str
    kind: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: a sentence with %(name)s in the places of its nouns."""

    rule: str
    level: Level
    template: str
    nouns: Mapping[str, Noun] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.template % {name: noun.text for name, noun in self.nouns.items()}


@dataclass(frozen=True, slots=True)
class Health:
    """What was found at one moment, the most urgent first."""

    snapshot: Snapshot
    findings: Sequence[Finding]

    @property
    def level(self) -> Level:
        levels = [finding.level for finding in self.findings]
        return Level.BAD if Level.BAD in levels else levels[0] if levels else Level.OK

    @property
    def is_well(self) -> bool:
        return not self.findings

    @property
    def summary(self) -> Finding:
        """The sentence when nothing is wrong."""
        snapshot = self.snapshot
        count = len(snapshot.live_workers)
        nouns = {
            "workers": Noun(
                ngettext("%(count)d worker", "%(count)d workers", count) % {"count": count},
                "workers",
            )
        }
        if snapshot.oldest is None:
            template = _("All is well. %(workers)s, nothing waits.")
        else:
            template = _("All is well. %(workers)s, oldest waiting task %(age)s.")
            nouns["age"] = Noun(seconds_in_words(snapshot.oldest), "waiting")
        return Finding("well", Level.OK, template, nouns)

    def __str__(self) -> str:
        """Return the sentence: at most MOST findings, then how many more there are."""
        if self.is_well:
            return str(self.summary)
        shown = [str(finding).rstrip(".") for finding in self.findings[:MOST]]
        rest = len(self.findings) - len(shown)
        if rest:
            shown.append(ngettext("%(count)d more", "%(count)d more", rest) % {"count": rest})
        return f"{'; '.join(shown)}."


def examine(alias: str, *, snapshot: Snapshot | None = None) -> Health:
    """Return the health of the tasks in a database; snapshot is what is known of it already."""
    found = snapshot or take_snapshot(alias)
    return Health(found, [f for rule in RULES for f in rule(found)])


# The rules, in the order in which they are told


def _no_worker(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.ready.count and not snapshot.live_workers:
        count = snapshot.ready.count
        yield Finding(
            "no-worker",
            Level.BAD,
            ngettext(
                "No worker is running and %(tasks)s is waiting. Start one with "
                "python manage.py runworker.",
                "No worker is running and %(tasks)s are waiting. Start one with "
                "python manage.py runworker.",
                count,
            ),
            {"tasks": _tasks(snapshot.ready)},
        )


def _nobody_listens(snapshot: Snapshot) -> Iterator[Finding]:
    if not snapshot.live_workers:
        return
    for queue in snapshot.queues:
        if queue.is_unserved and not queue.resting and not queue.is_paused:
            count = queue.waiting
            yield Finding(
                "no-listener",
                Level.BAD,
                ngettext(
                    "%(tasks)s waits in %(queue)s and no worker listens to it.",
                    "%(tasks)s wait in %(queue)s and no worker listens to it.",
                    count,
                ),
                {
                    "tasks": _tasks(Counted.of([queue], "waiting"), queue.name),
                    "queue": Noun(queue.name, "queue", queue.name),
                },
            )


def _lost_workers(snapshot: Snapshot) -> Iterator[Finding]:
    for worker in snapshot.lost_workers:
        age = (snapshot.now - worker.heartbeat_at).total_seconds()
        yield Finding(
            "worker-lost",
            Level.WARN,
            _("Worker %(worker)s has not been heard of for %(age)s."),
            {
                "worker": Noun(worker.name, "worker", str(worker.pk)),
                "age": Noun(seconds_in_words(age), ""),
            },
        )


def _paused_queues(snapshot: Snapshot) -> Iterator[Finding]:
    for queue in snapshot.queues:
        if queue.is_paused and queue.waiting:
            count = queue.waiting
            yield Finding(
                "queue-paused",
                Level.WARN,
                ngettext(
                    "Queue %(queue)s is paused with %(tasks)s waiting.",
                    "Queue %(queue)s is paused with %(tasks)s waiting.",
                    count,
                ),
                {
                    "tasks": _tasks(Counted.of([queue], "waiting"), queue.name),
                    "queue": Noun(queue.name, "queue", queue.name),
                },
            )


def _many_failures(snapshot: Snapshot) -> Iterator[Finding]:
    ended, failed = snapshot.lately.count, snapshot.lately.failed
    if failed >= FEWEST_FAILURES and failed > FAILURE_SHARE * ended:
        yield Finding(
            "failures",
            Level.BAD,
            _("%(failed)s of %(ended)s tasks failed in the last 15 minutes."),
            {
                "failed": Noun(f"{failed:,}", "failures"),
                "ended": Noun(f"{ended:,}", ""),
            },
        )


def _late_queues(snapshot: Snapshot) -> Iterator[Finding]:
    for queue in snapshot.queues:
        if not queue.is_late or queue.is_unserved or queue.oldest_age is None:
            continue  # What nobody serves was said already.
        yield Finding(
            "queue-late",
            Level.WARN,
            _("The oldest task in %(queue)s has waited for %(age)s, longer than its target."),
            {
                "queue": Noun(queue.name, "queue", queue.name),
                "age": Noun(seconds_in_words(queue.oldest_age), "queue", queue.name),
            },
        )


def _schedules(snapshot: Snapshot) -> Iterator[Finding]:
    for problem in problems(snapshot.alias, now=snapshot.now):
        yield Finding(
            f"schedule-{problem.rule}",
            Level.WARN,
            "%(problem)s",
            {"problem": Noun(problem.text, "schedule", problem.schedule)},
        )


def _clocks(snapshot: Snapshot) -> Iterator[Finding]:
    for worker in snapshot.live_workers:
        if clock_differs(worker):
            text = (
                _("The clock of %(worker)s's machine is %(age)s ahead of the database's.")
                if worker.clock_offset > 0
                else _("The clock of %(worker)s's machine is %(age)s behind the database's.")
            )
            yield Finding(
                "clock",
                Level.WARN,
                text,
                {
                    "worker": Noun(worker.name, "worker", str(worker.pk)),
                    "age": Noun(seconds_in_words(abs(worker.clock_offset)), ""),
                },
            )


def _unpruned(snapshot: Snapshot) -> Iterator[Finding]:
    about = _about_results(snapshot.alias)
    if about <= MANY_RESULTS:
        return
    pruned = Duty.objects.using(snapshot.alias).filter(name="prune").first()
    if pruned is None or pruned.last_run_at < snapshot.now - PRUNE_WITHIN:
        yield Finding(
            "unpruned",
            Level.WARN,
            _(
                "There are about %(count)s results and none was pruned for a week. Run "
                "python manage.py bgtasks prune."
            ),
            {"count": Noun(f"{about:,}", "results")},
        )


def _about_results(alias: str) -> int:
    """Return the estimate, at most some minutes old: a page asks every few seconds."""
    known, now = _estimates.get(alias), time.monotonic()
    if known is None or known[0] < now:
        known = (now + ESTIMATE_SECONDS, operations_for(alias).estimate(FinishedTask))
        _estimates[alias] = known
    return known[1]


_estimates: dict[str, tuple[float, int]] = {}


RULES: Sequence[Callable[[Snapshot], Iterator[Finding]]] = (
    _no_worker,
    _nobody_listens,
    _lost_workers,
    _paused_queues,
    _many_failures,
    _late_queues,
    _schedules,
    _clocks,
    _unpruned,
)


def _tasks(counted: Counted, queue: str = "") -> Noun:
    text = ngettext("%(count)s task", "%(count)s tasks", counted.count)
    text = text % {"count": counted.text}
    return Noun(text, "ready", queue)


def seconds_in_words(seconds: float) -> str:
    """Return seconds as "42 s", "4 min" or "3 h", for sentences."""
    whole = round(max(seconds, 0))
    for size, most, text in (
        (1, 90, _("%(number)d s")),
        (60, 5_400, _("%(number)d min")),
        (3_600, 172_800, _("%(number)d h")),
    ):
        if whole < most:
            return text % {"number": round(whole / size)}
    return _("%(number)d d") % {"number": round(whole / 86_400)}
