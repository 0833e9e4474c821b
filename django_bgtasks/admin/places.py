"""A task's place in its workflow, for its page."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ..explaining import Ahead
from ..models.record import TaskRecord
from ..models.workflow import Node, Workflow
from ..states import FinalStatus
from ..workflows.description import LARGEST, Description
from .payload import mapping


@dataclass(frozen=True, slots=True)
class Place:
    """The workflow of a task, the task's name in it, and all of it unless it is large."""

    workflow: Workflow
    name: str
    description: Description | None

    def known(self, task_id: UUID) -> Ahead | None:
        """Return what explain() needs of it, None if that isn't known."""
        count = self.ahead(task_id)
        if count is None or self.description is None:
            return None
        barrier = next((m.barrier for m in self.description.members if m.id == task_id), None)
        return None if barrier is None else Ahead(self.workflow.name, barrier, count)

    def ahead(self, task_id: UUID) -> int | None:
        """Return how many tasks are waited for, None if that isn't known."""
        if self.description is None:
            return None
        members = {member.id: member for member in self.description.members}
        barriers = [members[task_id].barrier] if task_id in members else []
        found: set[UUID] = set()
        seen: set[UUID] = set()
        while barriers:
            barrier = barriers.pop()
            if barrier is None or barrier in seen:
                continue
            seen.add(barrier)
            for source in self.description.barriers.get(barrier, ("", []))[1]:
                if source in members:
                    found.add(source)
                else:
                    barriers.append(source)
        return sum(1 for pk in found if members[pk].state not in FinalStatus.values)


def place_of(row: TaskRecord, alias: str) -> Place | None:
    """Return the place of a row, None if it has none."""
    try:
        pk = UUID(mapping(mapping(row.options).get("workflow"))["id"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    workflow = Workflow.objects.using(alias).filter(pk=pk).first()
    if workflow is None:
        return None
    if workflow.size > LARGEST:
        node = Node.objects.using(alias).filter(pk=row.pk).first()
        return None if node is None else Place(workflow, node.name, None)
    description = Description.read(workflow, alias)
    name = next((member.name for member in description.members if member.id == row.pk), "")
    return Place(workflow, name, description) if name else None
