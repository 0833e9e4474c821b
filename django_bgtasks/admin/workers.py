"""Workers: who is alive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models.worker import Worker, WorkerState
from .base import BaseAdmin, clock_of
from .display import moment, short_moment, visible


@admin.register(Worker)
class WorkerAdmin(BaseAdmin):
    """What each runworker says of itself, and which have fallen silent."""

    list_display = (
        "shown_name",
        "state_shown",
        "host",
        "served",
        "slots",
        "running",
        "finished",
        "heard_briefly",
        "started_briefly",
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [
            (
                None,
                {
                    "fields": [
                        ("shown_name", "state_shown"),
                        ("served", "slots"),
                        ("running", "finished"),
                        ("heard", "lease_shown"),
                        "started",
                    ]
                },
            ),
            (
                _("Details"),
                {"fields": ["id", ("host", "pid"), ("version_shown", "backend_shown")]},
            ),
        ]

    @admin.display(description=gettext_lazy("name"))
    def shown_name(self, obj: Worker) -> str:
        return visible(obj.name)

    @admin.display(description=gettext_lazy("state"))
    def state_shown(self, obj: Worker) -> str:
        if obj.state != WorkerState.STOPPED and (
            obj.heartbeat_at + timedelta(seconds=obj.lease) < clock_of(obj)
        ):
            return _("Lost")
        return obj.get_state_display()

    @admin.display(description=gettext_lazy("host"))
    def host(self, obj: Worker) -> str:
        return visible(obj.hostname)

    @admin.display(description=gettext_lazy("queues"))
    def served(self, obj: Worker) -> str:
        return visible(", ".join(map(str, obj.queues))) if obj.queues else _("All")

    @admin.display(description=gettext_lazy("slots"))
    def slots(self, obj: Worker) -> str:
        return _("%(slots)d (%(processes)d × %(threads)d)") % {
            "slots": obj.processes * obj.threads,
            "processes": obj.processes,
            "threads": obj.threads,
        }

    @admin.display(description=gettext_lazy("last heard of"))
    def heard(self, obj: Worker) -> str:
        return moment(obj.heartbeat_at, clock_of(obj))

    @admin.display(description=gettext_lazy("started at"))
    def started(self, obj: Worker) -> str:
        return moment(obj.started_at, clock_of(obj))

    @admin.display(description=gettext_lazy("last heard of"))
    def heard_briefly(self, obj: Worker) -> str:
        return short_moment(obj.heartbeat_at, clock_of(obj))

    @admin.display(description=gettext_lazy("started"))
    def started_briefly(self, obj: Worker) -> str:
        return short_moment(obj.started_at, clock_of(obj))

    @admin.display(description=gettext_lazy("lease"))
    def lease_shown(self, obj: Worker) -> str:
        return _("%(number)s s") % {"number": f"{obj.lease:g}"}

    @admin.display(description=gettext_lazy("version"))
    def version_shown(self, obj: Worker) -> str:
        return visible(obj.version)

    @admin.display(description=gettext_lazy("backend"))
    def backend_shown(self, obj: Worker) -> str:
        return visible(obj.backend)
