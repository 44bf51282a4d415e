"""The runbook's recipes by message name texts that the code really has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import crypto_assets

ROOT = Path(crypto_assets.__file__).parent
RUNBOOK = ROOT.parent / "docs" / "runbook.md"


def recipes() -> list[str]:
    """First cells of the tables under *By message*, without backquotes."""
    section = RUNBOOK.read_text(encoding="utf-8").partition("## By message")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^|]+)` \|", section, re.MULTILINE)


def texts() -> str:
    """Every string of the package, each on a line; what an f-string fills in is `...`."""
    found = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "..." for v in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.fixture(scope="module")
def said() -> str:
    return texts()


@pytest.mark.parametrize("message", recipes())
def test_every_message_of_the_runbook_is_one_of_the_code(message, said):
    assert message in said


def test_the_runbook_has_recipes():
    assert "log went backwards" in recipes()
