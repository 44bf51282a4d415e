"""Seconds to import the definitions, which every process of Dagster pays, and Dagster alone for comparison."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.report import Measure, Part, middle, spread

NAME = "import"
_CHILD = """
import sys, time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began, *(n for n in {heavy!r} if n in sys.modules))
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
    found: dict[str, list[float]] = {"crypto_assets.definitions": [], "dagster": []}
    heavy: set[str] = set()
    for module in found:
        _import(module)  # writes the bytecode
    for _ in range(repeats):
        for module, seconds in found.items():
            taken, *loaded = _import(module)
            seconds.append(float(taken))
            heavy.update(loaded)
    alone = middle(found["dagster"])
    for module, seconds in found.items():
        reference = alone if module != "dagster" else None
        part.measures.append(
            Measure(f"import {module}", middle(seconds), "s", reference=reference, note=spread(seconds))
        )
    own = middle(found["crypto_assets.definitions"]) - alone
    part.notes = [
        f"the reference is dagster alone; {own:.2f} s are this package's own share",
        f"heavy libraries loaded by it: {', '.join(sorted(heavy)) or 'none'}",
    ]
    return part


def _import(module: str) -> list[str]:
    """Seconds in the child, then the heavy libraries that it had loaded."""
    code = _CHILD.format(module=module, heavy=HEAVY)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return answer.stdout.split()
