"""What can be done to a task by hand: the buttons, the answers that count, the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.utils.translation import gettext_lazy, ngettext_lazy

from .. import dependencies, transitions
from ..states import FinalStatus, LiveStatus

#: The answer about tasks to which a verb did nothing, by the state in which they are.
SKIPPED: dict[str, Any] = {
    "SCHEDULED": ngettext_lazy(
        "%(count)d was skipped: it is scheduled.",
        "%(count)d were skipped: they are scheduled.",
        "count",
    ),
    "WAITING": ngettext_lazy(
        "%(count)d was skipped: it is waiting.",
        "%(count)d were skipped: they are waiting.",
        "count",
    ),
    "READY": ngettext_lazy(
        "%(count)d was skipped: it is ready already.",
        "%(count)d were skipped: they are ready already.",
        "count",
    ),
    "RUNNING": ngettext_lazy(
        "%(count)d was skipped: it is running.",
        "%(count)d were skipped: they are running.",
        "count",
    ),
    "SUCCESSFUL": ngettext_lazy(
        "%(count)d was skipped: it was successful.",
        "%(count)d were skipped: they were successful.",
        "count",
    ),
    "FAILED": ngettext_lazy(
        "%(count)d was skipped: it has failed.",
        "%(count)d were skipped: they have failed.",
        "count",
    ),
    "CANCELLED": ngettext_lazy(
        "%(count)d was skipped: it is cancelled already.",
        "%(count)d were skipped: they are cancelled already.",
        "count",
    ),
    "": ngettext_lazy(
        "%(count)d was skipped: it is no longer here.",
        "%(count)d were skipped: they are no longer here.",
        "count",
    ),
}


@dataclass(frozen=True, slots=True)
class Done:
    """
    What came of some tasks: the sentence that counts them, and the one for their history.

    skipped: nothing did, for the reason that counted says.
    """

    ids: Sequence[str]
    counted: Any
    logged: Any
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Verb:
    """
    name is the end of its address, states are those that it starts from.

    act takes the database alias, ids of tasks in whatever state, and who asks.
    In the states of asks a page says warning first.
    """

    name: str
    label: Any
    states: frozenset[str]
    act: Callable[[str, Sequence[str], str], list[Done]]
    permission: str
    asks: frozenset[str] = frozenset()
    warning: Any = ""


def _cancel(alias: str, ids: Sequence[str], by: str, *, force: bool) -> list[Done]:
    cancelled = set(transitions.cancel(alias, ids, by=by))
    # In this order: what begins to run meanwhile is asked to end.
    rest = [pk for pk in ids if pk not in cancelled]
    asked = transitions.ask_to_end(alias, rest, by=by, force=force) if rest else []
    return [
        Done(
            [pk for pk in ids if pk in cancelled],
            ngettext_lazy(
                "%(count)d task was cancelled.", "%(count)d tasks were cancelled.", "count"
            ),
            gettext_lazy("Cancelled."),
        ),
        Done(
            asked,
            ngettext_lazy(
                "%(count)d running task was asked to end, and is killed if it does not.",
                "%(count)d running tasks were asked to end, and are killed if they do not.",
                "count",
            )
            if force
            else ngettext_lazy(
                "%(count)d running task was asked to end.",
                "%(count)d running tasks were asked to end.",
                "count",
            ),
            gettext_lazy("Asked to end, by force.") if force else gettext_lazy("Asked to end."),
        ),
    ]


def _retry(alias: str, ids: Sequence[str], by: str) -> list[Done]:
    moved = transitions.retry(alias, ids, by=by)
    asked = set(ids)
    retried = [pk for pk in moved if pk in asked]
    rest = asked - set(moved)
    return [
        Done(
            retried,
            ngettext_lazy(
                "%(count)d task will be retried.", "%(count)d tasks will be retried.", "count"
            ),
            gettext_lazy("Retried."),
        ),
        Done(
            [pk for pk in moved if pk not in asked],
            ngettext_lazy(
                "%(count)d task that was skipped because of that waits again.",
                "%(count)d tasks that were skipped because of that wait again.",
                "count",
            ),
            gettext_lazy("Waits again."),
        ),
        Done(
            [pk for pk in ids if pk in rest and dependencies.refusal(alias, pk) is not None],
            ngettext_lazy(
                "%(count)d was skipped: retry what it waits for in its workflow.",
                "%(count)d were skipped: retry what they wait for in their workflow.",
                "count",
            ),
            gettext_lazy("Not retried."),
            skipped=True,
        ),
    ]


def _run_now(alias: str, ids: Sequence[str], by: str) -> list[Done]:
    return [
        Done(
            transitions.run_now(alias, ids, by=by),
            ngettext_lazy(
                "%(count)d task is ready now.", "%(count)d tasks are ready now.", "count"
            ),
            gettext_lazy("Run now."),
        )
    ]


CANCEL = Verb(
    "cancel",
    gettext_lazy("Cancel"),
    frozenset(LiveStatus.values),
    partial(_cancel, force=False),
    "cancel_queuedtask",
    asks=frozenset({LiveStatus.RUNNING.value}),
    warning=gettext_lazy(
        "It is running. It is asked to end at its next check; it may still finish."
    ),
)
CANCEL_BY_FORCE = Verb(
    "force",
    gettext_lazy("Cancel by force"),
    frozenset({LiveStatus.RUNNING.value}),
    partial(_cancel, force=True),
    "cancel_queuedtask",
    asks=frozenset({LiveStatus.RUNNING.value}),
    warning=gettext_lazy(
        "It is running. An exception is raised in it, and its process is killed if it does not "
        "end within its grace. What it has begun may be half done."
    ),
)
RUN_NOW = Verb(
    "run",
    gettext_lazy("Run now"),
    frozenset({LiveStatus.SCHEDULED.value}),
    _run_now,
    "run_queuedtask",
)
RETRY = Verb(
    "retry",
    gettext_lazy("Retry"),
    frozenset({FinalStatus.FAILED.value, FinalStatus.CANCELLED.value}),
    _retry,
    "retry_finishedtask",
)
