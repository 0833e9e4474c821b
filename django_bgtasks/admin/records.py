"""What the pages of tasks and of results share: their parts, search, history, verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import SEARCH_VAR
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import path
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import untrusted
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from . import payload
from .badges import badge_of
from .base import backends, clock_of
from .copying import CopyForm, NoCopy, Original
from .display import duration, visible
from .facts import TaskFacts
from .lists import TaskListAdmin
from .pages import LIVE_HEADER
from .task_page import TaskPage
from .texts import text_of
from .verbs import SKIPPED, Verb


class TaskRecordAdmin(TaskFacts, TaskListAdmin):
    """
    Either table of tasks. An address of a task keeps working when its row moves
    to the other one.
    """

    #: What can be done to a task here.
    verbs: tuple[Verb, ...]

    deferred: tuple[str, ...] = ("args", "kwargs", "options", "errors", "notes")

    # The page of one

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show one task, wherever its row is by now."""
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        pk = unquote(object_id)
        row = self.get_object(request, pk)
        if row is None:
            return self._elsewhere(request, pk)
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        shown = TaskPage(self, request, row)
        return self.page(
            request,
            "admin/bgtasks/task.html",
            title=visible(row),
            context=lambda: {**shown.context(), **(extra_context or {})},
            stamp=shown.stamp,
        )

    def _elsewhere(self, request: HttpRequest, pk: str) -> HttpResponse:
        other = self.other(request)
        if other is not None and other.get_object(request, pk) is not None:
            if request.headers.get("X-Requested-With") == LIVE_HEADER:
                # The page that is open goes on with the row.
                return other.change_view(request, quote(pk))
            return HttpResponseRedirect(self.address("change", pk, model=self.other_model))
        return self.page(
            request,
            "admin/bgtasks/task_missing.html",
            title=_("No such task"),
            context=lambda: {
                "missing": visible(pk)[:100],
                "kept": _kept(self.alias),
                "back": self.address("changelist"),
                "back_label": str(self.opts.verbose_name_plural).capitalize(),
                "search_var": SEARCH_VAR,
            },
            status=404,
        )

    def text_view(self, request: HttpRequest, object_id: str, part: str) -> HttpResponse:
        """Show what the page folds or cuts as plain text; for part see text_of()."""
        if not (self.has_view_permission(request) and self.may(request, "view_payload")):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self._elsewhere(request, unquote(object_id))
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        text = text_of(row, part)
        if text is None:
            raise Http404
        headers = {"X-Content-Type-Options": "nosniff"}
        return HttpResponse(untrusted.visible(text), "text/plain; charset=utf-8", headers=headers)

    # A copy

    def may_copy(self, request: HttpRequest) -> bool:
        """Say whether the viewer may run copies: the form shows the arguments."""
        return self.may(request, "copy_queuedtask") and self.may(request, "view_payload")

    def copy_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for the arguments of a copy; enqueue it on POST."""
        if not (self.has_view_permission(request) and self.may_copy(request)):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        try:
            original = Original(row)
        except NoCopy as error:
            self.message_user(request, str(error), messages.WARNING)
            return HttpResponseRedirect(self.address("change", row.pk))
        by = request.user.get_username()
        form = CopyForm(request.POST or None, original=original, by=by)
        if request.method == "POST" and form.is_valid() and form.enqueue():
            return self._to_copy(request, row, form.result)
        return self.page(
            request,
            "admin/bgtasks/task_copy.html",
            title=_("Run a copy of %(name)s") % {"name": visible(row.task_name)},
            context=lambda: {
                "form": form,
                "original": visible(row),
                "task_path": visible(row.task_path),
                "queue_name": visible(row.queue_name),
                "has_places": original.has_places,
                "hidden": payload.HIDDEN,
                "back": self.address("change", row.pk),
            },
        )

    def _to_copy(self, request: HttpRequest, row: Any, result: Any) -> HttpResponseRedirect:
        if getattr(result, "created", True):
            self.log(request, [row], f"Run again as a copy: {result.id}.")
            self.message_user(request, _("A copy of the task was enqueued."), messages.SUCCESS)
        else:
            text = _("Nothing was enqueued: this task has the unique key.")
            self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self.address("change", result.id, model=QueuedTask))

    # Verbs: actions of the list, buttons of the page

    def open_verbs(self, request: HttpRequest, row: Any) -> list[Verb]:
        """Return what the viewer may do to a row now."""
        return [
            verb
            for verb in self.verbs
            if row.status in verb.states and self.may(request, verb.permission)
        ]

    def get_urls(self) -> list[Any]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        views: dict[str, Any] = {
            **{verb.name: partial(self.verb_view, verb=verb) for verb in self.verbs},
            "copy": self.copy_view,
        }
        return [
            *(
                path(
                    f"<path:object_id>/{name}/",
                    self.admin_site.admin_view(view),
                    name=f"{prefix}_{name}",
                )
                for name, view in views.items()
            ),
            path(
                "<path:object_id>/text/<slug:part>/",
                self.admin_site.admin_view(self.text_view),
                name=f"{prefix}_text",
            ),
            *super().get_urls(),
        ]

    def verb_view(self, request: HttpRequest, object_id: str, verb: Verb) -> HttpResponseBase:
        """Do it to one task, and show where it is then; ask first where that is due."""
        if not verb.asks and (refusal := self.refuse_unless_post(request)):
            return refusal
        if not (self.has_view_permission(request) and self.may(request, verb.permission)):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            for state in filter(None, self._states([unquote(object_id)])):
                self.answer(request, "", [SKIPPED[state] % {"count": 1}])
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        if request.method != "POST":
            return self._ask(request, obj, verb)
        self.perform(request, verb, [obj])
        return self._to_where_it_is(request, obj.pk)

    def _ask(self, request: HttpRequest, row: Any, verb: Verb) -> HttpResponse:
        return self.page(
            request,
            "admin/bgtasks/task_confirm.html",
            title=f"{verb.label}: {visible(row)}",
            context=lambda: {
                "verb": verb,
                "warning": verb.warning if row.status in verb.asks else "",
                "badge": badge_of(row, clock_of(row)),
                "task_id": str(row.pk),
                "task_path": visible(row.task_path),
                "back": self.address("change", row.pk),
            },
        )

    def perform(
        self, request: HttpRequest, verb: Verb, rows: Iterable[Any], *, missing: int = 0
    ) -> None:
        """Do it to rows, count what came of it; missing rows were ticked but have left."""
        by_id = {str(row.pk): row for row in rows}
        parts = verb.act(self.alias, list(by_id), request.user.get_username())
        done = [part for part in parts if part.ids]
        for part in done:
            if not part.skipped:
                # Others than those asked for were touched in their workflow.
                self.log(request, [by_id[pk] for pk in part.ids if pk in by_id], part.logged)
        touched = {pk for part in done for pk in part.ids}
        skipped = Counter(self._states([pk for pk in by_id if pk not in touched]))
        skipped[""] += missing
        self.answer(
            request,
            " ".join(p.counted % {"count": len(p.ids)} for p in done if not p.skipped),
            [
                *(p.counted % {"count": len(p.ids)} for p in done if p.skipped),
                *(
                    SKIPPED[state] % {"count": count}
                    for state, count in sorted(skipped.items())
                    if count
                ),
            ],
        )

    def perform_on_ticked(self, request: HttpRequest, verb: Verb, queryset: Any) -> None:
        """Do it to the ticked rows of the list."""
        rows = list(queryset)
        missing = len(self.ticked(request) - {str(row.pk) for row in rows})
        self.perform(request, verb, rows, missing=missing)

    def _states(self, ids: Sequence[str]) -> Iterator[str]:
        keys = [pk for pk in ids if self._is_key(pk)]
        if not keys:
            return
        found: dict[str, str] = {}
        for model in (QueuedTask, FinishedTask):
            rows = model._default_manager.using(self.alias).filter(pk__in=keys)
            found.update((str(pk), status) for pk, status in rows.values_list("pk", "status"))
        yield from (found.get(pk, "") for pk in ids)

    # Where a task is

    def _to_where_it_is(self, request: HttpRequest, pk: Any) -> HttpResponseRedirect:
        other = self.other(request)
        if self.get_object(request, str(pk)) is None and other is not None:
            return HttpResponseRedirect(self.address("change", pk, model=self.other_model))
        if other is None:
            return HttpResponseRedirect(self.address("changelist"))
        return HttpResponseRedirect(self.address("change", pk))

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: Any, object_id: str
    ) -> HttpResponseRedirect:
        # Called by Django's views of one row, and by ours, when there is none.
        pk = unquote(object_id)
        other = self.other(request)
        if other is not None and other.get_object(request, pk) is not None:
            return HttpResponseRedirect(self.address("change", pk, model=self.other_model))
        text = _("There is no task %(id)s. It may have been pruned.") % {"id": visible(pk)[:100]}
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self.address("changelist"))

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """Show what was done to the task in either table."""
        types = ContentType.objects.get_for_models(QueuedTask, FinishedTask).values()
        entries = (
            LogEntry.objects.filter(object_id=unquote(object_id), content_type__in=list(types))
            .select_related("user", "content_type")
            .order_by("action_time", "pk")
        )
        paginator = Paginator(entries, 100)
        page = paginator.get_page(request.GET.get("p", 1))
        return super().history_view(
            request,
            object_id,
            {
                "action_list": page,
                "page_range": paginator.get_elided_page_range(page.number),
                "pagination_required": paginator.count > 100,
                **(extra_context or {}),
            },
        )


def _kept(alias: str) -> str:
    """Return for how long results are kept, "" if they are kept for ever."""
    conf = next((b.conf for b in backends() if b.database == alias), None)
    found = []
    if conf is not None and conf.retain_successful is not None:
        found.append(
            _("successful tasks are kept %(time)s") % {"time": _days(conf.retain_successful)}
        )
    if conf is not None and conf.retain_failed is not None:
        found.append(_("failed ones %(time)s") % {"time": _days(conf.retain_failed)})
    return ", ".join(found)


def _days(seconds: float) -> str:
    count, rest = divmod(round(seconds), 86_400)
    if not count or rest:
        return duration(seconds)
    return ngettext("%(count)d day", "%(count)d days", count) % {"count": count}
