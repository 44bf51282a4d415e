"""Arithmetic of comparisons: ratios of pairs, and how a cost grows with a size. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import Any

Costs = Mapping[str, Mapping[str, float]]
"""Figures by what was done and by quantity; of all of them less is better."""


@dataclass(frozen=True)
class Ratio:
    """Head's share of the base's cost.

    Args:
        figure: What was done.
        quantity: `wall`, `processor`, `memory` or a count.
        base: Median of the base.
        head: Median of the head.
        ratios: Head over base, pair by pair.
        target: The ratio to reach; None for none.
    """

    figure: str
    quantity: str
    base: float
    head: float
    ratios: tuple[float, ...]
    target: float | None = None

    @property
    def middle(self) -> float:
        """Median of the pairs."""
        return median(self.ratios)

    def row(self, base: str, head: str) -> dict[str, Any]:
        """Cells of the table; `base` and `head` are the names of their columns."""
        unit = unit_of(self.quantity)
        return {
            "figure": self.figure,
            "of": self.quantity,
            base: amount(self.base, unit),
            head: amount(self.head, unit),
            "ratio": f"{self.middle:.2f}",
            "pairs": f"{min(self.ratios):.2f} to {max(self.ratios):.2f}",
            "target": "" if self.target is None else f"≤ {self.target:.2f}",
            "met": "" if self.target is None else "yes" if self.middle <= self.target else "NO",
        }


def unit_of(quantity: str) -> str:
    """Unit of a quantity of a cost."""
    if quantity == "memory" or quantity.endswith("bytes"):
        return "MB"
    return "s" if quantity in ("wall", "processor") or quantity.endswith(" s") else ""


def amount(value: float, unit: str) -> str:
    """A figure with its unit, scaled to be read."""
    if unit == "MB":
        return f"{value / 1e6:,.1f} MB"
    if unit == "s":
        return (
            f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.3g} ms" if value >= 1e-4 else f"{value * 1e6:.3g} µs"
        )
    return f"{value:,.0f}"


def compared(
    base: Sequence[Costs], head: Sequence[Costs], targets: Mapping[tuple[str, str], float]
) -> tuple[list[Ratio], list[str]]:
    """Ratios of what both have, and the names of the figures that only one of them has.

    Args:
        base: Costs of each run of the base, in order.
        head: Costs of each run of the head; as many.
        targets: Ratios to reach, by figure and quantity.

    Raises:
        ValueError: Not as many runs of the one as of the other, or none.
    """
    if not base or len(base) != len(head):
        raise ValueError(f"{len(base)} runs of the base and {len(head)} of the head make no pairs")
    found: list[Ratio] = []
    alone: list[str] = []
    mine, theirs = (_everywhere(runs) for runs in (head, base))
    for figure, quantity in dict.fromkeys([*mine, *theirs]):
        if (figure, quantity) not in mine or (figure, quantity) not in theirs:
            alone.append(f"{figure}, {quantity}")
            continue
        pairs = [(b[figure][quantity], h[figure][quantity]) for b, h in zip(base, head, strict=True)]
        if all(b > 0 for b, _ in pairs):
            ratios = tuple(h / b for b, h in pairs)
            old, new = (median(values) for values in zip(*pairs, strict=True))
            found.append(Ratio(figure, quantity, old, new, ratios, targets.get((figure, quantity))))
    return found, alone


def _everywhere(runs: Sequence[Costs]) -> list[tuple[str, str]]:
    """Figures and quantities that every run has, in the order of the first."""
    named = [[(f, q) for f, quantities in costs.items() for q in quantities] for costs in runs]
    return [name for name in named[0] if all(name in others for others in named[1:])]


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent of the fit `cost = a * size ** exponent`, by least squares of the logarithms.

    0 is a cost that does not grow with the size, 1 one that grows in proportion.

    Raises:
        ValueError: Fewer than two sizes, or a size or cost that is not positive.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise ValueError(f"a slope needs two sizes or more, each with its cost: {len(sizes)} and {len(costs)} given")
    if min(*sizes, *costs) <= 0:
        raise ValueError(f"a slope needs sizes and costs above 0: {list(sizes)}, {list(costs)}")
    return linear_regression([math.log(s) for s in sizes], [math.log(c) for c in costs]).slope
