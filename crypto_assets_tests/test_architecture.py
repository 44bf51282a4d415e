"""Promises about the code itself: what importing costs, who reads the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

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
    "sqlalchemy",
    "alembic",
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


def test_no_table_is_read_through_what_may_abort_the_process():
    """Arrow's datasets over delta-rs free a Python object from a thread of theirs as the interpreter ends."""
    called = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("to_pyarrow_dataset", "to_pyarrow_table")
    ]
    assert called == []


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
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SliceAppend":
                calls += 1
                assert len(node.args) == 4, "its audit is the last"
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


def modules(folder: Path) -> dict[str, ast.Module]:
    """Syntax of the modules below a folder of the checkout, by dotted name."""
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports anywhere, also in functions and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("folder", ["crypto_assets", "crypto_assets_tests/databricks_standin"])
def test_modules_import_each_other_in_no_circle(folder):
    trees = modules(PACKAGE.parent / folder)
    graph = {
        name: {one if one in trees else one.rpartition(".")[0] for one in imported(tree)} & trees.keys() - {name}
        for name, tree in trees.items()
    }
    assert len(graph) > 10
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_the_product_imports_no_test():
    assert [n for n, tree in modules(PACKAGE).items() if any("crypto_assets_tests" in i for i in imported(tree))] == []


def test_what_is_private_to_dagster_is_imported_in_one_module():
    importing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("dagster._", "dagster_shared._"))
    }
    assert importing == {"dagster_private.py", "databricks/launcher/remote_main.py"}
