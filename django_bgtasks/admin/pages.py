"""Pages of our own within the admin: their menu, their live regions, what they answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from ..models import (
    BulkOperation,
    Dashboard,
    FailureGroup,
    FinishedTask,
    Queue,
    QueuedTask,
    Schedule,
    Worker,
    Workflow,
)
from .base import BaseAdmin

#: In working order, and not in the alphabet's as the admin's own menu.
MENU = (
    (Dashboard, _("Dashboard")),
    (QueuedTask, _("Tasks")),
    (FinishedTask, _("Results")),
    (FailureGroup, _("Failures")),
    (Schedule, _("Schedules")),
    (Workflow, _("Workflows")),
    (Queue, _("Queues")),
    (Worker, _("Workers")),
    (BulkOperation, _("Bulk operations")),
)
#: The header by which live.js asks for the regions alone.
LIVE_HEADER = "bgt-live"


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the menu."""

    label: Any
    address: str
    is_current: bool


class PageAdmin(BaseAdmin):
    """A ModelAdmin with pages that extend admin/bgtasks/page.html."""

    def page(
        self,
        request: HttpRequest,
        template: str,
        *,
        title: str,
        context: Callable[[], dict[str, Any]],
        stamp: Callable[[], Sequence[Any]] | None = None,
        status: int = 200,
    ) -> HttpResponse:
        """
        Return a page, or for live.js its live regions alone.

        stamp returns what the regions depend on, cheaply: while it stays the
        same, the answer to live.js is 304 and context isn't called.
        """
        request.current_app = self.admin_site.name
        is_live = request.headers.get("X-Requested-With") == LIVE_HEADER
        etag = ""
        if is_live and stamp is not None:
            etag = _etag([request.get_full_path(), get_language(), request.user.pk, *stamp()])
            if request.headers.get("If-None-Match") == etag:
                return HttpResponseNotModified(headers={"ETag": etag})
        response = TemplateResponse(
            request,
            template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": title,
                "menu": self.menu(request),
                "updated_at": timezone.localtime(),
                "refresh_address": request.get_full_path(),
                **context(),
            },
            status=status,
        )
        patch_vary_headers(response, ["X-Requested-With"])
        if not is_live:
            return response
        request.bgt_regions = []  # type: ignore[attr-defined]
        response.render()
        body = "\n".join(request.bgt_regions)  # type: ignore[attr-defined]
        return HttpResponse(body, headers={"ETag": etag} if etag else {}, status=status)

    def row_of_page(self, request: HttpRequest, object_id: str) -> Any:
        """
        Return the row that an address names, or the answer to a request for none.

        Raise PermissionDenied.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            if request.headers.get("X-Requested-With") == LIVE_HEADER:
                # It takes a redirect for the way to the login.
                raise Http404
            admin_view: Any = self
            return admin_view._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        return row

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(
            request, {"menu": self.menu(request), **(extra_context or {})}
        )

    def menu(self, request: HttpRequest) -> list[Link]:
        """Return the pages that the user may see, in working order."""
        found = []
        for model, label in MENU:
            registered = self.admin_site._registry.get(model)
            if registered is not None and registered.has_view_permission(request):
                address = self.address("changelist", model=model)
                found.append(Link(label, address, model is self.model))
        return found


def _etag(parts: Sequence[Any]) -> str:
    digest = hashlib.blake2b(repr(list(map(str, parts))).encode(), digest_size=12)
    return f'W/"{digest.hexdigest()}"'
