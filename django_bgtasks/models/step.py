"""Durable steps."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Step(models.Model):
    """A step of a task that completed, and what it returned: see context.step()."""

    task_id = models.UUIDField(editable=False)
    name = models.CharField(_("name"), max_length=100)
    value = models.JSONField(_("value"), null=True)
    attempt = models.PositiveIntegerField(_("attempt"))
    made_at = models.DateTimeField(_("completed at"))

    class Meta:
        verbose_name = _("step")
        verbose_name_plural = _("steps")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(fields=("task_id", "name"), name="bgtasks_one_step"),
        )

    def __str__(self) -> str:
        return self.name
