"""Pictures as SVG text, the same text for the same figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SIZE = (8.0, 4.0)
"""Inches."""


def svg(paint: Callable[[Any], None], size: tuple[float, float] = SIZE) -> str:
    """What a function paints on a matplotlib figure."""
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    text = io.StringIO()
    # Text stays text, and ids are hashes of the content.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "picture"}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
