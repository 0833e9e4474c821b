"""The two functions that a project may supply: who may see progress, and what more there is."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest
from django.utils.module_loading import import_string

from .answers import progress_of
from .links import Link, options_of


def is_another(request: HttpRequest, link: Link) -> bool:
    """Say whether a link was made for another user, and the project has no rule of its own."""
    if link.user is None or options_of(link.backend).progress_permission is not None:
        return False
    user = getattr(request, "user", None)
    return user is None or not user.is_authenticated or str(user.pk) != link.user


def may_see(request: HttpRequest, result: Any) -> bool:
    """Say whether OPTIONS["PROGRESS_PERMISSION"], if there is one, lets the request see result."""
    path = options_of(result.backend).progress_permission
    return path is None or bool(_function(path)(request, result))


def answer(request: HttpRequest | None, result: Any) -> dict[str, Any]:
    """
    Return progress_of(result) with what OPTIONS["PROGRESS_DETAILS"] adds to it.

    Of our own keys the function may replace text and detail.
    """
    said = progress_of(result)
    path = options_of(result.backend).progress_details
    if path is None:
        return said
    added = _function(path)(request, result) or {}
    return {**added, **said, **{key: added[key] for key in ("text", "detail") if key in added}}


def _function(path: str) -> Callable[..., Any]:
    function = import_string(path)
    return async_to_sync(function) if iscoroutinefunction(function) else function
