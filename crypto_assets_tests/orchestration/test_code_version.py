"""Code lines and imports that code versions are made of, against the syntax tree of every module that makes rows."""

from __future__ import annotations

import ast
import inspect
import pkgutil
from importlib import import_module

import pytest

from crypto_assets.orchestration import code_version
from crypto_assets.orchestration.code_version import ROWS

MODULES = [
    found.name
    for package in ROWS
    for found in pkgutil.walk_packages(import_module(package.rstrip(".")).__path__, package)
    if not found.ispkg
]


def parsed(module: str) -> tuple[str, set[str]]:
    """Lines without docstrings, comments and blanks, and the modules and names imported, by the syntax tree."""
    text = inspect.getsource(import_module(module))
    lines, tree = text.splitlines(), ast.parse(text)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            last = node.end_lineno or node.lineno
            lines[node.lineno - 1 : last] = [""] * (last - node.lineno + 1)
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return "\n".join(x.rstrip() for x in lines if x.strip() and not x.lstrip().startswith("#")), imported


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_read_as_its_syntax_tree_says(module: str) -> None:
    lines, imported = parsed(module)
    assert code_version._source(module) == lines
    makes_rows = {n for n in imported if n.startswith(ROWS) and n not in code_version.REPORTING}
    assert code_version._imports(module) == {n for n in makes_rows if code_version._is_module(n)}
