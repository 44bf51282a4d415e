"""Code version of an asset: a hash of the source that computes its rows and of its contract's columns.

Hand-maintained versions are forgotten, and a hash of the whole package would change every asset with every commit. The
hash therefore covers the module of the work and its imports within `ROWS`, without docstrings and comments, so that
*unsynced* in Dagster means that the rows would differ. See decision 0018.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from functools import cache

from crypto_assets.assets.card import ModelAsset, Step
from crypto_assets.contracts.model import Table

ROWS = ("crypto_assets.assets.", "crypto_assets.transforms.", "crypto_assets.ml.", "crypto_assets.market.")
"""Packages whose modules determine rows."""
REPORTING = frozenset(f"crypto_assets.assets.{n}" for n in ("card", "commit_report", "plots", "log_slices.report"))
"""Modules among them that only describe what was written."""

QUOTES = '"""'
CONTINUED = ("(", "[", "{", ",", "=", "+")
IMPORT = re.compile(r"^\s*from (crypto_assets[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)


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
def _text(module: str) -> str:
    """Text of a module; empty if it has no source."""
    spec = importlib.util.find_spec(module)
    read = getattr(spec and spec.loader, "get_source", None)
    return (read(module) or "") if read else ""


@cache
def _imports(module: str) -> frozenset[str]:
    named: set[str] = set()
    for package, names in IMPORT.findall(_source(module)):
        named |= {package, *(f"{package}.{name}" for name in re.findall(r"(\w+)(?: as \w+)?", names))}
    return frozenset(n for n in named if n.startswith(ROWS) and n not in REPORTING and _is_module(n))


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False


@cache
def _source(module: str) -> str:
    """Code lines of a module; lines, because syntax trees and tokens differ between Python versions.

    A line that begins a string, and does not continue an expression, is a docstring or a text below a constant. The
    syntax tree says the same, as a test shows, but parsing takes a tenth of the import of Dagster's definitions.
    """
    kept, text, code = [""], False, False  # inside a string that is left out, or inside one that is code
    for line in _text(module).splitlines():
        bare = line.strip()
        if QUOTES not in line:
            if bare and not text and bare[0] != "#":
                kept.append(line.rstrip())
            continue
        odd = line.count(QUOTES) % 2 == 1
        if text or (not code and bare.lstrip("r").startswith(QUOTES) and not kept[-1].endswith(CONTINUED)):
            text = text != odd
        elif bare[0] != "#":
            code = code != odd
            kept.append(line.rstrip())
    return "\n".join(kept[1:])
