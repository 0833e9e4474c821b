"""A workflow for people: as text, as JSON, and laid out for a picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from ..dependencies import chunks
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.workflow import Barrier, Condition, Edge, Node, Workflow
from ..states import FinalStatus, LiveStatus

#: More tasks than this are shown in bundles of those that are alike.
LARGEST = 60
#: States from the one to look at first to the one to look at last.
URGENT = (
    FinalStatus.FAILED.value,
    LiveStatus.RUNNING.value,
    LiveStatus.READY.value,
    LiveStatus.SCHEDULED.value,
    LiveStatus.WAITING.value,
    FinalStatus.CANCELLED.value,
    FinalStatus.SUCCESSFUL.value,
)
SYMBOLS = {
    "SCHEDULED": "◷",
    "WAITING": "○",
    "READY": "◌",
    "RUNNING": "▶",
    "SUCCESSFUL": "✓",
    "FAILED": "✕",
    "CANCELLED": "⊘",
}


@dataclass(slots=True)
class Member:
    """A task of a workflow. seconds is how long its last attempt took, or takes."""

    id: UUID
    number: int
    name: str
    part: str
    barrier: UUID | None
    task: str = ""
    state: str = ""
    reason: str = ""
    seconds: float | None = None
    enqueued_at: datetime | None = None


@dataclass(slots=True, eq=False)
class Box:
    """One or several tasks that are alike; with of None a joint where lines meet."""

    members: list[Member]
    barrier: UUID | None
    level: int = 0
    after: list[Box] = field(default_factory=list)

    @property
    def is_joint(self) -> bool:
        """Whether this only joins lines."""
        return not self.members

    @property
    def name(self) -> str:
        """The name of its tasks, and how many they are."""
        count = len(self.members)
        return self.members[0].name + (f" ×{count:,}" if count > 1 else "")

    @property
    def states(self) -> Counter[str]:
        """How many of its tasks are in which state."""
        return Counter(member.state for member in self.members)

    @property
    def state(self) -> str:
        """The state to look at first."""
        states = self.states
        return next((state for state in URGENT if states[state]), "")

    @property
    def seconds(self) -> float | None:
        """How long the longest of its tasks took."""
        taken = [m.seconds for m in self.members if m.seconds is not None]
        return max(taken) if taken else None


@dataclass(slots=True)
class Description:
    """What a workflow is made of, and how far each part is."""

    id: str
    name: str
    state: str
    reason: str
    enqueued_at: datetime
    finished_at: datetime | None
    members: list[Member]
    #: By barrier: its condition, and its inputs in order.
    barriers: dict[UUID, tuple[str, list[UUID]]]

    @classmethod
    def read(cls, row: Workflow, alias: str) -> Description:
        """Read all of it from the database."""
        members = {
            node.pk: Member(node.pk, node.number, node.name, node.part, node.barrier_id)
            for node in Node.objects.using(alias).filter(workflow_id=row.pk).order_by("number")
        }
        now = timezone.now()
        for model in (QueuedTask, FinishedTask):
            final = model is FinishedTask
            for some in chunks(members):
                tasks = model._default_manager.using(alias).filter(pk__in=some)
                for pk, path, status, reason, enqueued, began, ended in tasks.values_list(
                    "pk", "task_path", "status", "reason", "enqueued_at", "last_attempted_at",
                    "finished_at" if final else "due_at",
                ):  # fmt: skip
                    member = members[pk]
                    member.task, member.state, member.reason = path, status, reason
                    member.enqueued_at = enqueued
                    until = ended if final else now if status == LiveStatus.RUNNING else None
                    if began is not None and until is not None:
                        member.seconds = max(0.0, (until - began).total_seconds())
        barriers: dict[UUID, tuple[str, list[UUID]]] = {
            pk: (condition, [])
            for pk, condition in Barrier.objects.using(alias)
            .filter(workflow_id=row.pk)
            .values_list("pk", "condition")
        }
        for some in chunks(barriers):
            edges = Edge.objects.using(alias).filter(barrier_id__in=some)
            for source, barrier in edges.order_by("barrier_id", "position", "pk").values_list(
                "source", "barrier_id"
            ):
                barriers[barrier][1].append(source)
        return cls(
            str(row.pk), row.name, str(row.status), row.reason, row.enqueued_at, row.finished_at,
            list(members.values()), barriers,
        )  # fmt: skip

    @property
    def counts(self) -> Counter[str]:
        """How many tasks are in which state."""
        return Counter(member.state for member in self.members)

    # As text and as JSON

    def __str__(self) -> str:
        counts = self.counts
        done = sum(counts[state] for state in FinalStatus.values)
        lines = [f"{self.name} ({self.id}): {self.state.lower()}, {done:,} of "
                 f"{len(self.members):,} tasks"]  # fmt: skip
        if self.reason:
            lines.append(f"  {self.reason}")
        boxes = [box for box in self.boxes(most=LARGEST) if not box.is_joint]
        boxes.sort(key=lambda box: (box.level, box.members[0].number))
        width = max((len(box.name) for box in boxes), default=0)
        for box in boxes:
            taken = "" if box.seconds is None else f"{box.seconds:.1f} s"
            line = f"  {SYMBOLS.get(box.state, ' ')} {box.name:{width}}  "
            line += f"{_in_words(box.states):<24} {taken:>8}"
            names = self.waited_for(box)
            if names:
                line += f"  after {names}"
            if len(box.members) == 1 and box.members[0].reason:
                line += f"  {box.members[0].reason}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    def waited_for(self, box: Box) -> str:
        """Return the names of what a box comes after."""
        ahead, names = list(box.after), []
        while ahead:
            other = ahead.pop(0)
            if other.is_joint:
                ahead += other.after
            elif other.name not in names:
                names.append(other.name)
        return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON knows it; times in ISO 8601, durations in seconds."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "enqueued_at": self.enqueued_at.isoformat(),
            "finished_at": self.finished_at and self.finished_at.isoformat(),
            "counts": dict(self.counts),
            "tasks": [
                {
                    "id": str(member.id),
                    "name": member.name,
                    "task": member.task,
                    "part": member.part,
                    "state": member.state,
                    "reason": member.reason,
                    "seconds": member.seconds,
                    "after": member.barrier and str(member.barrier),
                }
                for member in self.members
            ],
            "barriers": [
                {"id": str(pk), "condition": condition, "inputs": [str(one) for one in inputs]}
                for pk, (condition, inputs) in self.barriers.items()
            ],
        }

    # As a picture

    def boxes(self, *, most: int = LARGEST) -> list[Box]:
        """
        Return boxes and joints with their levels; above most tasks those that are alike share one.
        """
        targets: dict[UUID, list[UUID]] = defaultdict(list)
        for barrier, (_, inputs) in self.barriers.items():
            for source in inputs:
                targets[source].append(barrier)
        bundled = len(self.members) > most
        boxes: dict[Any, Box] = {}
        box_of: dict[UUID, Box] = {}
        for member in self.members:
            key: Any = member.id
            if bundled:
                # Inputs of a tree of barriers come together behind it.
                ends = tuple(sorted({str(self._root(b, targets)) for b in targets[member.id]}))
                key = (member.name, member.barrier, ends)
            box = boxes.get(key)
            if box is None:
                box = boxes[key] = Box([], member.barrier)
            box.members.append(member)
            box_of[member.id] = box
        joints: dict[UUID, Box] = {}
        for box in list(boxes.values()):
            if box.barrier is not None:
                box.after = self._before(box.barrier, box_of, joints, set())
        self._straighten(boxes, joints)
        result = [*boxes.values(), *joints.values()]
        _set_levels(result)
        return result

    def _root(self, barrier: UUID, targets: dict[UUID, list[UUID]]) -> UUID:
        """Return the barrier that a tree of them leads to."""
        while len(targets[barrier]) == 1 and not self._is_waited_for(barrier):
            barrier = targets[barrier][0]
        return barrier

    def _is_waited_for(self, barrier: UUID) -> bool:
        return any(member.barrier == barrier for member in self.members[:LARGEST])

    def _before(
        self, barrier: UUID, box_of: dict[UUID, Box], joints: dict[UUID, Box], seen: set[UUID]
    ) -> list[Box]:
        """Return what a barrier waits for: its inputs' boxes, or a joint where they are several."""
        if barrier in joints:
            return [joints[barrier]]
        _, inputs = self.barriers.get(barrier, (Condition.SUCCESS, []))
        found: list[Box] = []
        for source in inputs:
            if source in box_of:
                found.append(box_of[source])
            elif source not in seen:
                found += self._before(source, box_of, joints, seen | {barrier})
        unique = list(dict.fromkeys(found))
        if len(unique) <= 1:
            return unique
        joints[barrier] = Box([], barrier, after=unique)
        return [joints[barrier]]

    @staticmethod
    def _straighten(boxes: dict[Any, Box], joints: dict[UUID, Box]) -> None:
        """Take out joints that only one box comes after: lines may end in it themselves."""
        users: dict[Box, list[Box]] = defaultdict(list)
        for box in [*boxes.values(), *joints.values()]:
            for other in box.after:
                if other.is_joint:
                    users[other].append(box)
        for pk, joint in list(joints.items()):
            if len(users[joint]) == 1:
                user = users[joint][0]
                place = user.after.index(joint)
                user.after[place : place + 1] = joint.after
                for before in joint.after:
                    if before.is_joint:
                        users[before].append(user)
                        users[before].remove(joint)
                del joints[pk]

    def svg(self, link: Callable[[Box], str | None] = lambda box: None) -> str:
        """
        Return the graph as SVG, from left to right; link gives the address behind a box.

        Without scripts and styles, so that it may stand in a page whose policy
        allows none.
        """
        from .picture import draw

        return draw(self, link)


def _set_levels(boxes: list[Box]) -> None:
    """Give each box the length of the longest way to it."""
    done: set[Box] = set()
    ahead = list(boxes)
    while ahead:
        rest = []
        for box in ahead:
            if all(other in done for other in box.after):
                box.level = max((other.level + 1 for other in box.after), default=0)
                done.add(box)
            else:
                rest.append(box)
        if len(rest) == len(ahead):
            return  # A circle can't be written; a row that is gone can leave anything.
        ahead = rest


def _in_words(states: Counter[str]) -> str:
    if states.total() == 1:
        return next(iter(states)).lower()
    return ", ".join(f"{states[s]:,} {s.lower()}" for s in URGENT if states[s])
