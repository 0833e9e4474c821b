"""Queues, so far as something is known of them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..untrusted import visible


class Queue(models.Model):
    """
    A queue that was served or paused. A worker adds the rows of its queues; a
    queue without a row is not paused.
    """

    name = models.CharField(_("name"), max_length=100, primary_key=True)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    paused_by = models.CharField(_("paused by"), max_length=150, default="", blank=True)
    reason = models.CharField(_("reason"), max_length=255, default="", blank=True)
    # Seconds that its oldest ready task may wait before the queue counts as late; null: as
    # OPTIONS["LATENCY_TARGET"] says.
    latency_target = models.FloatField(_("latency target"), null=True, blank=True)

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        ordering = ("name",)
        default_permissions = ("view", "change")
        permissions = (("pause_queue", "Can pause and resume queues"),)

    def __str__(self) -> str:
        return visible(self.name)
