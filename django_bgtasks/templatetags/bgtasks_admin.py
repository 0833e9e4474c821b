"""Tags of our own pages in the admin: live regions, and nonces of a Content-Security-Policy."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.base import NodeList, Parser, Token
from django.template.context import Context
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

register = template.Library()


@register.simple_tag(takes_context=True)
def nonce(context: Context) -> SafeString | str:
    """Return the attribute nonce of a script or stylesheet, "" where the site has no nonces."""
    request = getattr(context, "request", None)
    # Django's own is falsy until it is printed; django-csp's is an attribute of the request.
    value = context.get("csp_nonce")
    if value is None:
        value = getattr(request, "csp_nonce", None)
    if value is None:
        return ""
    text = str(value)
    return format_html(' nonce="{}"', text) if text else ""


@register.tag
def live(parser: Parser, token: Token) -> LiveNode:
    """
    {% live "name" %} ... {% endlive %}: a region that is refreshed by itself.

    What it was rendered to is kept in the request's bgt_regions, if it has one:
    the answer to a refresh is made of that.
    """
    try:
        _, name = token.split_contents()
    except ValueError:
        raise template.TemplateSyntaxError(
            "{% live %} takes one argument, the name of the region."
        ) from None
    nodes = parser.parse(("endlive",))
    parser.delete_first_token()
    return LiveNode(name.strip("\"'"), nodes)


class LiveNode(template.Node):
    child_nodelists = ("nodelist",)

    def __init__(self, name: str, nodelist: NodeList) -> None:
        self.name = name
        self.nodelist = nodelist

    def render(self, context: Context) -> SafeString:
        inner: Any = self.nodelist.render(context)
        region = format_html('<div data-bgt-live="{}">{}</div>', self.name, mark_safe(inner))
        regions = getattr(getattr(context, "request", None), "bgt_regions", None)
        if regions is not None:
            regions.append(region)
        return region
