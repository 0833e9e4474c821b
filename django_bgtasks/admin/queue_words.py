"""The state of a queue in words, wherever queues are shown."""

from __future__ import annotations

from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext as _

from ..monitoring.queues import QueueFigures
from .badges import BAD, OK, OUTLINE, WARN, badge
from .display import relative, visible


def counted(figures: QueueFigures, name: str) -> str:
    """Return a number of tasks, with a plus if there are more."""
    return number_format(getattr(figures, name)) + "+" * (name in figures.capped)


def state_badge(figures: QueueFigures) -> str:
    """Return the state of a queue: the first that asks for something to be done."""
    if figures.is_paused:
        return badge(WARN + OUTLINE, _("Paused"))
    if figures.is_unserved:
        return badge(BAD, _("No worker"))
    if figures.is_late:
        return badge(WARN, _("Late"))
    return badge(OK, _("Open"))


def pause_in_words(figures: QueueFigures) -> str:
    """Return who paused a queue, when and why; "" if nobody did."""
    if figures.paused_at is None:
        return ""
    when = format_html(
        '<time datetime="{}">{}</time>',
        figures.paused_at.isoformat(),
        relative(figures.paused_at, figures.now),
    )
    who = visible(figures.paused_by)
    text = format_html(_("by {who} {when}"), who=who, when=when) if who else when
    return format_html("{}: {}", text, visible(figures.reason)) if figures.reason else text
