"""The whole graph as a snapshot: a change of keys, dependencies, mappings, checks, owners or freshness is reviewed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

import crypto_assets
from crypto_assets.assets.card import steps
from crypto_assets.contracts.tables import TABLES
from crypto_assets.definitions import build_definitions
from crypto_assets.orchestration.topics import POLLS, PRICES
from crypto_assets.settings import Settings

SNAPSHOT = Path(__file__).parent / "graph_snapshot.json"
ON_DEMAND = {"bronze/market_history"}
SERVED = dg.AssetKey(["serving", "api"])


@pytest.fixture(scope="module")
def graph():
    return build_definitions(settings_of(automation=True)).resolve_asset_graph()


def settings_of(*, automation: bool) -> Settings:
    start = date(2024, 1, 1)
    return Settings(_env_file=None, source="replay", partitions_start=start, automation=automation)  # type: ignore[call-arg]


def describe(graph) -> dict:
    """What of the graph a reviewer should see."""
    described = {}
    for key in sorted(graph.get_all_asset_keys(), key=str):
        node = graph.get(key)
        mappings = {p.to_user_string(): _mapping(graph.get_partition_mapping(key, p)) for p in sorted(node.parent_keys)}
        described[key.to_user_string()] = {
            "group": node.group_name,
            "owners": sorted(node.owners),
            "kinds": sorted(node.kinds),
            "partitions": type(node.partitions_def).__name__ if node.partitions_def else None,
            "deps": mappings,
            "checks": sorted(k.name for k in node.check_keys),
            "freshness": str(node.freshness_policy) if node.freshness_policy else None,
            "automation": node.automation_condition is not None,
        }
    return described


def _mapping(mapping) -> str:
    return str(mapping).replace("TimeWindowPartitionMapping", "window")


def test_the_graph_is_as_reviewed(graph, request: pytest.FixtureRequest):
    found = json.dumps(describe(graph), indent=1, sort_keys=True) + "\n"
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(found, encoding="utf-8")
        pytest.fail(f"{SNAPSHOT.name} was missing and has been written: review and commit it")
    assert found == SNAPSHOT.read_text(encoding="utf-8"), (
        f"review the change, then delete {SNAPSHOT.name} and run again"
    )


def test_every_asset_is_described_owned_and_checked(graph):
    lacking = {}
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        missing = [
            name
            for name, there in (
                ("description", node.description),
                ("owners", node.owners),
                ("kinds", node.kinds),
                ("group", node.group_name and node.group_name != "default"),
                ("code_version", node.code_version),
                ("check", node.check_keys),
            )
            if not there
        ]
        if missing:
            lacking[key.to_user_string()] = missing
    assert lacking == {}


def test_nothing_is_promised_where_nothing_runs_by_itself():
    still = build_definitions(settings_of(automation=False)).resolve_asset_graph()
    assert {still.get(k).freshness_policy for k in still.get_all_asset_keys()} == {None}


def test_what_something_moves_has_a_freshness_policy(graph):
    without = {k.to_user_string() for k in graph.get_all_asset_keys() if graph.get(k).freshness_policy is None}
    assert without == {*ON_DEMAND, SERVED.to_user_string()}


def test_every_step_is_moved_by_something_and_reads_what_exists(graph):
    assert {asset for step in steps() if step.moved_by is None for asset in step.assets} == ON_DEMAND
    everything = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {reads.asset for step in steps() for reads in step.reads} <= everything
    assert {a for step in steps() for a in step.assets} | {"ml/promotions", "ops/alerts"} == {
        *("/".join(table.asset_key) for table in TABLES.values()),
        *("ml/anomaly_model", "ml/price_model", "ml/volatility_model"),
    }  # fmt: skip


def test_every_step_leads_to_the_function_that_makes_its_rows(graph):
    for step in steps():
        for asset in step.assets:
            (place,) = graph.get(dg.AssetKey(asset.split("/"))).metadata["dagster/code_references"].code_references
            lines = Path(place.file_path).read_text(encoding="utf-8").splitlines()
            found = "\n".join(lines[place.line_number - 1 :])
            assert found.startswith("@Step(")
            assert f"def {step.work.__name__}(" in found.partition("\n\n\n")[0]


def test_every_other_asset_leads_to_what_makes_it(graph):
    made = {asset for step in steps() for asset in step.assets}
    others = [key for key in graph.get_all_asset_keys() if key.to_user_string() not in made]
    assert len(others) == 4
    for key in others:
        (place,) = graph.get(key).metadata["dagster/code_references"].code_references
        line = Path(place.file_path).read_text(encoding="utf-8").splitlines()[place.line_number - 1]
        assert line.split("(")[0].split() == ["def", place.label.rpartition(".")[2]]


def test_a_code_version_changes_with_what_decides_rows_and_with_nothing_else(tmp_path):
    """In a copy of the package: comments and docstrings, another transform, the table's own transform."""
    package = tmp_path / "crypto_assets"
    shutil.copytree(Path(crypto_assets.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))

    def versions() -> dict[str, str]:
        code = (
            "import json; from crypto_assets.assets.card import steps; "
            "from crypto_assets.orchestration.code_version import code_version; "
            "print(json.dumps({a: code_version(s, m) for s in steps() for a, m in zip(s.assets, s.makes)}))"
        )
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    before = versions()
    bars = package / "transforms" / "bars.py"
    text = bars.read_text(encoding="utf-8")
    bars.write_text(text.replace('"""', '"""Reworded. ', 1) + "\n# a remark\n", encoding="utf-8")
    assert versions() == before
    bars.write_text(text + "\nANOTHER = 1\n", encoding="utf-8")
    changed = {asset for asset, version in versions().items() if version != before[asset]}
    assert {"gold/bars_1m", "gold/bars_5m", "gold/bars_1h", "gold/bars_1d"} <= changed
    assert not changed & {"bronze/raw_prices", "silver/prices", "gold/dim_coin", "ops/polls"}


