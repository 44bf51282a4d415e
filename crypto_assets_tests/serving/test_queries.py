"""The catalogue: its columns and tables are those of the contracts, and DuckDB and Spark give the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import Engine
from crypto_assets.serving.lake import Lake
from crypto_assets.serving.queries import BOARD, CATALOGUE
from crypto_assets.serving.query import Query, QueryError, filled
from crypto_assets.source_facts import REPLAY
from crypto_assets_tests.serving.home import END, HOLE, HOUR, row, write

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from crypto_assets.settings import Settings
    from crypto_assets_tests.engine_fixtures import MakeEngine

QUERIES = pytest.mark.parametrize("query", CATALOGUE.values(), ids=lambda q: q.name)
OTHER = {
    "coin": "bitcoin",
    "until": END - 3 * HOUR,
    "now": END + HOUR,
    "hours": 5,
    "days": 2,
    "horizon": "5m",
    "width": 0.7,
}
"""Values that differ from every default."""


@pytest.fixture
def unwritten(tmp_path: Path) -> Iterator[Lake]:
    """A lake without any table: every view is empty and has the contract's columns."""
    with Lake(str(tmp_path), REPLAY) as lake:
        yield lake


@pytest.fixture(scope="module")
def reader(served: Settings, make_engine: MakeEngine) -> Engine:
    """The engine of the session on the same tables."""
    return make_engine(served.lake)


def given(query: Query) -> dict[str, Any]:
    return {p.name: OTHER[p.name] for p in query.parameters}


def literal(value: object) -> str:
    """A value as Spark SQL."""
    if value is None:
        return "NULL"
    types = {str: "STRING", int: "BIGINT", float: "DOUBLE", datetime: "TIMESTAMP"}
    return f"CAST('{value}' AS {types[type(value)]})"


def on_spark(query: Query, engine: Engine, **params: Any) -> list[dict[str, Any]]:
    """Rows of a query on Spark. Values are written into it: Delta's parser on a JVM binds no parameters (4.4.0)."""
    sql, values = query.bound(**params)
    sql = filled(sql, {name: literal(value) for name, value in values.items()})
    for name in query.tables:
        engine.store.read(name).createOrReplaceTempView(name.replace(".", "__"))
        sql = sql.replace(name, name.replace(".", "__"))
    spark: SparkSession = engine.spark
    return spark.sql(sql).toArrow().to_pylist()


@QUERIES
@pytest.mark.parametrize("other", [False, True], ids=["defaults", "parameters"])
def test_duckdb_and_spark_give_equal_rows(query: Query, other: bool, lake: Lake, reader: Engine):
    params = given(query) if other else {}
    found = lake.answer(query, **params).records()
    assert found, "the home has rows for every query"
    there = on_spark(query, reader, **params)
    assert [list(row) for row in there] == [list(row) for row in found]
    assert [[pytest.approx(v) if isinstance(v, float) else v for v in row.values()] for row in found] == [
        list(row.values()) for row in there
    ]


DUCKDB = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "array<string>": "VARCHAR[]",
    "decimal(38, 18)": "DECIMAL(38,18)",
}


@pytest.mark.engine("local")
@QUERIES
def test_results_have_exactly_the_declared_columns(query: Query, lake: Lake, unwritten: Lake):
    declared = [(c.name, DUCKDB.get(c.type, c.type.upper())) for c in query.columns]
    for one in (lake, unwritten):
        found = one.answer(query)
        assert list(zip(found.columns, found.types, strict=True)) == declared
    assert len(unwritten.answer(query).values) == 0


@pytest.mark.engine("local")
@QUERIES
def test_tables_are_those_of_contracts_and_every_column_and_parameter_is_described(query: Query):
    assert query.tables
    assert set(query.tables) <= set(TABLES)
    assert query.purpose.endswith(".")
    for part in (*query.columns, *query.parameters):
        assert part.description.endswith("."), part.name
    assert len({c.name for c in query.columns}) == len(query.columns)
    sql, values = query.bound()
    assert values.keys() == {p.name for p in query.parameters}
    assert all(f":{name}" in sql for name in values)


@pytest.mark.engine("local")
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("p.price_usd,", "p.price_eur,", 'does not have a column named "price_eur".*gold.latest_prices has coin_id'),
        ("FROM gold.leaderboard_24h", "FROM gold.board", "there is no table gold.board; there are bronze.raw_prices"),
    ],
)
def test_a_column_or_table_that_no_contract_has_is_found(right: str, wrong: str, message: str, unwritten: Lake):
    with pytest.raises(QueryError, match=message):
        unwritten.answer(replace(BOARD, sql=BOARD.sql.replace(right, wrong, 1)))


