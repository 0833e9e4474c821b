"""
Charts as inline SVG: no script, no style attribute, so any Content-Security-Policy lets them.

Drawings are stretched to the width that there is, so they hold no text:
labels stand around them as HTML. Colours are classes of bgtasks.css.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

#: Height of the drawings in their own units; each interval is WIDTH wide.
HEIGHT = 100
WIDTH = 10
#: Intervals that one chart shows at most.
MOST = 120


def bars(
    stacks: Sequence[tuple[str, Sequence[float]]], titles: Sequence[str], sentence: str
) -> SafeString:
    """
    Return stacked bars, one for each of titles, their highest as high as the chart.

    stacks are colours (badges.OK, ...) with a value for each bar, from the
    bottom upwards. sentence says what is to be seen, for who can't see it.
    """
    count = min(len(titles), MOST)
    highest = max((sum(values[i] for _c, values in stacks) for i in range(count)), default=0)
    parts = []
    for place in range(count):
        top = float(HEIGHT)
        rects: list[tuple[Any, ...]] = []
        for color, values in stacks:
            if not values[place] or not highest:
                continue
            height = max(values[place] / highest * HEIGHT, 1.0)
            top -= height
            rects.append(
                (color, place * WIDTH + 1, f"{max(top, 0):.2f}", WIDTH - 2, f"{height:.2f}")
            )
        if rects:
            drawn = format_html_join(
                "",
                '<rect class="bgt-fill-{}" x="{}" y="{}" width="{}" height="{}"></rect>',
                rects,
            )
            parts.append((titles[place], drawn))
    content = format_html_join("", "<g><title>{}</title>{}</g>", parts)
    return _svg("bgt-chart", count, sentence, content)


def lines(
    series: Sequence[tuple[str, Sequence[float | None]]], count: int, sentence: str
) -> SafeString:
    """
    Return a line for each of series, from zero upwards; where a value is None it has a gap.

    series are classes (bgt-line-run, ...) with count values each.
    """
    count = min(count, MOST)
    values = [v for _c, line in series for v in line[:count] if v is not None]
    highest = max(values, default=0)
    content = format_html_join(
        "",
        '<polyline class="{}" points="{}"></polyline>',
        ((name, points) for name, line in series for points in _runs(line[:count], highest)),
    )
    return _svg("bgt-chart", count, sentence, content)


def spark(values: Sequence[float], sentence: str) -> SafeString:
    """Return a small line of values."""
    content = format_html_join(
        "",
        '<polyline class="bgt-line-run" points="{}"></polyline>',
        ((points,) for points in _runs(values[:MOST], max(values, default=0))),
    )
    return _svg("bgt-spark", min(len(values), MOST), sentence, content)


def meter(value: float, total: float, label: str, color: str = "run") -> SafeString:
    """Return a bar that is filled as far as value of total."""
    share = min(max(value / total, 0.0), 1.0) if total > 0 else 0.0
    # In Unfold a native <progress> is green on grey, and a width of 64% needs a style.
    return format_html(
        '<svg class="bgt-meter" role="progressbar" aria-label="{}" aria-valuemin="0" '
        'aria-valuemax="100" aria-valuenow="{}" viewBox="0 0 100 10" '
        'preserveAspectRatio="none"><rect class="bgt-fill-{}" width="{}" height="10"></rect></svg>',
        label,
        round(100 * share),
        color,
        f"{100 * share:.2f}",
    )


def as_table(caption: str, heads: Sequence[Any], rows: Sequence[Sequence[Any]]) -> SafeString:
    """Return the values of a chart as a table, folded."""
    return format_html(
        '<details><summary>{}</summary><div class="bgt-scroll" tabindex="0" role="region" '
        'aria-label="{}"><table class="bgt-table"><thead><tr>{}</tr></thead><tbody>{}</tbody>'
        "</table></div></details>",
        _("Show as table"),
        caption,
        format_html_join("", '<th scope="col">{}</th>', ((head,) for head in heads)),
        format_html_join(
            "",
            "<tr>{}</tr>",
            ((format_html_join("", "<td>{}</td>", ((v,) for v in row)),) for row in rows),
        ),
    )


def _svg(name: str, count: int, sentence: str, content: Any) -> SafeString:
    return format_html(
        '<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {} {}" '
        'preserveAspectRatio="none">{}</svg>',
        name,
        sentence,
        max(count, 1) * WIDTH,
        HEIGHT,
        content,
    )


def _runs(values: Sequence[float | None], highest: float) -> list[SafeString]:
    """Return the points of the unbroken stretches of a line; one value alone is a short dash."""
    found: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            found.append([])
            continue
        # Not at the very edge, where half of the line would be cut off.
        y = HEIGHT - 2 - (value / highest * (HEIGHT - 6) if highest else 0)
        found[-1].append(f"{place * WIDTH + WIDTH // 2},{y:.2f}")
    runs = []
    for points in filter(None, found):
        if len(points) == 1:
            x, y = points[0].split(",")
            points = [f"{int(x) - 3},{y}", f"{int(x) + 3},{y}"]
        runs.append(mark_safe(" ".join(points)))
    return runs