def test_no_partitioned_asset_depends_on_all_partitions_of_another(graph):
    wrong = [
        (key.to_user_string(), parent.to_user_string())
        for key in graph.get_all_asset_keys()
        for parent in graph.get(key).parent_keys
        if graph.get(key).partitions_def
        and graph.get(parent).partitions_def
        and isinstance(graph.get_partition_mapping(key, parent), dg.AllPartitionMapping)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("child", "key", "parent", "expected"),
    [
        ("features/price_features", "2026-01-10-05:00", "gold/bars_5m", ("2026-01-09-03:00", "2026-01-10-05:00", 27)),
        ("gold/anomalies", "2026-01-10-05:00", "ml/anomaly_model", ("2026-01-09", "2026-01-09", 1)),
        ("gold/anomalies", "2026-01-10-00:00", "ml/anomaly_model", ("2026-01-09", "2026-01-09", 1)),
        ("gold/price_predictions", "2026-01-10-23:00", "ml/price_model", ("2026-01-09", "2026-01-09", 1)),
        (
            "gold/volatility_forecasts",
            "2026-01-10-05:00",
            "features/price_features",
            ("2026-01-03-05:00", "2026-01-10-05:00", 7 * 24 + 1),
        ),
        (
            "ml/anomaly_model",
            "2026-03-30",
            "features/price_features",
            ("2026-02-24-00:00", "2026-03-30-23:00", 35 * 24),
        ),
        (
            "ml/price_model",
            "2026-03-30",
            "features/price_features",
            ("2026-02-03-00:00", "2026-03-30-23:00", 56 * 24),
        ),
        ("gold/bars_1d", "2026-01-10", "silver/prices", ("2026-01-10-00:00", "2026-01-10-23:00", 24)),
        ("silver/prices", "2026-01-10-05:00", "bronze/raw_prices", ("2026-01-10-05:00", "2026-01-10-05:00", 1)),
    ],
)
def test_a_partition_reads_what_its_mapping_says(graph, child, key, parent, expected):
    child_key, parent_key = dg.AssetKey(child.split("/")), dg.AssetKey(parent.split("/"))
    definition = graph.get(child_key).partitions_def
    found = graph.get_partition_mapping(child_key, parent_key).get_upstream_mapped_partitions_result_for_partitions(
        definition.empty_subset().with_partition_keys([key]), definition, graph.get(parent_key).partitions_def
    )
    keys = sorted(found.partitions_subset.get_partition_keys())
    assert (keys[0], keys[-1], len(keys)) == expected


def test_topics_are_external(graph):
    external = {k for k in graph.get_all_asset_keys() if graph.get(k).is_external}
    assert external == {PRICES, POLLS, dg.AssetKey(["ops", "alerts"]), SERVED}
    assert {k for k in external if graph.get(k).is_observable} == {PRICES, POLLS}


def test_definitions_load_without_any_configuration(tmp_path):
    """As on a cluster or a fresh machine: no variable of ours or of a vendor, no home, and nothing is opened."""
    code = (
        "from crypto_assets.definitions import defs; print(len(list(defs.resolve_asset_graph().get_all_asset_keys())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(json.loads(SNAPSHOT.read_text(encoding="utf-8")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["local", "databricks", "databricks-serverless"])
def test_resources_show_typed_fields_and_no_secret(target):
    secret = "dapi-0123456789"
    given = {"source": "replay", "target": target, "databricks_host": "https://w.example", "databricks_token": secret}
    settings = Settings(_env_file=None, partitions_start=date(2024, 1, 1), **given)  # type: ignore[call-arg]
    shown = RepositorySnap.from_def(build_definitions(settings).get_repository_def()).resources or []
    values = {resource.name: resource.configured_values for resource in shown}
    assert values["engine"]["target"] == f'"{target}"'
    assert values["step_inputs"]["source"] == '"replay"'
    assert ("databricks_host" in values["step_launcher"]) == (target != "local")
    assert secret not in repr(shown)