@pytest.mark.engine("local")
def test_the_board_explains_every_null(lake: Lake):
    rows = {r["coin_id"]: r for r in lake.answer(BOARD).records()}
    assert list(rows) == ["bitcoin", "ethereum", "litecoin"]
    btc, eth, ltc = rows.values()
    assert (btc["change_24h_pct"], btc["change_24h_since"]) == (pytest.approx(10), HOLE[1])
    assert (eth["change_24h_pct"], eth["change_24h_since"]) == (2.25, None)
    assert ltc["change_24h_null"] == "no bar within 10 min of 24 h ago"
    for name, reason in (
        ("change_1h_pct", "change_1h_null"),
        ("change_24h_pct", "change_24h_null"),
        ("volume_24h_usd", "volume_24h_null"),
        ("market_cap_usd", "market_cap_null"),
    ):
        assert all((row[name] is None) == (row[reason] is not None) for row in rows.values()), name
    assert ltc["volume_24h_null"] == ltc["market_cap_null"] == "not reported by replay"
    assert btc["volume_24h_usd"] == Decimal("1.9e-8")
    assert [r["age_s"] for r in rows.values()] == [0.0, 1.0, 2.0]
    later = lake.answer(BOARD, now=END + timedelta(seconds=9), coin="ethereum").records()
    assert [r["age_s"] for r in later] == [11.0]


@pytest.mark.engine("local")
@pytest.mark.parametrize(
    ("age", "change", "reason"),
    [
        (timedelta(minutes=10), pytest.approx(10), None),
        (timedelta(minutes=11), None, "not reported by replay; gold.leaderboard_24h is older"),
        (None, None, "not reported by replay; gold.leaderboard_24h has no row of it"),
    ],
    ids=str,
)
def test_a_leaderboard_that_is_older_than_the_quote_gives_no_change(
    age: timedelta | None, change: float | None, reason: str | None, tmp_path: Path
):
    quote = row("gold.latest_prices", coin_id="bitcoin", source="replay", last_updated_at=END)
    write(tmp_path, "gold.latest_prices", [quote])
    if age is not None:
        ranked = row("gold.leaderboard_24h", coin_id="bitcoin", change_24h=0.1, window_end=END - age)
        write(tmp_path, "gold.leaderboard_24h", [ranked])
    with Lake(str(tmp_path), REPLAY) as lake:
        (found,) = lake.answer(BOARD).records()
    assert (found["change_24h_pct"], found["change_24h_null"]) == (change, reason)


@pytest.mark.engine("local")
def test_open_alerts_are_those_whose_newest_change_is_firing(lake: Lake):
    found = lake.answer(CATALOGUE["alerts_open"]).records()
    assert [(r["cause"], r["partition_key"]) for r in found] == [("again", None), ("open", None), ("parted", "h2")]


@pytest.mark.engine("local")
def test_health_is_the_newest_hour_that_was_measured(lake: Lake):
    found = {r["metric"]: r for r in lake.answer(CATALOGUE["pipeline_health"]).records()}
    produced, never = found["messages_produced"], found["dedup_rate"]
    assert (produced["hour"], produced["value"], produced["hours_measured"], produced["hours"]) == (
        END - HOUR,
        179,
        23,
        24,
    )
    assert (never["value"], never["null_reason"]) == (None, "nothing to measure in these hours")


@pytest.mark.engine("local")
def test_coverage_counts_outcomes_within_the_interval(lake: Lake):
    found = lake.answer(CATALOGUE["interval_coverage"], coin="bitcoin").records()
    fan = [r for h in ("5m", "1h") for r in lake.answer(CATALOGUE["forecast_fan"], coin="bitcoin", horizon=h).records()]
    for of in found:
        mine = [r for r in fan if r["model_name"] == of["model_name"] and r["outcome"] is not None]
        inside = [r["lower_90"] <= r["outcome"] <= r["upper_90"] for r in mine]
        assert 0 < sum(inside) < len(inside) == of["with_outcome"] < of["forecasts"]
        assert of["coverage_90"] == pytest.approx(sum(inside) / len(inside))
        assert of["below_lower"] == pytest.approx(sum(r["outcome"] < r["lower_90"] for r in mine) / len(mine))
        assert of["below_upper"] == pytest.approx(sum(r["outcome"] <= r["upper_90"] for r in mine) / len(mine))
        below = [r["outcome"] < r["median"] for r in mine if r["median"] is not None]
        assert of["below_median"] == (pytest.approx(sum(below) / len(below)) if below else None)
        miss = [max(r["lower_90"] - r["outcome"], r["outcome"] - r["upper_90"], 0) for r in mine]
        assert of["winkler_pct"] == pytest.approx(sum(6 + 20 * m for m in miss) / len(miss))


@pytest.mark.engine("local")
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"coins": "bitcoin"}, r"'coins' is no parameter \(it has: coin, until, hours\)"),
        ({"hours": "many"}, "hours must be a whole number, and is 'many'"),
        ({"hours": 0}, "hours must be at least 1"),
        ({"until": "2024-05-01T00:00:00"}, "until must have a time zone"),
        ({"until": "yesterday"}, "until must be a time such as"),
        ({"coin": 7}, "coin must be text"),
        ({"hours": True, "coin": ""}, "coin must be text, and is ''; hours must be a whole number"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(params: dict[str, Any], message: str):
    with pytest.raises(QueryError, match=message):
        CATALOGUE["price_line"].bound(**params)


@pytest.mark.engine("local")
def test_text_is_read_as_the_parameters_type():
    _, values = CATALOGUE["price_line"].bound(hours="3", until="2024-05-02T08:00:00+02:00")
    assert values == {"coin": None, "hours": 3, "until": END}
    with pytest.raises(QueryError, match="horizon must be one of 5m, 1h"):
        CATALOGUE["forecast_fan"].bound(horizon="1d")
    assert CATALOGUE["leaderboard_24h"].bound()[1] == {}
