"""Bars that say how much of something is taken: drawn on the server, without a style."""

from __future__ import annotations

from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _


def meter(taken: int, of: int) -> SafeString:
    """Return "3/8" with a bar; more than there is fills it."""
    share = 100 if of <= 0 else min(100, round(100 * taken / of))
    sentence = _("%(taken)s of %(all)s slots are busy") % {
        "taken": number_format(taken),
        "all": number_format(of),
    }
    return format_html(
        '<span class="bgt bgt-busy"><span>{}/{}</span><svg class="bgt-meter" '
        'viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="bgt-fill-run" width="{}" height="10"></rect></svg></span>',
        number_format(taken),
        number_format(of),
        sentence,
        share,
    )
