"""What parents returned: read when their children run, and copied nowhere."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import TextField
from django.db.models.functions import Cast

from ..dependencies import chunks
from ..encryption import opened
from ..exceptions import PreviousNotUsable
from ..models.finished import FinishedTask
from ..models.workflow import Barrier, Edge, Node, Shape
from ..states import FinalStatus
from .placing import looked_up, put


def opened_at(alias: str, barrier_id: str) -> datetime | None:
    """Return when the last of what a task waited for had ended."""
    return Barrier.objects.using(alias).filter(pk=barrier_id).values_list(
        "opened_at", flat=True
    ).first()  # fmt: skip


@dataclass(slots=True)
class _Inputs:
    """The inputs of some barriers, and of all that these have as inputs."""

    shapes: dict[UUID, str] = field(default_factory=dict)
    #: By barrier, in order: what it is, and whether that is a barrier.
    of: dict[UUID, list[tuple[UUID, bool, bool]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, alias: str, barriers: Iterable[UUID]) -> _Inputs:
        """Read them level by level."""
        made = cls()
        ahead = set(barriers)
        while ahead:
            following: set[UUID] = set()
            for some in chunks(ahead):
                rows = Barrier.objects.using(alias).filter(pk__in=some)
                made.shapes.update(rows.values_list("pk", "shape"))
                edges = Edge.objects.using(alias).filter(
                    barrier_id__in=some, position__isnull=False
                )
                for barrier, source, is_barrier, lenient in edges.order_by(
                    "barrier_id", "position"
                ).values_list("barrier_id", "source", "from_barrier", "lenient"):
                    made.of[barrier].append((source, is_barrier, lenient))
                    if is_barrier and source not in made.shapes:
                        following.add(source)
            ahead = following - set(made.shapes)
        return made

    @property
    def tasks(self) -> set[UUID]:
        """The tasks among them."""
        return {one for of in self.of.values() for one, is_barrier, _ in of if not is_barrier}

    def value(self, barrier: UUID, returned: Mapping[UUID, Any]) -> Any:
        """Return the value of a barrier by what tasks have returned."""
        values: list[Any] = []
        for source, is_barrier, _ in self.of[barrier]:
            if not is_barrier:
                values.append(returned.get(source))
            elif self.shapes[source] == Shape.FLAT:
                values += self.value(source, returned)
            else:
                values.append(self.value(source, returned))
        if self.shapes.get(barrier) == Shape.SINGLE:
            return values[0] if values else None
        return values


def fill(
    alias: str,
    conf: Any,
    place: Mapping[str, Any],
    args: list[Any],
    kwargs: dict[str, Any],
    *,
    what: str,
    is_secret: bool = False,
) -> None:
    """
    Put the results of parents where a task's arguments have a place for them.

    place is what a row's options have under "workflow". Raise
    PreviousNotUsable, which names what, where there is no such result, and,
    unless that is_secret, what there is instead.
    """
    placed = place["previous"]
    barriers: dict[str, UUID] = {}
    for _, source, _ in placed:
        if source == "" and place.get("barrier"):
            barriers[source] = UUID(place["barrier"])
        elif source.startswith("b:"):
            barriers[source] = UUID(source[2:])
    inputs = _Inputs.read(alias, barriers.values())
    returned = read(alias, conf, inputs.tasks, what=what)
    values: dict[str, Any] = {source: inputs.value(pk, returned) for source, pk in barriers.items()}
    for path, source, keys in placed:
        if source == "!":
            value: Any = failures(alias, place["id"], UUID(place["barrier"]))
        else:
            value = values[source]
        put(args, kwargs, path, looked_up(value, keys, what, is_secret=is_secret))


def value_of(alias: str, conf: Any, source: UUID, *, is_barrier: bool, what: str) -> Any:
    """Return the value of a task or a barrier."""
    if not is_barrier:
        return read(alias, conf, {source}, what=what).get(source)
    inputs = _Inputs.read(alias, {source})
    return inputs.value(source, read(alias, conf, inputs.tasks, what=what))


def read(alias: str, conf: Any, ids: Iterable[UUID], *, what: str) -> dict[UUID, Any]:
    """
    Return what successful tasks returned, by id; others have no entry.

    Raise PreviousNotUsable where that is too much at once.
    """
    wanted = set(ids)
    limit = getattr(conf, "max_previous_size", None)
    size = 0
    found: dict[UUID, Any] = {}
    for some in chunks(wanted):
        rows = FinishedTask.objects.using(alias).filter(pk__in=some, status=FinalStatus.SUCCESSFUL)
        # As text: the driver would make objects of it before its size is known.
        as_text = rows.annotate(text=Cast("return_value", TextField()))
        for pk, text in as_text.values_list("pk", "text"):
            if text is None:
                found[pk] = None
                continue
            size += len(text.encode())
            if limit is not None and size > limit:
                raise PreviousNotUsable(
                    f"{what}: the results of its {len(wanted):,} parents take more than "
                    f"{limit:,} bytes as JSON (OPTIONS['MAX_PREVIOUS_SIZE']). Have them store "
                    "the data and return its ids."
                )
            found[pk] = opened(json.loads(text), conf)
    return found


def failures(alias: str, workflow_id: str, barrier: UUID) -> list[dict[str, Any]]:
    """
    Return what failed, or was cancelled, before a barrier: where it began, not what followed.
    """
    nodes = {node.pk: node for node in Node.objects.using(alias).filter(workflow_id=workflow_id)}
    barriers = Barrier.objects.using(alias).filter(workflow_id=workflow_id).values("pk")
    sources: dict[UUID, list[UUID]] = defaultdict(list)
    edges = Edge.objects.using(alias).filter(barrier_id__in=barriers)
    for source, target in edges.values_list("source", "barrier_id"):
        sources[target].append(source)
    before: set[UUID] = set()
    ahead = [barrier]
    while ahead:
        for source in sources[ahead.pop()]:
            if source not in before:
                before.add(source)
                node = nodes.get(source)
                if node is None:
                    ahead.append(source)
                elif node.barrier_id is not None:
                    ahead.append(node.barrier_id)
    found: list[dict[str, Any]] = []
    for some in chunks(before & set(nodes)):
        rows = FinishedTask.objects.using(alias).filter(pk__in=some)
        for row in rows.exclude(status=FinalStatus.SUCCESSFUL):
            if nodes[row.pk].skipped:
                continue
            last = row.errors[-1] if row.errors else None
            text = last["traceback"].strip().rpartition("\n")[2] if last else row.reason
            found.append(
                {
                    "id": str(row.pk),
                    "task": row.task_path,
                    "name": nodes[row.pk].name,
                    "state": str(row.status),
                    "error": text,
                }
            )
    return sorted(found, key=lambda one: nodes[UUID(one["id"])].number)
