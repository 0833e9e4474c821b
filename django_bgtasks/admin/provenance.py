"""Who or what enqueued a task, in words with links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models.queued import QueuedTask
from ..models.record import TaskRecord
from ..models.schedule import Schedule
from .base import BaseAdmin
from .display import visible
from .payload import mapping


def enqueued_by(row: TaskRecord, page: BaseAdmin, request: HttpRequest) -> SafeString | str:
    """Return what follows the time of its enqueue, "" where nothing is known."""
    options = mapping(row.options)
    schedule, origin = mapping(options.get("schedule")), mapping(options.get("origin"))
    if schedule.get("name"):
        return format_html(_("by the schedule {}"), _schedule(schedule["name"], page, request))
    says: dict[str, Callable[[], Any]] = {
        "copy_of": lambda: _copy(origin, page),
        "task": lambda: format_html(_("by the task {}"), _task(origin["task"], page)),
        "command": lambda: format_html(_("by the command {}"), _code(origin["command"])),
        "path": lambda: _request(origin),
    }
    return next((words() for name, words in says.items() if origin.get(name)), "")


def _copy(origin: dict[str, Any], page: BaseAdmin) -> SafeString:
    original = _task(origin["copy_of"], page)
    if origin.get("user"):
        return format_html(_("by {}, as a copy of {}"), visible(origin["user"]), original)
    return format_html(_("as a copy of {}"), original)


def _request(origin: dict[str, Any]) -> SafeString:
    path = _code(origin["path"])
    if origin.get("user"):
        return format_html(_("by {} at {}"), visible(origin["user"]), path)
    return format_html(_("by a request of {}"), path)


def _task(pk: Any, page: BaseAdmin) -> SafeString:
    # Wherever its row is: the page of a task leads to the other table.
    shown, address = visible(pk)[:100], page.address("change", str(pk), model=QueuedTask)
    return _linked(shown[-8:], address, shown)


def _schedule(name: Any, page: BaseAdmin, request: HttpRequest) -> SafeString:
    registered = page.admin_site._registry.get(Schedule)
    address = ""
    if registered is not None and registered.has_view_permission(request):
        found = Schedule.objects.using(page.alias).filter(name=str(name)).values_list("pk").first()
        address = page.address("change", found[0], model=Schedule) if found else ""
    return _linked(visible(name), address)


def _linked(text: str, address: str, title: str = "") -> SafeString:
    if not address:
        return format_html("{}", text)
    if not title:
        return format_html('<a href="{}">{}</a>', address, text)
    return format_html('<a href="{}" title="{}">{}</a>', address, title, text)


def _code(text: Any) -> SafeString:
    return format_html("<code>{}</code>", visible(text))
