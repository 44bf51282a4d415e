"""Figures of a part, and how they are printed.

Belongs here: figures with their targets, tables, the machine. Does not belong here: measuring.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from crypto_assets.cli import output

VERSIONS = ("dagster", "deltalake", "pysail", "pyspark", "confluent-kafka", "pyarrow", "duckdb", "mlflow")


@dataclass(frozen=True)
class Measure:
    """One figure.

    Args:
        name: What was measured.
        measured: The figure, in `unit`.
        unit: Unit of `measured`, `target` and `reference`.
        target: The goal; None for a figure without a target.
        more_is_better: Whether the target is a floor rather than a ceiling.
        reference: The same job done in plain DuckDB (or what the note says), where there is one.
        note: How it was measured, in a few words.
    """

    name: str
    measured: float
    unit: str
    target: float | None = None
    more_is_better: bool = False
    reference: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.measured >= self.target if self.more_is_better else self.measured < self.target

    @property
    def margin(self) -> str:
        """By how much the target is met or missed."""
        if self.target is None or not self.target:
            return ""
        share = self.measured / self.target - 1
        better = share >= 0 if self.more_is_better else share < 0
        return f"{abs(share):.0%} {'better' if better else 'worse'}"

    def row(self) -> dict[str, object]:
        """Cells of the table."""
        sign = "≥" if self.more_is_better else "<"
        return {
            "measured": self.name,
            "value": formatted(self.measured),
            "target": "" if self.target is None else f"{sign} {formatted(self.target)}",
            "unit": self.unit,
            "met": {True: "yes", False: "NO", None: ""}[self.met],
            "margin": self.margin,
            "reference": "" if self.reference is None else formatted(self.reference),
            "how": self.note,
        }


@dataclass
class Part:
    """Everything that one part of the bench found.

    Args:
        title: Headline.
        measures: Figures.
        tables: Further tables by title.
        notes: Lines below the tables.
        costs: Figures that `--against` compares, by what was done and by quantity: `wall` and `processor` in seconds,
            `memory` in bytes, and counts; of all of them less is better.
    """

    title: str
    measures: list[Measure] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), default=str), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Part:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(raw["title"], [Measure(**m) for m in raw["measures"]], raw["tables"], raw["notes"], raw["costs"])


def formatted(value: float) -> str:
    """A figure with as many digits as matter; whole numbers as they are."""
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def spread(seconds: Sequence[float]) -> str:
    """Several tries in a few words."""
    if len(seconds) == 1:
        return "1 try"
    return f"median of {len(seconds)}; {formatted(min(seconds))} to {formatted(max(seconds))} s"


def middle(seconds: Sequence[float]) -> float:
    """The median."""
    return median(seconds)


def machine() -> list[str]:
    """Lines that say on what all this was measured."""
    import psutil

    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.lower().startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    memory = psutil.virtual_memory().total / 1e9
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return [
        f"machine: {cores} cores ({model}), {memory:.1f} GB memory, {system}; load before the bench {load:.2f}",
        "versions: " + ", ".join(f"{name} {version(name)}" for name in VERSIONS),
    ]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def show(part: Part) -> None:
    """Print one part."""
    if part.measures:
        output.table(part.title, [m.row() for m in part.measures])
    else:
        output.say(part.title, style="bold")
    for title, rows in part.tables.items():
        output.table(title, rows)
    for note in part.notes:
        output.say(f"note: {note}")
    if part.notes:
        output.say()


def show_verdict(parts: Sequence[Part], failed: Mapping[str, str]) -> None:
    """Print every target in one table, and say plainly which were missed."""
    with_target = [m for part in parts for m in part.measures if m.target is not None]
    if with_target:
        names = ("measured", "value", "target", "unit", "met", "margin")
        output.table("All targets", [m.row() for m in with_target], names)
    for name, why in failed.items():
        output.fail(f"{name} could not be measured: {why}")
    missed = [m.name for m in with_target if not m.met]
    if missed:
        output.say(f"MISSED {len(missed)} of {len(with_target)} targets: {', '.join(missed)}", style="bold")
    elif with_target:
        output.say(f"all {len(with_target)} targets met", style="bold")
