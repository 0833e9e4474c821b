"""Columns of the lists and facts of the pages, the same for tasks and for results."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..explaining import explain
from . import notes, payload, places
from .badges import badge_of
from .base import clock_of
from .display import duration, lines, moment, short_moment, visible
from .policies import Policies


class TaskFacts:
    """
    Methods that ModelAdmin shows; those of payload come in pairs, the second
    of which is for viewers that may not see it.
    """

    @admin.display(description=gettext_lazy("task"))
    def name(self, obj: Any) -> str:
        return format_html(
            '<span title="{} {}">{}</span>', visible(obj.task_path), obj.pk, visible(obj.task_name)
        )

    @admin.display(description=gettext_lazy("task"))
    def task_path_shown(self, obj: Any) -> str:
        return visible(obj.task_path)

    @admin.display(description=gettext_lazy("status"))
    def state(self, obj: Any) -> str:
        return badge_of(obj, clock_of(obj))

    @admin.display(description=gettext_lazy("queue"))
    def queue(self, obj: Any) -> str:
        return visible(obj.queue_name)

    @admin.display(description=gettext_lazy("backend"))
    def backend_shown(self, obj: Any) -> str:
        return visible(obj.backend)

    @admin.display(description=gettext_lazy("worker"))
    def worker(self, obj: Any) -> str:
        return visible(obj.worker_id) or "-"

    @admin.display(description=gettext_lazy("workers"))
    def worker_ids_shown(self, obj: Any) -> str:
        return lines(visible(name) for name in obj.worker_ids) or "-"

    @admin.display(description=gettext_lazy("reason"))
    def why(self, obj: Any) -> str:
        return visible(obj.reason) or "-"

    @admin.display(description=gettext_lazy("reason"))
    def why_briefly(self, obj: Any) -> str:
        return Truncator(self.why(obj)).chars(80)

    @admin.display(description=gettext_lazy("enqueued at"))
    def enqueued(self, obj: Any) -> str:
        return moment(obj.enqueued_at, clock_of(obj))

    @admin.display(description=gettext_lazy("enqueued"))
    def enqueued_briefly(self, obj: Any) -> str:
        return short_moment(obj.enqueued_at, clock_of(obj))

    @admin.display(description=gettext_lazy("run after"))
    def run_after_shown(self, obj: Any) -> str:
        return moment(obj.run_after, clock_of(obj))

    @admin.display(description=gettext_lazy("first started at"))
    def started(self, obj: Any) -> str:
        return moment(obj.started_at, clock_of(obj))

    @admin.display(description=gettext_lazy("last started at"))
    def last_started(self, obj: Any) -> str:
        return moment(obj.last_attempted_at, clock_of(obj))

    @admin.display(description=gettext_lazy("waited"))
    def waited(self, obj: Any) -> str:
        """From when it might have started to when it did, or until now."""
        since = max(filter(None, (obj.enqueued_at, obj.run_after)))
        until = obj.started_at or getattr(obj, "finished_at", None) or clock_of(obj)
        if obj.started_at is None and until < since:
            return "-"
        return duration((until - since).total_seconds())

    @admin.display(description=gettext_lazy("why it isn't running"))
    def explained(self, obj: Any) -> str:
        return visible(explain(obj, now=clock_of(obj)))

    @admin.display(description=gettext_lazy("why it isn't running"))
    def explained_unseen(self, obj: Any) -> str:
        return visible(explain(obj, now=clock_of(obj), with_keys=False))

    @admin.display(description=gettext_lazy("workflow"))
    def workflow_shown(self, obj: Any) -> str:
        """Its workflow, and its name there."""
        return places.in_words(obj)

    @admin.display(description=gettext_lazy("progress"))
    def progress_shown(self, obj: Any) -> str:
        return notes.progress(obj, clock_of(obj)) or "-"

    @admin.display(description=gettext_lazy("labels"))
    def labels_shown(self, obj: Any) -> str:
        return notes.labels(obj) or "-"

    @admin.display(description=gettext_lazy("policies"))
    def policies(self, obj: Any) -> str:
        return Policies(obj, clock_of(obj), may_see=True).in_words()

    @admin.display(description=gettext_lazy("policies"))
    def policies_unseen(self, obj: Any) -> str:
        return Policies(obj, clock_of(obj), may_see=False).in_words()

    # Payload

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, obj: Any) -> str:
        return payload.arguments(obj)

    @admin.display(description=gettext_lazy("arguments"))
    def arguments_unseen(self, obj: Any) -> str:
        return _("You may not see arguments.")

    @admin.display(description=gettext_lazy("metadata"))
    def metadata(self, obj: Any) -> str:
        return payload.metadata(obj)

    @admin.display(description=gettext_lazy("metadata"))
    def metadata_unseen(self, obj: Any) -> str:
        return _("You may not see metadata.")

    @admin.display(description=gettext_lazy("steps"))
    def steps(self, obj: Any) -> str:
        return notes.steps(obj, clock_of(obj), may_see=True)

    @admin.display(description=gettext_lazy("steps"))
    def steps_unseen(self, obj: Any) -> str:
        return notes.steps(obj, clock_of(obj), may_see=False)

    @admin.display(description=gettext_lazy("log"))
    def log_shown(self, obj: Any) -> str:
        return notes.log(obj)

    @admin.display(description=gettext_lazy("log"))
    def log_unseen(self, obj: Any) -> str:
        return _("You may not see what it has logged.")

    @admin.display(description=gettext_lazy("errors"))
    def attempts(self, obj: Any) -> str:
        return payload.attempts(obj, may_see=True)

    @admin.display(description=gettext_lazy("errors"))
    def attempts_unseen(self, obj: Any) -> str:
        return payload.attempts(obj, may_see=False)
