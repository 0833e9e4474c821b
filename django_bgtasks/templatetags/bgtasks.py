"""Tags for the templates of the project's own pages."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.context import Context
from django.utils.translation import gettext as _

from ..progress import hooks
from ..progress.links import progress_url
from ..progress.views import gone_text
from .bgtasks_admin import nonce

register = template.Library()


@register.inclusion_tag("bgtasks/progress.html", takes_context=True)
def task_progress(
    context: Context, result: Any, *, label: str = "", next: str = "", reload: bool = False
) -> dict[str, Any]:
    """
    Show how far a task or a workflow is, with a bar that follows it.

    result is what enqueue(), get_result() or get_workflow() returned, None for
    one that was pruned. label names the bar for screen readers. When the task
    has ended well the page goes to next, an address of this site; with reload
    it is loaded again, however the task has ended. The bar's address is made for
    the user who is signed in.
    """
    request = getattr(context, "request", None)
    said = _gone() if result is None else hooks.answer(request, result)
    fraction = said["progress"]["fraction"]
    return {
        **said,
        "url": ""
        if said["finished"]
        else progress_url(result, user=getattr(request, "user", None)),
        "percent": None if fraction is None else round(fraction * 100),
        "label": label or _("Progress"),
        "next": next,
        "reload": reload,
        "with_media": _is_first(request),
        "nonce": nonce(context),
    }


def _gone() -> dict[str, Any]:
    return {
        "state": "GONE",
        "text": gone_text(),
        "detail": "",
        "finished": True,
        "progress": {"fraction": None},
    }


def _is_first(request: Any) -> bool:
    """Say whether the page has no bar yet: the first one brings the script along."""
    if getattr(request, "_bgtasks_has_media", False):
        return False
    if request is not None:
        request._bgtasks_has_media = True
    return True
