"""Small plots for run metadata.

Belongs here: series to SVG, as markdown that the Dagster UI shows. Does not belong here: what is plotted.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import pairwise

from crypto_assets.engine.base import Markdown

WIDTH, HEIGHT, MARGIN = 640, 220, 24
LEGEND_ROW = 14
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
POINTS_AT_MOST = 160
"""Maximum points per line: more are not visible, and the text is stored with every event."""

HOLE = 5
"""Gap, in multiples of the usual distance of points, beyond which a line is broken."""

Point = tuple[datetime, float]
Series = Mapping[str, Sequence[Point]]


def lines(title: str, unit: str, series: Series, *, marks: Series | None = None) -> Markdown | None:
    """Lines over time, one per name, with marked points.

    Args:
        title: Title of the plot.
        unit: Unit of the values.
        series: Points by name; times UTC, in order.
        marks: Points to circle, by the same names.

    Returns:
        An image as markdown; None with fewer than two points to connect.
    """
    drawn = {name: _thinned(points) for name, points in series.items() if len(points) > 1}
    if not drawn:
        return None
    times = [t.timestamp() for points in drawn.values() for t, _ in points]
    values = [v for points in [*drawn.values(), *(marks or {}).values()] for _, v in points]
    t0, t1, low, high = min(times), max(times), min(values), max(values)
    high = high if high > low else low + 1

    def at(t: datetime, v: float) -> str:
        x = MARGIN + (t.timestamp() - t0) / max(t1 - t0, 1) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (v - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return f"{x:.0f},{y:.0f}"

    shapes = []
    for i, (name, points) in enumerate(drawn.items()):
        color = COLORS[i % len(COLORS)]
        for piece in _unbroken(points):
            path = " ".join(at(t, v) for t, v in piece)
            shapes.append(f'<polyline fill="none" stroke="{color}" points="{path}"/>')
        for t, v in (marks or {}).get(name, ()):
            x, y = at(t, v).split(",")
            shapes.append(f'<circle cx="{x}" cy="{y}" r="4" fill="none" stroke="{color}"/>')
        shapes.append(_text(WIDTH + 4, MARGIN + LEGEND_ROW * i, name, color))
    first, last = (datetime.fromtimestamp(t, tz=next(iter(drawn.values()))[0][0].tzinfo) for t in (t0, t1))
    shapes += [
        _text(MARGIN, 14, f"{title} [{unit}]  {low:.4g} to {high:.4g}", "#333"),
        _text(MARGIN, HEIGHT - 6, f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC", "#666"),
    ]
    look = f'width="{WIDTH + 180}" height="{HEIGHT}" font-family="sans-serif" font-size="11"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {look}>{"".join(shapes)}</svg>'
    return Markdown(f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})")


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The point farthest from zero of every few, so that peaks stay; always the last."""
    step = max(1, len(points) // POINTS_AT_MOST)
    kept = [max(points[i : i + step], key=lambda p: abs(p[1])) for i in range(0, len(points) - 1, step)]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _unbroken(points: Sequence[Point]) -> list[list[Point]]:
    """Split points into pieces: a line across a gap in time would show unmeasured values."""
    steps = sorted(b[0] - a[0] for a, b in pairwise(points))
    usual = steps[len(steps) // 2]
    pieces = [[points[0]]]
    for before, after in pairwise(points):
        if after[0] - before[0] > HOLE * usual:
            pieces.append([])
        pieces[-1].append(after)
    return pieces


def _text(x: int, y: int, text: str, color: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{color}">{escape(text)}</text>'
