"""Promises about the code itself: what importing costs, who reads the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import crypto_assets

PACKAGE = Path(crypto_assets.__file__).parent
HEAVY = (
    "pyspark",
    "pysail",
    "mlflow",
    "sklearn",
    "pandas",
    "confluent_kafka",
    "dagster_databricks",
    "dagster_pyspark",
    "deltalake",
    "duckdb",
    "matplotlib",
)


def test_importing_definitions_loads_nothing_heavy():
    code = f"import sys, crypto_assets.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_only_settings_reads_the_environment():
    readers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                readers.add(path.relative_to(PACKAGE).as_posix())
    assert readers == {"settings.py"}


def test_domain_code_never_asks_for_the_time():
    asking = set()
    for folder in ("market", "transforms", "ml", "contracts", "assets", "checks"):
        for path in (PACKAGE / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    name = node.func.attr
                    owner = getattr(node.func.value, "id", "")
                    if (name in ("now", "utcnow", "today") and owner in ("datetime", "date")) or (
                        name == "time" and owner == "time"
                    ):
                        asking.add(path.relative_to(PACKAGE).as_posix())
    assert asking == set()


def test_every_module_says_what_belongs_there():
    silent = [
        p.relative_to(PACKAGE).as_posix()
        for p in PACKAGE.rglob("*.py")
        if ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def test_every_write_to_a_table_is_audited_first():
    """What breaks a blocking rule is not committed: no call of a store's writing verb leaves the audit out."""
    verbs, calls, silent = {"append_once", "replace_slice", "merge"}, 0, []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            named = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if node.func.attr in verbs and named == "store":
                calls += 1
                if "audit" not in {k.arg for k in node.keywords}:
                    silent.append(f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}")
    assert calls >= 10
    assert silent == []
