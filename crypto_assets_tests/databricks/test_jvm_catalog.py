"""The setup job of the bundle, really run on JVM Spark with Delta."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.contracts.tables import TABLES
from crypto_assets.databricks.deploy import unity
from crypto_assets.jvm.fetch import ensure_jars
from crypto_assets.jvm.jars import SPARK_JARS
from crypto_assets_tests.databricks import jvm_catalog

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the setup job made of an empty catalog."""
    jars = ensure_jars(SPARK_JARS)
    folder = tmp_path_factory.mktemp("catalog")
    done = subprocess.run(
        [sys.executable, "-m", jvm_catalog.__name__, str(ROOT), str(folder / "warehouse"), str(jars)],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=560,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(Path.home()), "SPARK_LOCAL_DIRS": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    found["said"] = [line for line in done.stdout.splitlines() if ".sql: " in line]
    return found


def test_open_source_spark_parses_all_but_what_only_databricks_has(catalog: dict[str, Any]) -> None:
    for name in ("02_schemas.sql", "04_tables.sql", "06_checks.sql", "07_views.sql"):
        assert catalog["unparsed"][name] == []
    only_databricks = {text.split("`")[0].strip() for refused in catalog["unparsed"].values() for text in refused}
    assert {" ".join(s.split()[:2]) for s in only_databricks} <= {
        "CREATE CATALOG", "CREATE VOLUME", "ALTER TABLE", "GRANT USE", "GRANT CREATE", "GRANT EXECUTE", "GRANT SELECT",
        "GRANT SELECT,", "GRANT READ",
    }  # fmt: skip


def test_every_table_is_what_its_contract_says(catalog: dict[str, Any]) -> None:
    assert set(catalog["tables"]) == set(TABLES)
    for name, made in catalog["tables"].items():
        table = TABLES[name]
        assert [c[:2] for c in made["columns"]] == [[c.name, c.type] for c in table.columns]
        assert all(comment for _, _, comment in made["columns"])
        assert made["partitions"] == list(table.partition_by)
        assert unity.table_properties(table).items() <= made["properties"].items()
        checks = {k for k in made["properties"] if k.startswith("delta.constraints.")}
        assert checks == {f"delta.constraints.{r.name}" for r in table.rules if r.blocking}


def test_a_second_run_changes_no_table(catalog: dict[str, Any]) -> None:
    for name, made in catalog["tables"].items():
        assert made["versions"] == 1 + sum(r.blocking for r in TABLES[name].rules), name
    assert catalog["said"][-3:] == ["04_tables.sql: 22 statements", "06_checks.sql: 0 statements",
                                    f"07_views.sql: {len(unity.VIEWS)} statements"]  # fmt: skip


def test_views_run_and_say_what_vol_sum_is(catalog: dict[str, Any]) -> None:
    assert {name: v["rows"] for name, v in catalog["views"].items()} == dict.fromkeys(unity.VIEWS, 0)
    for name in ("compat.metrics_gold", "compat.anomalies"):
        (comment,) = catalog["views"][name]["vol_sum"]
        assert "rolling 24 h" in comment


def test_constraints_refuse_what_a_blocking_rule_refuses(catalog: dict[str, Any]) -> None:
    assert catalog["good"] == "accepted"
    assert catalog["bad"] == "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES"
    assert catalog["null"] != "accepted"


def test_a_table_that_differs_is_refused_and_named(catalog: dict[str, Any]) -> None:
    assert "gold.dim_date: unknown column stray" in catalog["stray"]
