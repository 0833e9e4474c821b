"""Signed addresses: who has one may ask how far its task is, and can't make another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse

from ..compat import InvalidTaskBackend, TaskResultDoesNotExist, task_backends
from ..conf import Options
from ..exceptions import WorkflowDoesNotExist
from ..workflows.handle import get_workflow
from .answers import Workflows

SALT = "django_bgtasks.progress"


def options_of(alias: str) -> Options:
    """Return the options of a backend; the defaults for one that isn't ours, or is gone."""
    try:
        found = getattr(task_backends[alias], "conf", None)
    except InvalidTaskBackend:
        found = None
    return found if isinstance(found, Options) else Options({})


@dataclass(frozen=True, slots=True)
class Link:
    """
    A task or a workflow by id and backend, and for whom the link was made.

    user is the primary key as text, None for whoever has the link.
    """

    id: str
    backend: str
    user: str | None
    is_workflow: bool

    @classmethod
    def to(cls, result: Any, user: Any = None) -> Link:
        """Return the link to what result describes; an anonymous user is nobody."""
        known = user is not None and user.is_authenticated
        return cls(
            id=str(result.id),
            backend=result.backend,
            user=str(user.pk) if known else None,
            is_workflow=isinstance(result, Workflows),
        )

    @property
    def token(self) -> str:
        """The link as signed text. What it holds can be read, and not be changed."""
        return signing.dumps([self.id, self.backend, self.user, self.is_workflow], salt=SALT)

    @classmethod
    def read(cls, token: str) -> Link:
        """
        Return the link of a token.

        Raise BadSignature; SignatureExpired, which is one, after PROGRESS_MAX_AGE.
        """
        try:
            link = cls(*signing.loads(token, salt=SALT))
        except (TypeError, ValueError):
            raise signing.BadSignature("The token is none of this version.") from None
        seconds = options_of(link.backend).progress_max_age
        if seconds is not None:
            signing.loads(token, salt=SALT, max_age=timedelta(seconds=seconds))
        return link

    def result(self) -> Any:
        """Return the task's or the workflow's result, read now; None if it is gone."""
        try:
            backend: Any = task_backends[self.backend]
            if not self.is_workflow:
                return backend.get_result(self.id)
            if not hasattr(backend, "database"):
                return None  # The backends for tests keep no workflows.
            return get_workflow(self.id, backend=self.backend)
        except (
            InvalidTaskBackend,
            TaskResultDoesNotExist,
            WorkflowDoesNotExist,
            NotImplementedError,
        ):
            return None


def progress_url(result: Any, *, user: Any = None) -> str:
    """
    Return the address of the view that says how far a task or a workflow is.

    With user only that one may ask, unless OPTIONS["PROGRESS_PERMISSION"] says
    otherwise; without, whoever has the address. It is good for PROGRESS_MAX_AGE.
    Raise ImproperlyConfigured where the project has no such view.
    """
    try:
        return reverse("bgtasks:progress", args=[Link.to(result, user).token])
    except NoReverseMatch:
        raise ImproperlyConfigured(
            "The addresses of django_bgtasks are not in ROOT_URLCONF. Add to urlpatterns: "
            'path("bgtasks/", include("django_bgtasks.urls"))'
        ) from None
