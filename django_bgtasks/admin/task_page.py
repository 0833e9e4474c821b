"""The page of one task, live or finished: what it says to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Sum
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..explaining import explain
from ..models.cancellation import Cancellation
from ..models.failure import FailureCount, FailureGroup
from ..models.finished import FinishedTask
from ..models.queued import QueuedTask
from ..models.worker import Worker
from ..models.workflow import Workflow
from ..states import FinalStatus, LiveStatus
from ..workflows.description import Box
from . import badges, notes, payload
from .attempts import end_of, shown_attempts
from .base import clock_of
from .display import duration, lines, moment, relative, visible
from .places import place_of
from .policies import Policies
from .provenance import enqueued_by
from .timeline import timeline

if TYPE_CHECKING:
    from .records import TaskRecordAdmin

#: States in which one asks why a task isn't running.
WAITS = frozenset({LiveStatus.SCHEDULED, LiveStatus.WAITING, LiveStatus.READY})
#: Entries of the history that the page shows, the latest.
ENTRIES = 5


@dataclass(frozen=True, slots=True)
class Tool:
    """A button of the toolbar: a link to a page that asks, or a POST."""

    label: Any
    address: str
    is_link: bool
    is_danger: bool = False


class TaskPage:
    """What the page says of row, as a viewer may see it."""

    def __init__(self, page: TaskRecordAdmin, request: HttpRequest, row: Any) -> None:
        self._page = page
        self._request = request
        self._row = row
        self._now = clock_of(row)
        self._is_final = row.status in FinalStatus.values
        self._may_see = page.may(request, "view_payload")
        self._policies = Policies(row, self._now, may_see=self._may_see)

    def stamp(self) -> list[Any]:
        """Return what the regions depend on, but for the clock of what is live."""
        row = self._row
        # Ages go on, by the minute where nothing else does.
        every = 60 if self._is_final else 10
        facts = (
            row.pk,
            row.status,
            row.attempt,
            row.claim_id,
            row.reason,
            row.notes,
            row.run_after,
        )
        asked = self._asked_to_end
        return [*facts, asked and asked.force, int(self._now.timestamp()) // every]

    def context(self) -> dict[str, Any]:
        """Return what the template shows."""
        row, now, may_see = self._row, self._now, self._may_see
        return {
            "page_name": visible(row.task_name),
            "task_id": str(row.pk),
            "task_path": visible(row.task_path),
            "back": self._page.address("changelist"),
            "back_label": self._page.opts.verbose_name_plural.capitalize(),  # type: ignore[union-attr]
            "badge": badges.badge_of(row, now, asked_to_end=self._asked_to_end is not None),
            "sentence": self.sentence(),
            "reason": visible(row.reason),
            "asked": self._asked_in_words(),
            "tools": list(self._tools()),
            "why": self._why(),
            "progress": notes.progress(row, now),
            "timeline": timeline(row, now),
            "may_see": may_see,
            "arguments": payload.arguments(row) if may_see else "",
            "metadata": payload.metadata(row) if may_see else "",
            "has_metadata": bool(payload.mapping(row.options).get("metadata")),
            "result": self._result(),
            "has_result": row.status == FinalStatus.SUCCESSFUL,
            "steps": self._steps(),
            "details": list(self._details()),
            "attempts": shown_attempts(row, now, may_see=may_see),
            "failures": self._failures(),
            "has_log": bool(notes.log(row)),
            "log": end_of(notes.log(row)) if may_see else None,
            "workflow": self._workflow(),
            "history": self._history(),
            "texts": self._page.address("text", row.pk, "-").removesuffix("-/"),
            "history_address": self._page.address("history", row.pk),
        }

    # The heading

    @cached_property
    def _asked_to_end(self) -> Cancellation | None:
        if self._row.status != LiveStatus.RUNNING:
            return None
        return Cancellation.objects.using(self._page.alias).filter(pk=self._row.pk).first()

    @cached_property
    def _place(self) -> Any:
        return place_of(self._row, self._page.alias)

    def sentence(self) -> str:
        """Return what follows the badge: since when, where, how often."""
        row, now = self._row, self._now
        if self._is_final:
            return self._final_sentence()
        if row.status == LiveStatus.RUNNING:
            words = {"attempt": self._attempt(row.attempt), "worker": visible(row.worker_id)}
            if row.last_attempted_at is None:
                return _("%(attempt)s on %(worker)s") % words
            words["ago"] = relative(row.last_attempted_at, now)
            return _("%(attempt)s on %(worker)s, started %(ago)s") % words
        if row.status == LiveStatus.SCHEDULED and row.due_at is not None:
            words = {"attempt": self._attempt(row.attempt + 1)}
            if row.due_at <= now:
                return _("%(attempt)s is due") % words
            words["time"] = duration((row.due_at - now).total_seconds())
            if row.attempt:
                return _("%(attempt)s starts in %(time)s") % words
            return _("starts in %(time)s") % words
        if row.status == LiveStatus.WAITING:
            ahead = self._place.ahead(row.pk) if self._place is not None else None
            if ahead:
                return ngettext(
                    "waits for %(count)d parent", "waits for %(count)d parents", ahead
                ) % {"count": ahead}
            return _("waits in a workflow") if self._place is not None else _("waits at a limit")
        return _("enqueued %(ago)s") % {"ago": relative(row.enqueued_at, now)}

    def _final_sentence(self) -> str:
        row = self._row
        words = {
            "ago": relative(row.finished_at, self._now),
            "attempts": ngettext("%(count)d attempt", "%(count)d attempts", row.attempt)
            % {"count": row.attempt},
            "worker": visible(row.worker_id),
        }
        if row.status == FinalStatus.FAILED:
            return _("failed %(ago)s after %(attempts)s") % words
        if row.status == FinalStatus.SUCCESSFUL and row.last_attempted_at is not None:
            seconds = (row.finished_at - row.last_attempted_at).total_seconds()
            words["time"] = duration(seconds)
            if row.attempt > 1:
                return _("%(ago)s on %(worker)s, took %(time)s at the last of %(attempts)s") % words
            return _("%(ago)s on %(worker)s, took %(time)s") % words
        return words["ago"]

    def _attempt(self, number: int) -> str:
        most = self._policies.max_attempts
        if most is None or most == 1:
            return _("attempt %(number)d") % {"number": number}
        # Those whose process died are counted apart.
        most = max(most + self._row.lost_count, number)
        return _("attempt %(number)d of %(most)d") % {"number": number, "most": most}

    def _tools(self) -> Iterator[Tool]:
        row, page = self._row, self._page
        for verb in page.open_verbs(self._request, row):
            asks = row.status in verb.asks
            label = _("%(verb)s…") % {"verb": verb.label} if asks else verb.label
            yield Tool(label, page.address(verb.name, row.pk), asks, is_danger=asks)
        if page.may_copy(self._request):
            yield Tool(_("Run a copy…"), page.address("copy", row.pk), True)
        if page.has_delete_permission(self._request, row):
            yield Tool(_("Delete…"), page.address("delete", row.pk), True, is_danger=True)

    def _asked_in_words(self) -> str:
        asked = self._asked_to_end
        if asked is None:
            return ""
        parts = [visible(asked.reason), relative(asked.asked_at, self._now)]
        if asked.force:
            parts.append(_("by force: its process is killed if it does not end in time"))
        return " · ".join(parts)

    def _why(self) -> str:
        row = self._row
        lost = row.status == LiveStatus.RUNNING and row.lease_until and row.lease_until < self._now
        if row.status not in WAITS and not lost:
            return ""
        known = None
        if row.status == LiveStatus.WAITING and self._place is not None:
            known = self._place.known(row.pk)
        return visible(explain(row, now=self._now, with_keys=self._may_see, ahead=known))

    # The sections

    def _result(self) -> Any:
        if self._row.status != FinalStatus.SUCCESSFUL or not self._may_see:
            return ""
        return payload.value(self._row.return_value, self._row)

    def _steps(self) -> Any:
        # They come with the first attempt, even where that was taken back.
        if self._row.started_at is None or not notes.steps_of(self._row, values=self._may_see):
            return ""
        return notes.steps(self._row, self._now, may_see=self._may_see)

    def _details(self) -> Iterator[tuple[str, Any]]:
        row, now = self._row, self._now
        yield _("Task"), format_html("<code>{}</code>", visible(row.task_path))
        address = f"{self._page.address('changelist')}?{urlencode({'queue': row.queue_name})}"
        priority = _("priority %(number)d") % {"number": row.priority}
        yield (
            _("Queue"),
            format_html('<a href="{}">{}</a> · {}', address, visible(row.queue_name), priority),
        )
        origin = enqueued_by(row, self._page, self._request)
        yield _("Enqueued"), format_html("{} {}", moment(row.enqueued_at, now), origin)
        if row.run_after is not None:
            yield _("Not before"), moment(row.run_after, now)
        if getattr(row, "due_at", None) not in (None, row.run_after):
            yield _("Due"), moment(row.due_at, now)
        if row.started_at is not None:
            yield _("First started"), moment(row.started_at, now)
        if row.last_attempted_at not in (None, row.started_at):
            yield _("Last started"), moment(row.last_attempted_at, now)
        if self._is_final:
            yield _("Ended"), moment(row.finished_at, now)
        yield from self._worker()
        yield _("Policies"), self._policies.in_words()
        if labels := notes.labels(row):
            yield _("Labels"), labels
        counts = [
            ngettext("%(count)d attempt", "%(count)d attempts", row.attempt)
            % {"count": row.attempt},
            ngettext("%(count)d failure", "%(count)d failures", row.failures)
            % {"count": row.failures},
            ngettext("%(count)d worker lost", "%(count)d workers lost", row.lost_count)
            % {"count": row.lost_count},
        ]
        yield _("Counted"), " · ".join(counts)
        yield _("Backend"), visible(row.backend)
        if row.claim_id is not None:
            yield _("Claim"), format_html("<code>{}</code>", row.claim_id)

    def _worker(self) -> Iterator[tuple[str, Any]]:
        row, now = self._row, self._now
        names = list(dict.fromkeys(filter(None, row.worker_ids)))
        if names:
            yield _("Workers"), lines(visible(name) for name in names[-5:])
        if row.status != LiveStatus.RUNNING:
            return
        if row.lease_until is not None:
            yield _("Lease until"), moment(row.lease_until, now)
        worker = Worker.objects.using(self._page.alias).filter(name=row.worker_id).first()
        if worker is not None:
            words = _("%(host)s, version %(version)s, heard of %(ago)s") % {
                "host": visible(worker.hostname),
                "version": visible(worker.version),
                "ago": relative(worker.heartbeat_at, now),
            }
            yield _("Worker"), words

    def _failures(self) -> tuple[str, str] | None:
        """Return the address of the cause of its failure, and how many tasks failed so."""
        cause = getattr(self._row, "fingerprint", "")
        group = self._page.admin_site._registry.get(FailureGroup)
        address = self._page.address("change", cause, model=FailureGroup) if cause else ""
        if not address or group is None or not group.has_view_permission(self._request):
            return None
        since = self._now - timedelta(hours=24)
        hours = FailureCount.objects.using(self._page.alias).filter(
            fingerprint=cause, hour__gt=since
        )
        count = hours.aggregate(total=Sum("count"))["total"] or 0
        words = _("Failures of the same cause")
        if count > 1:
            words = ngettext(
                "%(count)d task failed like this in 24 hours",
                "%(count)d tasks failed like this in 24 hours",
                count,
            ) % {"count": count}
        return address, words

    def _workflow(self) -> dict[str, Any] | None:
        place = self._place
        if place is None:
            return None
        page = self._page.admin_site._registry.get(Workflow)
        may = page is not None and page.has_view_permission(self._request)
        address = self._page.address("change", place.workflow.pk, model=Workflow)
        drawn = ""
        if may and place.description is not None:
            drawn = place.description.svg(self._address_of)
        return {
            "name": visible(place.workflow.name),
            "address": address if may else "",
            "task": visible(place.name),
            "state": place.workflow.get_status_display(),
            "size": place.workflow.size,
            # Made of escaped parts by ourselves.
            "picture": mark_safe(drawn),
        }

    def _address_of(self, box: Box) -> str | None:
        if len(box.members) != 1 or not box.state:
            return None
        model = FinishedTask if box.state in FinalStatus.values else QueuedTask
        return self._page.address("change", box.members[0].id, model=model)

    def _history(self) -> list[tuple[Any, str, str]]:
        """Return the latest entries: when, who, what."""
        types = ContentType.objects.get_for_models(QueuedTask, FinishedTask).values()
        entries = (
            LogEntry.objects.filter(object_id=str(self._row.pk), content_type__in=list(types))
            .select_related("user")
            .order_by("-action_time", "-pk")[:ENTRIES]
        )
        return [
            (
                moment(entry.action_time, self._now),
                visible(entry.user.get_username()),
                visible(entry.get_change_message()),
            )
            for entry in entries
        ]
