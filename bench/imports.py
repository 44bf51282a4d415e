"""Seconds to import the definitions, which every process of Dagster pays, and Dagster alone for comparison."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.report import Measure, Part, middle, spread
from bench.spent import Spent
from bench.targets import DEFINITIONS

NAME = "import"
_CHILD = """
import sys, time
began, spent = time.perf_counter(), time.process_time()
import {module}
print(time.perf_counter() - began, time.process_time() - spent, *(n for n in {heavy!r} if n in sys.modules))
"""
HEAVY = (
    "pyspark",
    "pysail",
    "mlflow",
    "sklearn",
    "pandas",
    "confluent_kafka",
    "dagster_databricks",
    "duckdb",
    "deltalake",
)


def run(*, repeats: int) -> Part:
    """Import each in fresh processes.

    Args:
        repeats: Processes a module.
    """
    part = Part("Imports, each in a fresh process, with bytecode cached as after a first start")
    found: dict[str, list[Spent]] = {"crypto_assets.definitions": [], "dagster": []}
    heavy: set[str] = set()
    for module in found:
        _import(module)  # writes the bytecode
    for _ in range(repeats):
        for module, tries in found.items():
            wall, processor, *loaded = _import(module)
            tries.append(Spent(float(wall), float(processor)))
            heavy.update(loaded)
    for module, tries in found.items():
        wall, processor = ([getattr(t, name) for t in tries] for name in ("wall", "processor"))
        part.measures.append(Measure(f"import {module}", middle(wall), "s", note=spread(wall)))
        part.costs[f"import {module}"] = {"wall": middle(wall), "processor": middle(processor)}
    own, alone = (part.costs[f"import {module}"]["processor"] for module in found)
    part.measures.append(
        Measure(
            "processor time, definitions over dagster alone",
            own / alone,
            "x",
            DEFINITIONS,
            note=f"{own - alone:.2f} s more",
        )
    )
    part.notes = [f"heavy libraries loaded by it: {', '.join(sorted(heavy)) or 'none'}"]
    return part


def _import(module: str) -> list[str]:
    """Seconds in the child, those of processor time, then the heavy libraries that it had loaded."""
    code = _CHILD.format(module=module, heavy=HEAVY)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return answer.stdout.split()
