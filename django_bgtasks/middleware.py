"""Middleware for the sites of a project."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .origins import Origin, enqueued_by, storable


class OriginMiddleware:
    """
    Has tasks remember the path and the user of the request that enqueued them.

    The pages of tasks in the admin show them. Place it anywhere in MIDDLEWARE;
    request.user is asked for only when a task is enqueued.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._answer(request)
        with enqueued_by(lambda: origin_of(request)):
            return self.get_response(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with enqueued_by(lambda: origin_of(request)):
            return await self.get_response(request)


def origin_of(request: HttpRequest) -> Origin:
    """Return what a task keeps of the request that enqueued it."""
    origin = {"path": storable(request.path)}
    try:
        user = getattr(request, "user", None)
        if user is not None and user.is_authenticated:
            origin |= {"user": storable(user.get_username()), "user_id": storable(user.pk)}
    except Exception:
        # Sessions and users are the project's: that they can't be read now is no reason
        # not to enqueue.
        pass
    return origin
