"""Code version of an asset: a hash of the source that computes its rows and of its contract's columns.

Hand-maintained versions are forgotten, and a hash of the whole package would change every asset with every commit. The
hash therefore covers the module of the work and its imports within `ROWS`, without docstrings and comments, so that
*unsynced* in Dagster means that the rows would differ. See decision 0018.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache

from crypto_assets.assets.card import ModelAsset, Step
from crypto_assets.contracts.model import Table

ROWS = ("crypto_assets.assets.", "crypto_assets.transforms.", "crypto_assets.ml.", "crypto_assets.market.")
"""Packages whose modules determine rows."""
REPORTING = frozenset(f"crypto_assets.assets.{n}" for n in ("card", "commit_report", "plots", "log_slices.report"))
"""Modules among them that only describe what was written."""


def code_version(step: Step, asset: Table | ModelAsset) -> str:
    """Twelve hexadecimal digits, equal on every machine and Python version that has the same source.

    Args:
        step: Step that materializes the asset.
        asset: One of its assets.
    """
    found = hashlib.sha256()
    for module in sorted(_closure(step.work.__module__)):
        found.update(f"{module}\n{_source(module)}\n".encode())
    if isinstance(asset, Table):
        columns = [(c.name, c.type, c.nullable) for c in asset.columns]
        found.update(repr((columns, asset.key, asset.grain, asset.write, asset.time_column)).encode())
    return found.hexdigest()[:12]


@cache
def _closure(module: str) -> frozenset[str]:
    """A module and its direct and transitive imports within `ROWS`."""
    found, left = {module}, [module]
    while left:
        for name in _imports(left.pop()) - found:
            found.add(name)
            left.append(name)
    return frozenset(found)


@cache
def _parsed(module: str) -> tuple[str, list[ast.stmt]]:
    """Text of a module and its statements at every depth; empty if it has no source.

    Expressions are not entered: they hold no imports and no docstrings, and are nine tenths of a tree.
    """
    spec = importlib.util.find_spec(module)
    read = getattr(spec and spec.loader, "get_source", None)
    text = (read(module) or "") if read else ""
    found: list[ast.stmt] = []
    left: list[ast.AST] = [ast.parse(text)]
    while left:
        node = left.pop()
        if isinstance(node, ast.stmt):
            found.append(node)
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            left += getattr(node, block, ())
    return text, found


@cache
def _imports(module: str) -> frozenset[str]:
    named: set[str] = set()
    for statement in _parsed(module)[1]:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            named |= {statement.module, *(f"{statement.module}.{a.name}" for a in statement.names)}
    return frozenset(n for n in named if n.startswith(ROWS) and n not in REPORTING and _is_module(n))


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False


@cache
def _source(module: str) -> str:
    """Code lines of a module; lines, because syntax trees and tokens differ between Python versions."""
    text, statements = _parsed(module)
    lines = text.splitlines()
    # String statements: docstrings, and texts below constants.
    for node in statements:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            last = node.end_lineno or node.lineno
            lines[node.lineno - 1 : last] = [""] * (last - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
