"""Schedules: the list, the page of one, what can be done to them by hand."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.db.models import DurationField, ExpressionWrapper, F
from django.http import (
    HttpRequest,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..db import operations_for
from ..exceptions import DuplicateTask
from ..models import FinishedTask, QueuedTask
from ..models.schedule import Schedule, Source
from ..models.worker import Worker, WorkerState
from ..schedules import by_hand, watching
from ..schedules.turn import has_the_key
from ..schedules.words import describe
from . import copying, payload
from .base import backends, clock_of
from .display import block, lines, moment, short_moment, visible
from .filters import ColumnFilter, QueueFilter
from .pages import PageAdmin
from .schedule_form import ScheduleForm
from .schedule_preview import PreviewForm, preview_data, preview_html
from .schedule_runs import OutcomeFilter, runs_html, word_of


class EnabledFilter(ColumnFilter):
    title = gettext_lazy("enabled")
    parameter_name = "enabled"
    column = "enabled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [("1", _("Yes")), ("0", _("No"))]


class SourceFilter(ColumnFilter):
    title = gettext_lazy("source")
    parameter_name = "source"
    column = "source"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return Source.choices


@admin.register(Schedule)
class ScheduleAdmin(PageAdmin):
    """
    Schedules. Those of code and settings are changed there; here they can be
    disabled and run.
    """

    form = ScheduleForm
    list_display = (
        "shown_name",
        "when",
        "time_zone",
        "next_run",
        "last_run",
        "is_enabled",
        "where",
    )
    list_filter = (EnabledFilter, SourceFilter, QueueFilter, OutcomeFilter)
    deferred = ("args", "kwargs")
    actions = ("enable", "disable", "run_ticked")

    class Media:
        css: ClassVar = {"all": ["bgtasks/bgtasks.css", "bgtasks/schedule.css"]}
        js = ("bgtasks/schedule_preview.js",)

    # Permissions

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add_schedule") and self.has_payload_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # What the code says is changed in the code.
        return self.has_switch_permission(request) and (
            obj is None
            or (
                obj.source == Source.ADMIN
                and self.has_payload_permission(request)
                # A form would have to hold them.
                and len(str(obj.args)) + len(str(obj.kwargs)) <= copying.LARGEST
            )
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "delete_schedule") and (
            obj is None
            or obj.source == Source.ADMIN
            # What belongs to no backend any more is declared by none.
            or obj.backend not in [backend.alias for backend in backends()]
        )

    def has_switch_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may enable and disable schedules."""
        return self.may(request, "change_schedule")

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "run_schedule")

    def has_payload_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "view_payload")

    # The list

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if request.method == "GET" and self.has_view_or_change_permission(request):
            self._warn(request)
        return super().changelist_view(request, extra_context)

    def _warn(self, request: HttpRequest) -> None:
        rows = Schedule.objects.using(self.alias)
        if not rows.exists():
            example = (
                '@schedule("0 2 * * 1-5", tz="Europe/Warsaw")\n@task\ndef close_the_day(): ...'
            )
            shown = format_html("{} {}", _("No schedules yet. In code:"), block(example))
            self.message_user(request, shown, messages.INFO)
            return
        served = self._backends_served()
        wanted = set(rows.filter(look_at__isnull=False).values_list("backend", flat=True))
        lacking = sorted(wanted - served)
        if lacking and not served:
            text = _(
                "No worker is running that fires schedules. Start one with "
                "python manage.py runworker."
            )
        elif lacking:
            text = _(
                "No worker is running that fires the schedules of %(names)s. Start one with "
                "python manage.py runworker --backend %(first)s."
            )
        else:
            return
        named = {"names": ", ".join(map(visible, lacking)), "first": visible(lacking[0])}
        self.message_user(request, text % named, messages.WARNING)

    def _backends_served(self) -> set[str]:
        """Return the aliases of the backends with a live worker that carries the scheduler."""
        silent = ExpressionWrapper(
            operations_for(self.alias).now_expression(None) - F("heartbeat_at"),
            output_field=DurationField(),
        )
        alive = Worker.objects.using(self.alias).filter(scheduler=True)
        alive = alive.exclude(state__in=(WorkerState.STOPPING, WorkerState.STOPPED))
        return {
            worker.backend
            for worker in alive.annotate(silent=silent).order_by("-heartbeat_at")[:200]
            if worker.silent.total_seconds() < worker.lease
        }

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        last = watching.last_of(list(changelist.result_list), alias=self.alias)
        for row in changelist.result_list:
            row.last = last.get(row.pk)
        return changelist

    # Verbs

    @admin.action(permissions=["switch"], description=gettext_lazy("Enable the ticked schedules"))
    def enable(self, request: HttpRequest, queryset: Any) -> None:
        self._switch(request, list(queryset), True)

    @admin.action(permissions=["switch"], description=gettext_lazy("Disable the ticked schedules"))
    def disable(self, request: HttpRequest, queryset: Any) -> None:
        self._switch(request, list(queryset), False)

    @admin.action(permissions=["run"], description=gettext_lazy("Run the ticked schedules now"))
    def run_ticked(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset:
            self._run(request, row)

    def _switch(self, request: HttpRequest, rows: list[Schedule], enabled: bool) -> None:
        done, gone = [], []
        for row in rows:
            try:
                if by_hand.set_enabled(row, enabled, alias=self.alias):
                    done.append(row)
            except by_hand.NotPossible as error:
                gone.append(visible(error))
        count, skipped = len(done), len(rows) - len(done) - len(gone)
        if enabled:
            sentence = gettext_lazy("Enabled.")
            said = ngettext(
                "%(count)d schedule is enabled.", "%(count)d schedules are enabled.", count
            )
            not_done = ngettext(
                "%(count)d was skipped: it was enabled already.",
                "%(count)d were skipped: they were enabled already.",
                skipped,
            )
        else:
            sentence = gettext_lazy("Disabled.")
            said = ngettext(
                "%(count)d schedule is disabled.", "%(count)d schedules are disabled.", count
            )
            not_done = ngettext(
                "%(count)d was skipped: it was disabled already.",
                "%(count)d were skipped: they were disabled already.",
                skipped,
            )
        self.log(request, done, sentence)
        self.answer(
            request,
            said % {"count": count} if count else "",
            [*([not_done % {"count": skipped}] if skipped else []), *gone],
        )

    def _run(self, request: HttpRequest, row: Schedule) -> None:
        by = request.user.get_username()
        try:
            result = by_hand.run_now(row, by=by, alias=self.alias)
        except DuplicateTask as error:
            self.message_user(request, visible(error), messages.WARNING)
        except Exception as error:  # Whatever an enqueue refuses is the answer.
            text = _("%(name)s could not be run: %(error)s") % {
                "name": visible(row.name),
                "error": visible(error),
            }
            self.message_user(request, text, messages.ERROR)
        else:
            if not result.created:
                text = _("%(name)s is not run: %(reason)s") % {
                    "name": visible(row.name),
                    "reason": has_the_key(result.id),
                }
                self.message_user(request, text, messages.WARNING)
                return
            self.log(request, [row], gettext_lazy("Run now."))
            text = _("%(name)s is enqueued.") % {"name": visible(row.name)}
            self.message_user(request, self._task_link(result.id, text, "READY"), messages.SUCCESS)

    # Addresses

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        return [
            path("preview/", view(self.preview_view), name=f"{prefix}_preview"),
            path("<path:object_id>/run/", view(self.run_view), name=f"{prefix}_run"),
            path("<path:object_id>/enable/", view(self.enable_view), name=f"{prefix}_enable"),
            path("<path:object_id>/disable/", view(self.disable_view), name=f"{prefix}_disable"),
            *super().get_urls(),
        ]

    def preview_view(self, request: HttpRequest) -> HttpResponseBase:
        """Say when something would be due, for the form; writes nothing."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        return JsonResponse(preview_data(PreviewForm(request.GET).row()))

    def enable_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Enable one schedule."""
        return self._verb_view(request, object_id, lambda row: self._switch(request, [row], True))

    def disable_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Disable one schedule."""
        return self._verb_view(request, object_id, lambda row: self._switch(request, [row], False))

    def _verb_view(self, request: HttpRequest, object_id: str, act: Any) -> HttpResponseBase:
        if refusal := self.refuse_unless_post(request):
            return refusal
        if not (self.has_view_permission(request) and self.has_switch_permission(request)):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return HttpResponseRedirect(self.address("changelist"))
        act(row)
        return HttpResponseRedirect(self.address("change", object_id))

    def run_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Ask, with what the task will be called with; run on POST."""
        if not (self.has_view_permission(request) and self.has_run_permission(request)):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return HttpResponseRedirect(self.address("changelist"))
        if request.method == "POST":
            self._run(request, row)
            return HttpResponseRedirect(self.address("change", object_id))
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": _("Run now: %(name)s") % {"name": visible(row.name)},
            "opts": self.opts,
            "task": visible(row.task_path),
            "arguments": self._arguments(request, row),
            "running": len(by_hand.still_running(row, alias=self.alias)),
            "back": self.address("change", object_id),
        }
        return TemplateResponse(request, "admin/bgtasks/schedule_run.html", context)

    # The page of one

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        when = ["expression", "time_zone", "preview"]
        bounds = ("start_at", "end_at")
        policies = [("missed", "overlap"), bounds, ("max_runs", "jitter")]
        policies.append(("expires", "success_within"))
        arguments = ["args", "kwargs"] if self._edits(request, obj) else ["arguments"]
        work = ["task_path", *arguments, ("queue_name", "priority")]
        if obj is None:
            first: list[Any] = ["name", *when, "enabled"]
            return [
                (None, {"fields": first}),
                (_("Task"), {"fields": work}),
                (_("Policies"), {"fields": policies}),
            ]
        first = ["name", *when, "enabled" if self._edits(request, obj) else "is_enabled"]
        if self.has_switch_permission(request) or self.has_run_permission(request):
            first.insert(0, "buttons")
        return [
            (None, {"fields": [*first, "problems"]}),
            (_("Last runs"), {"fields": ["recent"]}),
            (_("Task"), {"fields": work}),
            (_("Policies"), {"fields": policies}),
            (_("Details"), {"fields": [("where", "runs"), "planned"]}),
        ]

    def _edits(self, request: HttpRequest, obj: Any) -> bool:
        if obj is None:
            return self.has_add_permission(request)
        return self.has_change_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [
            "preview",
            "arguments",
            "buttons",
            "is_enabled",
            "problems",
            "recent",
            "where",
            "runs",
            "planned",
        ]

    def get_object(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        row: Any = super().get_object(request, *args, **kwargs)
        if row is not None:
            row.request = request  # For what its page shows to whom.
        return row

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        return type(form.__name__, (form,), {"alias": self.alias})

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except IntegrityError:
            # Somebody took the name since it was checked; now the form says so.
            return super().changeform_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.save(using=self.alias)

    @admin.display(description=gettext_lazy("action"))
    def buttons(self, obj: Schedule) -> str:
        found = []
        request = obj.request  # type: ignore[attr-defined]
        if self.has_run_permission(request):
            found.append(
                format_html(
                    '<a class="button" href="{}">{}</a>', self.address("run", obj.pk), _("Run now…")
                )
            )
        if self.has_switch_permission(request):
            verb, label = ("disable", _("Disable")) if obj.enabled else ("enable", _("Enable"))
            found.append(
                format_html(
                    '<input type="submit" class="button" formnovalidate '
                    'formaction="{}" value="{}">',
                    self.address(verb, obj.pk),
                    label,
                )
            )
        return format_html_join(" ", "{}", ((button,) for button in found))

    @admin.display(description=gettext_lazy("next runs"))
    def preview(self, obj: Schedule | None) -> str:
        row = obj or Schedule(time_zone=timezone.get_default_timezone_name())
        return preview_html(row, address=self.address("preview"))

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, obj: Schedule) -> str:
        return self._arguments(obj.request, obj)  # type: ignore[attr-defined]

    def _arguments(self, request: HttpRequest, row: Schedule) -> str:
        if not self.has_payload_permission(request):
            return _("You may not see arguments.")
        return payload.arguments(row)  # type: ignore[arg-type]

    @admin.display(description=gettext_lazy("problems"))
    def problems(self, obj: Schedule) -> str:
        found = [
            visible(problem.text)
            for problem in watching.problems(self.alias, now=clock_of(obj), only=obj)
        ]
        return lines(found) if found else _("None.")

    @admin.display(description=gettext_lazy("runs"))
    def recent(self, obj: Schedule) -> str:
        outcomes = watching.latest(obj, alias=self.alias)
        if not outcomes:
            return _("It has not been due yet.")
        return runs_html(outcomes, clock_of(obj), self._task_link)

    def _outcome(self, outcome: watching.Outcome) -> str:
        return self._task_link(outcome.run.task_id, word_of(outcome), outcome.state)

    def _task_link(self, task_id: Any, text: str, state: str) -> str:
        if task_id is None or state in ("GONE", "MISSED", "HELD", "SKIPPED"):
            return text
        live = state in ("SCHEDULED", "WAITING", "READY", "RUNNING")
        url = self.address("change", task_id, model=QueuedTask if live else FinishedTask)
        return format_html('<a href="{}">{}</a>', url, text) if url else text

    @admin.display(description=gettext_lazy("planned"))
    def planned(self, obj: Schedule) -> str:
        return moment(obj.next_due_at, clock_of(obj))

    # Columns

    @admin.display(description=gettext_lazy("name"))
    def shown_name(self, obj: Schedule) -> str:
        return visible(obj.name)

    @admin.display(description=gettext_lazy("when"))
    def when(self, obj: Schedule) -> str:
        words = describe(obj.expression)
        # In one line: a cron expression that is broken reads like another one.
        expression = visible(obj.expression).replace(" ", "\xa0")
        if words == obj.expression:
            return format_html("<code>{}</code>", expression)
        return format_html("{}<br><code>{}</code>", words, expression)

    @admin.display(description=gettext_lazy("next run"))
    def next_run(self, obj: Schedule) -> str:
        if obj.next_due_at is None:
            return "-"
        return moment(obj.next_due_at, clock_of(obj))

    @admin.display(description=gettext_lazy("last run"))
    def last_run(self, obj: Schedule) -> str:
        last = getattr(obj, "last", None)
        if last is None:
            return "-"
        return format_html(
            "{} {}", self._outcome(last), short_moment(last.run.due_at, clock_of(obj))
        )

    @admin.display(description=gettext_lazy("enabled"), boolean=True)
    def is_enabled(self, obj: Schedule) -> bool:
        return obj.enabled

    @admin.display(description=gettext_lazy("source"))
    def where(self, obj: Schedule) -> str:
        if not obj.source_detail:
            return obj.get_source_display()
        return f"{obj.get_source_display()}: {visible(obj.source_detail)}"
