"""The views under old names, run over one small lake by the engine and by DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from crypto_assets.assets.dims import work_dim_coin
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import HOUR, Slice, floor_hour
from crypto_assets.contracts.tables import TABLES
from crypto_assets.databricks.deploy.compat import VIEWS
from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.builders import at, silver_rows, step_inputs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

READ = ("gold.bars_5m", "gold.anomalies", "gold.dim_coin", "silver.prices", "features.price_features")
POL = "polygon-ecosystem-token"
CHANGE = at("2024-09-04 00:00:00")
SLOT = timedelta(minutes=5)
NOW = at("2024-09-05 00:00:00")

Run = Callable[[str], list[dict[str, Any]]]


def slot(end: datetime, coin: str = POL) -> dict[str, Any]:
    start = end - SLOT
    return {"coin_id": coin, "symbol": "POL", "window_start": start, "window_end": end, "day": start.date(),
            "hour": floor_hour(start)}  # fmt: skip


def bar(
    end: datetime, prices: tuple[str, str, str, str], volume: str | None, vol: float | None = 0.5
) -> dict[str, Any]:
    first, high, low, last = (Decimal(p) for p in prices)
    return slot(end) | {
        "open": first, "high": high, "low": low, "close": last, "price_avg": float(low + high) / 2, "price_vol": vol,
        "volume_24h_usd": None if volume is None else Decimal(volume), "sample_count": 2, "granularity": "tick",
        "first_event_at": end - SLOT, "last_event_at": end - SLOT, "available_at": end, "is_closed": True,
        "is_complete": True,
    }  # fmt: skip


def scored(end: datetime, score: float | None, is_anomaly: bool) -> dict[str, Any]:
    model = {"model_name": "anomaly", "model_version": "3", "threshold": 4.0, "latency_s": 61.0, "revision": 0}
    return slot(end) | model | {"anomaly_score": score, "is_anomaly": is_anomaly, "scored_at": end}


BARS = [
    bar(CHANGE - SLOT, ("0.4", "0.5", "0.4", "0.5"), "1000"),
    bar(CHANGE, ("0.5", "0.5", "0.25", "0.25"), "1100", vol=None),
    bar(CHANGE + SLOT, ("0.25", "0.3", "0.2", "0.25"), None),
]
SCORED = [scored(CHANGE, 9.25, True), scored(CHANGE + SLOT, None, False), scored(CHANGE + 2 * SLOT, 1.2, False)]


def features(end: datetime, r5: float | None) -> dict[str, Any]:
    return slot(end) | {"r5": r5, "price": 1.0, "s": 1e-5, "sample_count": 1, "basket_hash": "b", "is_complete": True,
                        "null_reason": "no_lag"}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> SailEngine:
    """Every table that the views read, written through the store."""
    engine = SailEngine(str(tmp_path_factory.mktemp("compat")))
    put(engine, "gold.bars_5m", BARS)
    put(engine, "gold.anomalies", SCORED)
    put(engine, "features.price_features", [features(CHANGE, -0.75)])
    quotes = [
        {"coin_id": POL, "last_updated_at": CHANGE - timedelta(seconds=1, milliseconds=500), "price_usd": "0.25",
         "symbol": "MATIC", "name": "Polygon", "ingestion_timestamp": CHANGE},
        {"coin_id": POL, "last_updated_at": CHANGE, "price_usd": "0.5", "volume_24h_usd": None},
    ]  # fmt: skip
    put(engine, "silver.prices", silver_rows(quotes).to_pylist())
    work_dim_coin(engine, [None], step_inputs(NOW))
    for name in READ:
        engine.store.create(name)  # type: ignore[attr-defined]
    return engine


def put(engine: SailEngine, name: str, rows: list[dict[str, Any]]) -> None:
    for hour in sorted({row["hour"] for row in rows}):
        piece = pa.Table.from_pylist(
            [{n: r.get(n) for n in TABLES[name].column_names} for r in rows if r["hour"] == hour],
            arrow_schema(TABLES[name]),
        )
        assert engine.store.replace_slice(name, Slice(hour, hour + HOUR), lambda p=piece: p, now=NOW).committed


@pytest.fixture(scope="module")
def by_engine(lake: SailEngine, spark: SparkSession) -> Iterator[Run]:
    """Runs SQL on the engine, with the lake's tables and the views under their names."""
    schemas = sorted({name.split(".")[0] for name in (*READ, *VIEWS)})
    for schema in schemas:
        spark.sql(f"CREATE DATABASE {schema}")
    try:
        for name in READ:
            spark.sql(f"CREATE TABLE {name} USING delta LOCATION '{Path(lake.lake) / name.replace('.', '/')}'")
        for name, select in VIEWS.items():
            spark.sql(f"CREATE VIEW {name} AS {select}")
        yield lambda query: spark.sql(query).toArrow().to_pylist()
    finally:
        for schema in schemas:
            spark.sql(f"DROP DATABASE {schema} CASCADE")


