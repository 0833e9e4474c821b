"""What can be done to each of many tasks, and why some are left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.formats import number_format
from django.utils.translation import gettext_lazy, ngettext_lazy

from .. import dependencies, transitions
from ..models.bulk import BulkVerb
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.step import Step
from ..states import FinalStatus, LiveStatus

#: Reasons, besides states, for which a task is left alone.
GONE, IN_WORKFLOW, PARENTS, KEY_TAKEN, RAISED = "", "WORKFLOW", "PARENTS", "KEY", "ERROR"

#: Reasons in words, each with a count.
REASONS: dict[str, Any] = {
    LiveStatus.SCHEDULED: ngettext_lazy(
        "%(count)s is scheduled.", "%(count)s are scheduled.", "number"
    ),
    LiveStatus.WAITING: ngettext_lazy(
        "%(count)s waits for something else.", "%(count)s wait for something else.", "number"
    ),
    LiveStatus.READY: ngettext_lazy(
        "%(count)s is ready already.", "%(count)s are ready already.", "number"
    ),
    LiveStatus.RUNNING: ngettext_lazy("%(count)s is running.", "%(count)s are running.", "number"),
    FinalStatus.SUCCESSFUL: ngettext_lazy(
        "%(count)s was successful.", "%(count)s were successful.", "number"
    ),
    FinalStatus.FAILED: ngettext_lazy("%(count)s has failed.", "%(count)s have failed.", "number"),
    FinalStatus.CANCELLED: ngettext_lazy(
        "%(count)s is cancelled already.", "%(count)s are cancelled already.", "number"
    ),
    GONE: ngettext_lazy("%(count)s is no longer here.", "%(count)s are no longer here.", "number"),
    IN_WORKFLOW: ngettext_lazy(
        "%(count)s belongs to a workflow, which goes as a whole.",
        "%(count)s belong to workflows, which go as a whole.",
        "number",
    ),
    PARENTS: ngettext_lazy(
        "%(count)s can't run before what it waits for in its workflow.",
        "%(count)s can't run before what they wait for in their workflows.",
        "number",
    ),
    KEY_TAKEN: ngettext_lazy(
        "%(count)s is unique, and another task has its key now.",
        "%(count)s are unique, and other tasks have their keys now.",
        "number",
    ),
    RAISED: ngettext_lazy(
        "%(count)s could not be changed: see the error.",
        "%(count)s could not be changed: see the error.",
        "number",
    ),
}


@dataclass(frozen=True, slots=True)
class Verb:
    """
    One act, on tasks of one table that are in one of these states.

    act does it within the caller's transaction and returns the ids of those
    it was done to. permission is what the user needs besides bulk_task.
    """

    name: BulkVerb
    finished: bool
    states: frozenset[str]
    permission: str
    #: What happens, in words that a page shows before.
    consequence: Any
    act: Callable[[str, Sequence[str], str], list[str]]


def _retry(alias: str, ids: Sequence[str], by: str) -> list[str]:
    asked = set(ids)
    # Members of workflows that were skipped because of them are not what was asked for.
    return [pk for pk in transitions.retry(alias, ids, by=by) if pk in asked]


def _cancel(alias: str, ids: Sequence[str], by: str) -> list[str]:
    return transitions.cancel(alias, ids, by=by)


def _run_now(alias: str, ids: Sequence[str], by: str) -> list[str]:
    return transitions.run_now(alias, ids, by=by)


def _delete(alias: str, ids: Sequence[str], by: str) -> list[str]:
    members = dependencies.workflows_of(alias, map(UUID, ids))
    free = sorted(pk for pk in ids if UUID(pk) not in members)
    done = FinishedTask.objects.using(alias)
    # Locked: of a task that is retried meanwhile the steps must stay.
    locked = list(done.select_for_update().filter(pk__in=free).values_list("pk", flat=True))
    Step.objects.using(alias).filter(task_id__in=locked)._raw_delete(alias)
    done.filter(pk__in=locked)._raw_delete(alias)
    return [str(pk) for pk in locked]


VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            BulkVerb.RETRY,
            True,
            frozenset({FinalStatus.FAILED.value, FinalStatus.CANCELLED.value}),
            "retry_finishedtask",
            gettext_lazy("Failed and cancelled tasks run again, under the same ids."),
            _retry,
        ),
        Verb(
            BulkVerb.DELETE,
            True,
            frozenset(FinalStatus.values),
            "delete_finishedtask",
            gettext_lazy("Results are deleted for good, and their steps with them."),
            _delete,
        ),
        Verb(
            BulkVerb.CANCEL,
            False,
            frozenset(LiveStatus.values) - {LiveStatus.RUNNING.value},
            "cancel_queuedtask",
            gettext_lazy("Tasks that have not started are cancelled. What runs, finishes."),
            _cancel,
        ),
        Verb(
            BulkVerb.RUN_NOW,
            False,
            frozenset({LiveStatus.SCHEDULED.value}),
            "run_queuedtask",
            gettext_lazy("Scheduled tasks, and those that wait to retry, become ready at once."),
            _run_now,
        ),
    )
}


def reasons(alias: str, verb: Verb, ids: Sequence[str]) -> Counter[str]:
    """Return how many of tasks that verb has left alone were so for which reason."""
    if not ids:
        return Counter()
    found: dict[str, str] = {}
    for model in (QueuedTask, FinishedTask):
        rows = model._default_manager.using(alias).filter(pk__in=list(ids))
        found.update((str(pk), status) for pk, status in rows.values_list("pk", "status"))
    counts: Counter[str] = Counter()
    refused = [pk for pk in ids if found.get(pk, GONE) in verb.states]
    counts.update(found.get(pk, GONE) for pk in ids if pk not in set(refused))
    members = dependencies.workflows_of(alias, map(UUID, refused))
    in_workflow = PARENTS if verb.name == BulkVerb.RETRY else IN_WORKFLOW
    for pk in refused:
        if UUID(pk) in members:
            counts[in_workflow] += 1
        elif verb.name == BulkVerb.RETRY:
            counts[KEY_TAKEN] += 1
        else:
            # It came to this state after it was looked at.
            counts[found[pk]] += 1
    return counts


def in_words(reason: str, count: int) -> str:
    """Return a reason with its count, as people read it."""
    text = REASONS.get(reason)
    shown = number_format(count, force_grouping=True)
    return f"{shown} {reason}" if text is None else str(text % {"number": count, "count": shown})
