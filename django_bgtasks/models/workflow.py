"""Workflows: tasks that wait for others. Single tasks have no row here."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from ..untrusted import visible


class WorkflowStatus(models.TextChoices):
    """What has become of a workflow as a whole."""

    RUNNING = "RUNNING", pgettext_lazy("Workflow", "Running")
    SUCCESSFUL = "SUCCESSFUL", pgettext_lazy("Workflow", "Successful")
    FAILED = "FAILED", pgettext_lazy("Workflow", "Failed")
    CANCELLED = "CANCELLED", pgettext_lazy("Workflow", "Cancelled")


class Workflow(models.Model):
    """
    One graph of tasks. It is written when it begins, grows and ends, and not by
    the tasks that end in between: they meet at barriers.
    """

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    name = models.CharField(_("name"), max_length=255)
    backend = models.CharField(_("backend"), max_length=64)
    status = models.CharField(
        _("status"),
        max_length=10,
        choices=WorkflowStatus.choices,
        default=WorkflowStatus.RUNNING,
    )
    size = models.PositiveIntegerField(_("tasks"))
    enqueued_at = models.DateTimeField(_("enqueued at"))
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    # By whom it was cancelled, and why.
    reason = models.CharField(_("reason"), max_length=255, default="", db_default="", blank=True)
    # The task, or with value_of_barrier the barrier, whose value is the workflow's.
    value_of = models.UUIDField(null=True, editable=False)
    value_of_barrier = models.BooleanField(default=False, editable=False)

    class Meta:
        verbose_name = _("workflow")
        verbose_name_plural = _("workflows")
        ordering = ("-id",)
        default_permissions = ("view",)
        permissions = (
            ("cancel_workflow", "Can cancel workflows"),
            ("retry_workflow", "Can retry workflows"),
        )
        indexes = (models.Index(fields=("status", "finished_at"), name="bgtasks_workflow_end"),)

    def __str__(self) -> str:
        return visible(f"{self.name} {self.short_id}")

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled it as a whole, and not retried it since."""
        return bool(self.reason)

    @property
    def short_id(self) -> str:
        """The last 8 digits."""
        return str(self.id)[-8:]


class Condition(models.TextChoices):
    """What a barrier asks of its inputs once all of them are final."""

    # Each was successful, but those that may fail.
    SUCCESS = "success"
    # One of them was not.
    FAILURE = "failure"
    # Nothing.
    FINISHED = "finished"
    # Nothing; behind it the workflow is over.
    END = "end"


class Shape(models.TextChoices):
    """What the value of a barrier is made of."""

    # The value of its only input.
    SINGLE = "single"
    # A list of the values of its inputs.
    LIST = "list"
    # The same, but spliced into the list of the barrier behind it.
    FLAT = "flat"


class Barrier(models.Model):
    """
    Where tasks wait until others are final.

    missing inputs are not final yet; of the others, failed count against a
    barrier of SUCCESS. With none missing it is open, or refuses. Inputs are
    tasks and other barriers: many tasks meet at several small barriers first,
    so that workers seldom wait for each other (the combining tree of Yew, Tzeng
    and Lawrie, 1987).
    """

    id = models.UUIDField(primary_key=True, editable=False)
    workflow_id = models.UUIDField()
    condition = models.CharField(max_length=8, choices=Condition.choices)
    shape = models.CharField(max_length=6, choices=Shape.choices)
    missing = models.IntegerField()
    failed = models.IntegerField(default=0)
    # The first input that counted as failed, for people: "download 1a2b3c4d failed".
    cause = models.CharField(max_length=255, default="", db_default="")
    opened_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        indexes = (models.Index(fields=("workflow_id",), name="bgtasks_barrier_workflow"),)

    def __str__(self) -> str:
        return f"{self.condition}: {self.missing} missing"


class Node(models.Model):
    """A task's place in its workflow."""

    task_id = models.UUIDField(primary_key=True, editable=False)
    workflow_id = models.UUIDField()
    number = models.PositiveIntegerField()
    name = models.CharField(_("name"), max_length=100)
    # The names of the chains, groups and graphs around it.
    part = models.CharField(max_length=255, default="", blank=True)
    barrier_id = models.UUIDField(null=True)
    # Its failure is no failure of the workflow.
    may_fail = models.BooleanField(default=False)
    # Of finally_=: it runs although the workflow was cancelled.
    is_final = models.BooleanField(default=False)
    # CANCELLED because of what its barrier waited for, and not by hand.
    skipped = models.BooleanField(default=False)

    class Meta:
        default_permissions = ()
        indexes = (
            models.Index(fields=("workflow_id", "number"), name="bgtasks_node_workflow"),
            models.Index(fields=("barrier_id",), name="bgtasks_node_barrier"),
        )

    def __str__(self) -> str:
        return self.name


class Edge(models.Model):
    """
    An input of a barrier: a task, or another barrier.

    lenient: however it ends. position is the place of its value, None if the
    value isn't asked for.
    """

    source = models.UUIDField()
    from_barrier = models.BooleanField(default=False)
    barrier_id = models.UUIDField()
    position = models.PositiveIntegerField(null=True)
    lenient = models.BooleanField(default=False)

    class Meta:
        default_permissions = ()
        indexes = (
            models.Index(fields=("source",), name="bgtasks_edge_source"),
            models.Index(fields=("barrier_id", "position"), name="bgtasks_edge_barrier"),
        )

    def __str__(self) -> str:
        return f"{self.source} to {self.barrier_id}"
