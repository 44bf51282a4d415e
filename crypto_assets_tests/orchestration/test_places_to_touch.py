"""A Gold table is added in three places: contract, transform, asset module. Everything else is derived from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import crypto_assets

CONTRACT = """
BAR_RANGES = Table(
    "gold", "bar_ranges", "How far the price moved within each 5-minute bar.",
    (
        C("coin_id", "string", "CoinGecko's id.", nullable=False, lineage=_bar("coin_id")),
        C("window_start", "timestamp", "Start of the bar.", nullable=False, lineage=_bar("window_start")),
        C("range_usd", MONEY, "high - low of the bar.", nullable=False, unit="USD", lineage=_bar("high", "low")),
        day(_bar("day")),
        C("hour", "timestamp", "Hour of window_start.", nullable=False, lineage=_bar("hour")),
    ),
    key=("coin_id", "window_start"), grain="hour", write="replace_slice", time_column="hour", partition_by=("day",),
    owner=TRANSFORM, group="gold", kinds=("pyspark", "deltalake", "gold"),
    rules=(Rule("range_not_negative", "range_usd >= 0", "A range has no sign.", blocking=True),),
)"""

TRANSFORM = '''"""Ranges of bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crypto_assets.contracts.tables import BAR_RANGES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def bar_ranges(bars: DataFrame) -> DataFrame:
    """Range of every bar in USD."""
    from pyspark.sql import functions as F

    found = bars.withColumn("range_usd", F.col("high") - F.col("low"))
    return found.select(*(F.col(c.name).cast(c.type).alias(c.name) for c in BAR_RANGES.columns))
'''

ASSET = '''"""Ranges of bars of hours."""

from __future__ import annotations

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.publishing import publish
from crypto_assets.contracts.tables import BAR_RANGES
from crypto_assets.engine.base import Result
from crypto_assets.transforms.bar_ranges import bar_ranges


@Step("gold_bar_ranges", [BAR_RANGES], reads=[Reads("gold/bars_5m")], moved_by="refresh", role="transform")
def work(engine, partition_keys, inputs):
    """Write hours."""

    def build(slice_):
        return bar_ranges(engine.store.read("gold.bars_5m", slice_))

    return Result({BAR_RANGES.full_name: publish(engine, BAR_RANGES, partition_keys, inputs, build)})
'''

USED = """
import json, sys
from datetime import UTC, date, datetime
from decimal import Decimal
import dagster as dg
import pyarrow as pa
from crypto_assets.assets.card import upstream
from crypto_assets.contracts import render
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import key_slice
from crypto_assets.contracts.tables import BARS_5M, BAR_RANGES
from crypto_assets.databricks.deploy import unity
from crypto_assets.definitions import build_definitions
from crypto_assets.engine.engines import make_engine
from crypto_assets.orchestration import backfill, restatement
from crypto_assets.settings import Settings

KEY, HOUR = dg.AssetKey(["gold", "bar_ranges"]), "2026-05-01-10:00"
given = {"source": "simulator", "home_path": sys.argv[1], "partitions_start": date(2026, 5, 1), "automation": True}
settings = Settings(_env_file=None, **given)
definitions = build_definitions(settings)
graph = definitions.resolve_asset_graph()
node = graph.get(KEY)
start = key_slice(HOUR, "hour").start
known = {"coin_id": "bitcoin", "window_start": start, "hour": start, "day": start.date()}
known |= {"high": Decimal(7), "low": Decimal(5)}
def plain(field):
    if field.name in known: return known[field.name]
    if field.nullable: return None
    kind = field.type
    if pa.types.is_timestamp(kind): return start
    if pa.types.is_decimal(kind): return Decimal(6)
    if pa.types.is_boolean(kind): return True
    return "x" if pa.types.is_string(kind) else 1
schema = arrow_schema(BARS_5M)
rows = pa.Table.from_pylist([{f.name: plain(f) for f in schema}], schema=schema)
store = make_engine(settings).store
store.replace_slice("gold.bars_5m", key_slice(HOUR, "hour"), lambda: rows, now=datetime.now(UTC))
with dg.DagsterInstance.ephemeral() as instance:
    job = definitions.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=instance, partition_key=HOUR, asset_selection=[KEY], raise_on_error=True)
    checks = {e.check_name: e.passed for e in done.get_asset_check_evaluations() if e.asset_key == KEY}
written = store.read_arrow("gold.bar_ranges").to_pylist()
print(json.dumps({
    "deps": [k.to_user_string() for k in node.parent_keys],
    "freshness": node.freshness_policy is not None,
    "code": node.metadata["dagster/code_references"].code_references[0].file_path,
    "lineage": "dagster/column_lineage" in node.metadata,
    "refresh": KEY in definitions.resolve_job_def("refresh").asset_layer.selected_asset_keys,
    "backfill": "gold/bar_ranges" in backfill.from_log(),
    "writers": unity.writers("gold.bar_ranges"),
    "readers": "dashboard" in unity.readers("gold.bar_ranges"),
    "dictionary": "## gold.bar_ranges" in render.data_dictionary(upstream),
    "checks": checks,
    "written": [(r["coin_id"], str(r["range_usd"].normalize())) for r in written],
}))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the table added."""
    root = tmp_path_factory.mktemp("places")
    package = root / "crypto_assets"
    shutil.copytree(Path(crypto_assets.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    gold = package / "contracts" / "gold.py"
    gold.write_text(gold.read_text(encoding="utf-8") + CONTRACT, encoding="utf-8")
    (package / "transforms" / "bar_ranges.py").write_text(TRANSFORM, encoding="utf-8")
    (package / "assets" / "bar_ranges.py").write_text(ASSET, encoding="utf-8")
    return root


@pytest.mark.slow
def test_a_gold_table_is_added_in_three_places(places: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", USED, str(tmp_path / "home")],
        cwd=places,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(places)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("code") == str(places / "crypto_assets" / "assets" / "bar_ranges.py")
    assert found == {
        "deps": ["gold/bars_5m"],
        "freshness": True,
        "lineage": True,
        "refresh": True,
        "backfill": True,
        "writers": ["transform"],
        "readers": True,
        "dictionary": True,
        "checks": dict.fromkeys(("contract", "has_rows"), True),
        "written": [["bitcoin", "2"]],
    }
