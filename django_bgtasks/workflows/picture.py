"""The graph of a workflow as SVG: layers from left to right (after Sugiyama and others, 1981)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from django.utils.html import escape
from django.utils.translation import gettext as _

from ..states import FinalStatus, LiveStatus
from ..untrusted import visible
from .description import SYMBOLS

if TYPE_CHECKING:
    from .description import Box, Description

#: In SVG's units.
BOX_WIDTH, BOX_HEIGHT = 184, 46
GAP_X, GAP_Y, MARGIN = 44, 14, 8
JOINT = 5
#: Passes in which boxes are moved next to what they come after.
PASSES = 4
#: Characters of a name.
LONGEST = 21
#: More boxes than this make no picture.
MOST_BOXES = 200

# Mid tones, on light and dark alike; no state is told by its colour alone.
COLOURS = {
    "SUCCESSFUL": "#2e8b57",
    "FAILED": "#d2374b",
    "CANCELLED": "#8a8f98",
    "RUNNING": "#2f7fd1",
    "READY": "#8a8f98",
    "SCHEDULED": "#8a8f98",
    "WAITING": "#8a8f98",
}


def draw(description: Description, link: Callable[[Box], str | None]) -> str:
    """Return the picture; empty where it would say less than the list does."""
    boxes = description.boxes()
    if not boxes or len(boxes) > MOST_BOXES:
        return ""
    layers = _layers(boxes)
    places = _places(layers)
    height = max(y for _, y in places.values()) + BOX_HEIGHT / 2 + MARGIN
    width = len(layers) * (BOX_WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    title = _("%(name)s: %(state)s") % {
        "name": description.name,
        "state": description.state.lower(),
    }
    lines = [_line(places[before], places[box], before, box) for before, box in _needed(boxes)]
    addresses = {box: link(box) for box in boxes}
    drawn = [_box(box, *places[box], addresses[box]) for box in boxes]
    # Who is read an image is told of no link within it.
    role = "group" if any(addresses.values()) else "img"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="bgtasks-graph" role="{role}" '
        f'aria-label="{escape(visible(title))}" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}" font-family="system-ui, sans-serif" font-size="13">'
        f'<g fill="none" stroke="currentColor" stroke-opacity="0.45">{"".join(lines)}</g>'
        f"{''.join(drawn)}</svg>"
    )


def _needed(boxes: Sequence[Box]) -> Iterator[tuple[Box, Box]]:
    """Yield what comes after what, without what other lines say already."""
    before: dict[Box, set[Box]] = {}
    for box in sorted(boxes, key=lambda box: box.level):
        before[box] = set(box.after).union(*(before[one] for one in box.after))
    for box in boxes:
        for one in box.after:
            if not any(one in before[other] for other in box.after):
                yield one, box


def _layers(boxes: Sequence[Box]) -> list[list[Box]]:
    layers: list[list[Box]] = [[] for _ in range(max(box.level for box in boxes) + 1)]
    for box in boxes:
        layers[box.level].append(box)
    behind: dict[Box, list[Box]] = defaultdict(list)
    for box in boxes:
        for before in box.after:
            behind[before].append(box)
    for turn in range(PASSES):
        forth = turn % 2 == 0
        for layer in layers if forth else reversed(layers):
            place = {box: index for other in layers for index, box in enumerate(other)}
            middle = {}
            for index, box in enumerate(layer):
                near = box.after if forth else behind[box]
                middle[box] = sum(place[one] for one in near) / len(near) if near else index
            layer.sort(key=middle.__getitem__)
    return layers


def _places(layers: Sequence[Sequence[Box]]) -> dict[Box, tuple[float, float]]:
    """Return the left edge and the middle of each box."""
    highest = max(len(layer) for layer in layers)
    places: dict[Box, tuple[float, float]] = {}
    for level, layer in enumerate(layers):
        top = MARGIN + (highest - len(layer)) * (BOX_HEIGHT + GAP_Y) / 2
        for index, box in enumerate(layer):
            y = top + index * (BOX_HEIGHT + GAP_Y) + BOX_HEIGHT / 2
            places[box] = (MARGIN + level * (BOX_WIDTH + GAP_X), y)
    return places


def _line(start: tuple[float, float], end: tuple[float, float], before: Box, box: Box) -> str:
    x1 = start[0] + (BOX_WIDTH / 2 if before.is_joint else BOX_WIDTH)
    x2 = end[0] + (BOX_WIDTH / 2 if box.is_joint else 0)
    bend = (x1 + x2) / 2
    y1, y2 = start[1], end[1]
    return f'<path d="M{x1:g},{y1:g} C{bend:g},{y1:g} {bend:g},{y2:g} {x2:g},{y2:g}"/>'


def _box(box: Box, x: float, y: float, address: str | None) -> str:
    if box.is_joint:
        return f'<circle cx="{x + BOX_WIDTH / 2:g}" cy="{y:g}" r="{JOINT}" fill="currentColor"/>'
    name = box.name if len(box.name) <= LONGEST else f"{box.name[: LONGEST - 1]}…"
    state = _state_in_words(box)
    taken = "" if box.seconds is None else f" · {_duration(box.seconds)}"
    colour = COLOURS.get(box.state, "#8a8f98")
    dashes = ' stroke-dasharray="4 3"' if box.state in ("WAITING", "SCHEDULED", "READY") else ""
    top = y - BOX_HEIGHT / 2
    whole = (
        f"<title>{escape(visible(box.name))}: {escape(state)}</title>"
        f'<rect x="{x:g}" y="{top:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="{colour}" fill-opacity="0.14" stroke="{colour}" stroke-width="1.5"{dashes}/>'
        f'<text x="{x + 10:g}" y="{y - 4:g}" fill="currentColor" font-weight="600">'
        f"{escape(visible(name))}</text>"
        f'<text x="{x + 10:g}" y="{y + 14:g}" fill="currentColor" font-size="11.5">'
        f"{SYMBOLS.get(box.state, '')} {escape(state + taken)}</text>"
    )
    shown = f'<g class="bgtasks-node bgtasks-{box.state.lower()}">{whole}</g>'
    return f'<a href="{escape(address)}">{shown}</a>' if address else shown


def _state_in_words(box: Box) -> str:
    labels = {**dict(LiveStatus.choices), **dict(FinalStatus.choices)}
    states = box.states
    first = str(labels.get(box.state, box.state))
    if len(box.members) == 1:
        return first
    return _("%(count)s of %(all)s %(state)s") % {
        "count": f"{states[box.state]:,}",
        "all": f"{len(box.members):,}",
        "state": first.lower(),
    }


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
