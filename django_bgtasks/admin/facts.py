"""Columns of the lists, the same for tasks and for results."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy

from .badges import badge_of
from .base import clock_of
from .display import duration, short_moment, visible


class TaskFacts:
    """Methods that ModelAdmin shows."""

    @admin.display(description=gettext_lazy("task"))
    def name(self, obj: Any) -> str:
        return format_html(
            '<span title="{} {}">{}</span>', visible(obj.task_path), obj.pk, visible(obj.task_name)
        )

    @admin.display(description=gettext_lazy("status"))
    def state(self, obj: Any) -> str:
        return badge_of(obj, clock_of(obj))

    @admin.display(description=gettext_lazy("queue"))
    def queue(self, obj: Any) -> str:
        return visible(obj.queue_name)

    @admin.display(description=gettext_lazy("worker"))
    def worker(self, obj: Any) -> str:
        return visible(obj.worker_id) or "-"

    @admin.display(description=gettext_lazy("reason"))
    def why(self, obj: Any) -> str:
        return visible(obj.reason) or "-"

    @admin.display(description=gettext_lazy("reason"))
    def why_briefly(self, obj: Any) -> str:
        return Truncator(self.why(obj)).chars(80)

    @admin.display(description=gettext_lazy("enqueued"))
    def enqueued_briefly(self, obj: Any) -> str:
        return short_moment(obj.enqueued_at, clock_of(obj))

    @admin.display(description=gettext_lazy("waited"))
    def waited(self, obj: Any) -> str:
        """From when it might have started to when it did, or until now."""
        since = max(filter(None, (obj.enqueued_at, obj.run_after)))
        until = obj.started_at or getattr(obj, "finished_at", None) or clock_of(obj)
        if obj.started_at is None and until < since:
            return "-"
        return duration((until - since).total_seconds())
