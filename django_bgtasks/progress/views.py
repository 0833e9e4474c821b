"""How far a task is, as JSON."""

from __future__ import annotations

from hashlib import sha256

from django.contrib.auth.decorators import login_not_required
from django.core import signing
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.cache import get_conditional_response
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from . import hooks
from .links import Link


@login_not_required  # The token is the proof; a redirect to a form is no JSON.
@cache_control(private=True, no_store=True)
@require_safe
def progress(request: HttpRequest, token: str) -> HttpResponseBase:
    """
    Answer with hooks.answer(), or 304 if that is what the asker has.

    404 for a token that is wrong or another's, and nobody learns which; 410 for
    one that is too old, or whose task was pruned.
    """
    try:
        link = Link.read(token)
    except signing.SignatureExpired:
        return _refusal(410, "expired", _("This page is too old. Load it again."))
    except signing.BadSignature:
        return _not_found()
    if hooks.is_another(request, link):
        return _not_found()
    result = link.result()
    if result is None:
        return _refusal(410, "gone", gone_text())
    if not hooks.may_see(request, result):
        return _not_found()
    response = JsonResponse(hooks.answer(request, result))
    etag = f'"{sha256(response.content).hexdigest()[:32]}"'
    response["ETag"] = etag
    return get_conditional_response(request, etag=etag, response=response) or response


def gone_text() -> str:
    """Return what is said of a task whose result is not kept any more."""
    return _("Not available any more")


def _not_found() -> JsonResponse:
    return _refusal(404, "not_found", _("There is nothing here that you may see."))


def _refusal(status: int, error: str, text: str) -> JsonResponse:
    return JsonResponse({"error": error, "text": text}, status=status)