@pytest.fixture(scope="module")
def by_duckdb(lake: SailEngine) -> Iterator[Run]:
    """Runs the same SQL on DuckDB."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for schema in sorted({name.split(".")[0] for name in (*READ, *VIEWS)}):
            connection.execute(f"CREATE SCHEMA {schema}")
        for name in READ:
            rows = lake.store.read_arrow(name)
            connection.register("rows_of_it", rows)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM rows_of_it")
            connection.unregister("rows_of_it")
        for name, select in VIEWS.items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
        yield lambda query: connection.execute(query).to_arrow_table().to_pylist()


@pytest.fixture(params=["by_engine", "by_duckdb"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


OLD_COLUMNS = {
    "compat.metrics_gold": "asset symbol window_start window_end price_avg price_vol price_min price_max vol_sum "
    "ret_window",
    "compat.prices_silver": "asset symbol name price volume event_ts ingest_ts load_ts event_key",
    "compat.anomalies": "asset symbol window_end price_avg price_vol ret_window vol_sum ret_prev anomaly_score "
    "is_anomaly model_version scored_at",
}


@pytest.mark.parametrize("view", OLD_COLUMNS)
def test_old_views_have_all_their_columns_in_order(run: Run, view: str) -> None:
    rows = run(f"SELECT * FROM {view}")
    assert [list(row) for row in rows] == [OLD_COLUMNS[view].split()] * len(rows)
    assert len(rows) >= 2


def test_vol_sum_is_the_last_rolling_volume_and_never_a_sum(run: Run) -> None:
    rows = run("SELECT * FROM compat.metrics_gold ORDER BY window_end")
    assert [r["vol_sum"] for r in rows] == [1000.0, 1100.0, None]
    assert [r["ret_window"] for r in rows] == [pytest.approx(0.25), pytest.approx(-0.5), 0.0]
    assert [(r["price_min"], r["price_max"], r["price_vol"]) for r in rows] == [
        (0.4, 0.5, 0.5), (0.25, 0.5, None), (0.2, 0.3, 0.5),
    ]  # fmt: skip
    assert {r["asset"] for r in rows} == {POL}


def test_prices_have_their_three_times_and_a_key_of_their_own(run: Run) -> None:
    first, second = run("SELECT * FROM compat.prices_silver ORDER BY event_ts")
    assert (first["symbol"], first["name"], first["price"], first["volume"]) == ("MATIC", "Polygon", 0.25, 5000.0)
    event = CHANGE - timedelta(seconds=1, milliseconds=500)
    assert [first[n].astimezone(UTC) for n in ("event_ts", "ingest_ts", "load_ts")] == [
        event,
        CHANGE,
        event + timedelta(seconds=1),
    ]
    assert (second["volume"], second["ingest_ts"]) == (None, None)
    assert first["event_key"] != second["event_key"]
    assert all(r["event_key"].startswith(f"{POL}@2024-09-0") for r in (first, second))


def test_anomalies_keep_their_rows_without_a_bar_or_features(run: Run) -> None:
    rows = run("SELECT * FROM compat.anomalies ORDER BY window_end")
    told = [(r["anomaly_score"], r["is_anomaly"], r["vol_sum"], r["ret_window"], r["ret_prev"]) for r in rows]
    assert told == [(9.25, True, 1100.0, -0.5, -0.75), (None, False, None, 0.0, None), (1.2, False, None, None, None)]


def test_facts_join_the_coin_as_it_was_at_the_bar(run: Run) -> None:
    rows = run(
        "SELECT f.window_start, f.coin_key, f.date_key, d.symbol FROM gold.fact_bars f "
        "JOIN gold.dim_coin d ON d.coin_key = f.coin_key ORDER BY f.window_start"
    )
    assert [(r["symbol"], r["date_key"]) for r in rows] == [("MATIC", 20240903), ("MATIC", 20240903), ("POL", 20240904)]
    assert rows[-1]["coin_key"] == f"{POL}@2024-09-04T00:00:00Z"
    assert len(run("SELECT * FROM gold.fact_bars")) == len(BARS)
