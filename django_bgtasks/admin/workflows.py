"""Workflows: what leads to what, how far it is, where it broke."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..exceptions import WrongState
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.workflow import Workflow, WorkflowStatus
from ..states import FinalStatus, LiveStatus
from ..workflows.description import URGENT, Box, Description, Member
from ..workflows.handle import handle_of
from .base import clock_of
from .display import duration, moment, short_moment, visible
from .filters import StatusFilter
from .pages import PageAdmin

#: Tasks that a page lists, those to look at first.
MOST = 100
STATES = {**dict(LiveStatus.choices), **dict(FinalStatus.choices)}


@admin.register(Workflow)
class WorkflowAdmin(PageAdmin):
    """The list of workflows, and the page with the graph of one."""

    list_display = ("shown_name", "state", "size", "why", "enqueued_briefly", "took")
    list_filter = (StatusFilter,)

    class Media:
        css: ClassVar = {"all": ["bgtasks/bgtasks.css", "bgtasks/workflow.css"]}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        facts: list[Any] = [("shown_name", "state"), "progress"]
        if obj is not None and obj.reason:
            facts.append("why")
        if obj is not None and self._open_verbs(request, obj):
            facts.insert(0, "buttons")
        return [
            (None, {"fields": facts}),
            (_("Graph"), {"fields": ["graph"]}),
            (_("Tasks"), {"fields": ["tasks"]}),
            (_("Times"), {"fields": [("enqueued", "finished"), "took"]}),
            (_("Details"), {"fields": ["id", "backend_shown"]}),
        ]

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        obj = super().get_object(request, object_id, from_field)
        if obj is not None:
            obj.description = Description.read(obj, self.alias)
        return obj

    # Columns and facts

    @admin.display(description=gettext_lazy("workflow"))
    def shown_name(self, obj: Workflow) -> str:
        return visible(obj.name)

    @admin.display(description=gettext_lazy("status"))
    def state(self, obj: Workflow) -> str:
        return obj.get_status_display()

    @admin.display(description=gettext_lazy("reason"))
    def why(self, obj: Workflow) -> str:
        return visible(obj.reason) or "-"

    @admin.display(description=gettext_lazy("enqueued at"))
    def enqueued(self, obj: Workflow) -> str:
        return moment(obj.enqueued_at, clock_of(obj))

    @admin.display(description=gettext_lazy("enqueued"))
    def enqueued_briefly(self, obj: Workflow) -> str:
        return short_moment(obj.enqueued_at, clock_of(obj))

    @admin.display(description=gettext_lazy("finished at"))
    def finished(self, obj: Workflow) -> str:
        return moment(obj.finished_at, clock_of(obj))

    @admin.display(description=gettext_lazy("took"))
    def took(self, obj: Workflow) -> str:
        """How long it took, or takes until now."""
        until = obj.finished_at or clock_of(obj)
        return duration((until - obj.enqueued_at).total_seconds())

    @admin.display(description=gettext_lazy("backend"))
    def backend_shown(self, obj: Workflow) -> str:
        return visible(obj.backend)

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, obj: Any) -> str:
        counts = obj.description.counts
        done = sum(counts[state] for state in FinalStatus.values)
        text = ngettext(
            "%(done)s of %(total)s task is done",
            "%(done)s of %(total)s tasks are done",
            len(obj.description.members),
        ) % {"done": f"{done:,}", "total": f"{len(obj.description.members):,}"}
        parts = [
            f"{counts[state]:,} {str(STATES[state]).lower()}" for state in URGENT if counts[state]
        ]
        return " · ".join([text, *parts])

    @admin.display(description=gettext_lazy("graph"))
    def graph(self, obj: Any) -> str:
        drawn = obj.description.svg(self._address_of_box)
        if not drawn:
            return _("It has too many different tasks for a picture.")
        # Made of escaped parts by ourselves; it scrolls by itself where the page is narrow.
        return format_html('<div class="bgtasks-scroll" tabindex="0">{}</div>', mark_safe(drawn))

    @admin.display(description=gettext_lazy("tasks"))
    def tasks(self, obj: Any) -> str:
        """The tasks as a table: those to look at first on top."""
        members = sorted(
            obj.description.members, key=lambda m: (URGENT.index(m.state or "WAITING"), m.number)
        )
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            (
                (
                    self._link(member),
                    STATES.get(member.state, _("Pruned")),
                    "-" if member.seconds is None else duration(member.seconds),
                    visible(member.reason) or "-",
                )
                for member in members[:MOST]
            ),
        )
        table = format_html(
            "<table><thead><tr><th>{}</th><th>{}</th><th>{}</th><th>{}</th></tr></thead>"
            "<tbody>{}</tbody></table>",
            _("Task"),
            _("Status"),
            _("Took"),
            _("Reason"),
            rows,
        )
        if len(members) <= MOST:
            return table
        rest = _("%(count)s more are not shown.") % {"count": f"{len(members) - MOST:,}"}
        return format_html("{}<p>{}</p>", table, rest)

    def _link(self, member: Member) -> str:
        name = f"{member.part} / {member.name}" if member.part else member.name
        address = self._address_of(member)
        if not address:
            return visible(name)
        return format_html('<a href="{}">{}</a>', address, visible(name))

    def _address_of(self, member: Member) -> str:
        if not member.state:
            return ""
        model = FinishedTask if member.state in FinalStatus.values else QueuedTask
        return self.address("change", member.id, model=model)

    def _address_of_box(self, box: Box) -> str | None:
        return self._address_of(box.members[0]) if len(box.members) == 1 else None

    # Verbs

    @admin.display(description=gettext_lazy("action"))
    def buttons(self, obj: Workflow) -> str:
        return format_html_join(
            " ",
            '<input type="submit" class="button" formaction="{}" value="{}">',
            (
                (self.address(name, obj.pk), label)
                for name, (label, states, *_) in self._verbs().items()
                if obj.status in states
            ),
        )

    def _verbs(self) -> dict[str, tuple[Any, set[str], Callable[..., str]]]:
        return {
            "cancel": (_("Cancel"), {WorkflowStatus.RUNNING.value}, self._cancel),
            "retry": (
                _("Retry what failed"),
                {WorkflowStatus.FAILED.value, WorkflowStatus.CANCELLED.value},
                self._retry,
            ),
        }

    def _open_verbs(self, request: HttpRequest, obj: Workflow) -> list[str]:
        return [
            name
            for name, (_label, states, _act) in self._verbs().items()
            if obj.status in states and self.may(request, f"{name}_workflow")
        ]

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            *(
                path(
                    f"<path:object_id>/{name}/",
                    self.admin_site.admin_view(partial(self.verb_view, name=name)),
                    name=f"{prefix}_{name}",
                )
                for name in ("cancel", "retry")
            ),
            *super().get_urls(),
        ]

    def verb_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponseBase:
        """Do it to one workflow, and show it."""
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not (self.has_view_permission(request) and self.may(request, f"{name}_workflow")):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            text = _("There is no workflow %(id)s. It may have been pruned.")
            shown = visible(unquote(object_id))[:100]
            self.message_user(request, text % {"id": shown}, messages.WARNING)
            return HttpResponseRedirect(self.address("changelist"))
        label, _states, act = self._verbs()[name]
        try:
            text = act(obj, request.user.get_username())
        except WrongState as error:
            self.message_user(request, str(error), messages.WARNING)
        else:
            self.log(request, [obj], label)
            self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(self.address("change", obj.pk))

    @staticmethod
    def _cancel(obj: Workflow, by: str) -> str:
        if handle_of(obj).cancel(by=by):
            return _("The workflow was cancelled.")
        return _("The workflow is being cancelled: what runs was asked to end.")

    @staticmethod
    def _retry(obj: Workflow, by: str) -> str:
        count = handle_of(obj).retry(by=by)
        return ngettext(
            "%(count)d task will run again.", "%(count)d tasks will run again.", count
        ) % {"count": count}
