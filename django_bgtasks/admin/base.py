"""What all pages have in common: read-only, bounded in cost, in the tasks' database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import models, router
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import override

from ..backend import DatabaseBackend
from ..compat import InvalidTaskBackend, task_backends
from ..db import operations_for

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as _ModelAdmin
else:
    _ModelAdmin = admin.ModelAdmin

#: Rows that are counted, and so the rows that the pages of a list reach.
COUNT_LIMIT = 10_000


def backends() -> list[DatabaseBackend]:
    """Return the backends of TASKS that are ours."""
    found = []
    for alias in task_backends.settings:
        try:
            backend = task_backends[alias]
        except InvalidTaskBackend:
            continue  # A system check says so.
        if isinstance(backend, DatabaseBackend):
            found.append(backend)
    return found


class AtLeast(int):
    """A count that was given up on: shown as "10000+"."""

    def __str__(self) -> str:
        # Digits are grouped after str(), which a plus would lead astray.
        return int.__repr__(self) + "+" * (not settings.USE_THOUSAND_SEPARATOR)


class CappedPaginator(_Paginator):
    """Counts up to COUNT_LIMIT rows: a COUNT(*) of all reads the whole table."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return rows.order_by()[:COUNT_LIMIT].count()


class BoundedChangeList(ChangeList):
    """In one order whatever the address says, without the columns that may be large."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        page: Any = self.model_admin
        return super().get_queryset(request, *args, **kwargs).defer(*page.deferred)

    def get_ordering(self, request: HttpRequest, queryset: Any) -> Any:
        page: Any = self.model_admin
        return page.list_order(request)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self.result_count >= COUNT_LIMIT:
            self.result_count = AtLeast(self.result_count)


class BaseAdmin(_ModelAdmin):
    """
    Pages that show rows and change none by form.

    Rows have an attribute clock, the database's time when they were read.
    """

    #: The database of the rows; None: that of the first backend of ours in TASKS.
    database: str | None = None
    #: Columns that the list doesn't read.
    deferred: tuple[str, ...] = ()

    paginator = CappedPaginator
    list_per_page = 100
    list_max_show_all = 100
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()

    @property
    def alias(self) -> str:
        """The database alias of the rows."""
        if self.database:
            return self.database
        for backend in backends():
            return backend.database
        return router.db_for_write(self.model)

    def get_queryset(self, request: HttpRequest) -> Any:
        clock = operations_for(self.alias).now_expression(None)
        return super().get_queryset(request).using(self.alias).annotate(clock=clock)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        # Django allows every column, so that ?kwargs__password__startswith=a would tell
        # letter by letter what may not be seen, and read the whole table.
        return lookup in {f.parameter_name for f in self.list_filter}  # type: ignore[union-attr]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def response_action(
        self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # Only what was ticked, and only what is a key: Django answers others with an error.
        post = request.POST.copy()
        post["select_across"] = "0"
        post.setlist(
            ACTION_CHECKBOX_NAME,
            [key for key in post.getlist(ACTION_CHECKBOX_NAME) if self._is_key(key)],
        )
        request.POST = post  # type: ignore[assignment]
        return super().response_action(request, queryset, *args, **kwargs)

    def _is_key(self, text: str) -> bool:
        try:
            self.opts.pk.to_python(text)
        except ValidationError:
            return False
        return "\x00" not in text

    # For the subclasses

    def list_order(self, request: HttpRequest) -> list[str]:
        """Return the order of the list, one that an index has."""
        order = [str(name) for name in self.opts.ordering or ()]
        return order if order[0].lstrip("-") == self.opts.pk.name else [*order, "pk"]

    def may(self, request: HttpRequest, codename: str) -> bool:
        """Say whether the user has a permission of this app."""
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def address(self, name: str, *args: Any, model: type[models.Model] | None = None) -> str:
        """Return the address of a page of a model, "" if this site has none."""
        opts = self.opts if model is None else model._meta
        try:
            return reverse(
                f"admin:{opts.app_label}_{opts.model_name}_{name}",
                args=args,
                current_app=self.admin_site.name,
            )
        except (NoReverseMatch, UnicodeError):  # A name may have half a character.
            return ""

    def refuse_unless_post(self, request: HttpRequest) -> HttpResponseBase | None:
        """Return the answer to a request that only looks, None for a POST."""
        return None if request.method == "POST" else HttpResponseNotAllowed(["POST"])

    def log(self, request: HttpRequest, rows: Iterable[Any], sentence: Any) -> None:
        """Write a LogEntry with a sentence for each of rows."""
        listed = list(rows)
        if listed:
            # In the language of the code, as Django's own entries are.
            with override(None):
                LogEntry.objects.log_actions(
                    user_id=request.user.pk,  # type: ignore[arg-type]
                    queryset=listed,
                    action_flag=CHANGE,
                    change_message=str(sentence),
                )

    def answer(self, request: HttpRequest, done: str, skipped: Iterable[str]) -> None:
        """Show what was done and what was not."""
        reasons = list(skipped)
        level = messages.WARNING if reasons else messages.SUCCESS
        sentences = [done, *reasons] if done else reasons
        if sentences:
            self.message_user(request, " ".join(sentences), level)

    @staticmethod
    def ticked(request: HttpRequest) -> set[str]:
        """Return the keys of the rows that were ticked."""
        return set(request.POST.getlist(ACTION_CHECKBOX_NAME))


def clock_of(row: Any) -> datetime:
    """Return the database's time when row was read."""
    return getattr(row, "clock", None) or timezone.now()
