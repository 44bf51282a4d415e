"""The dimensions as tables: they follow the registry and the calendar, and repeat without a commit."""

from __future__ import annotations

from datetime import UTC, date, datetime

from crypto_assets.assets.dims import work_dim_coin, work_dim_date
from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.builders import COINS, START, at, step_inputs

NOW = at("2025-06-01 12:00:00")


def test_dim_coin_follows_the_registry(engine: SailEngine) -> None:
    first = work_dim_coin(engine, [None], step_inputs(NOW)).tables["gold.dim_coin"].partitions[None]
    assert [(c.name, c.passed) for c in first.checks if not c.passed] == []
    rows = sorted(engine.store.read_arrow("gold.dim_coin").to_pylist(), key=lambda r: (r["coin_id"], r["valid_from"]))
    assert [(r["coin_id"], r["symbol"], r["is_current"]) for r in rows] == [
        ("bitcoin", "BTC", True),
        ("ethereum", "ETH", True),
        ("polygon-ecosystem-token", "MATIC", False),
        ("polygon-ecosystem-token", "POL", True),
    ]
    assert rows[2]["valid_to"] == rows[3]["valid_from"] == datetime(2024, 9, 4, tzinfo=UTC)

    version = engine.store.version("gold.dim_coin")
    again = work_dim_coin(engine, [None], step_inputs(NOW)).tables["gold.dim_coin"].partitions[None]
    assert (engine.store.version("gold.dim_coin"), again.data_version) == (version, first.data_version)

    changed = COINS.retire("ethereum", active_to=NOW).add("solana", "sol", "Solana", active_from=NOW)
    other = work_dim_coin(engine, [None], step_inputs(NOW, coins=changed)).tables["gold.dim_coin"]
    assert other.partitions[None].data_version != first.data_version
    rows = {(r["coin_id"], r["valid_from"]): r for r in engine.store.read_arrow("gold.dim_coin").to_pylist()}
    assert (rows["ethereum", NOW]["is_active"], rows["ethereum", NOW]["is_current"]) == (False, True)
    assert (rows["solana", NOW]["symbol"], rows["solana", NOW]["is_active"]) == ("SOL", True)
    assert len(rows) == 6


def test_dim_date_covers_the_first_partition_to_the_end_of_next_year(engine: SailEngine) -> None:
    result = work_dim_date(engine, [None], step_inputs(NOW)).tables["gold.dim_date"].partitions[None]
    days = engine.store.read_arrow("gold.dim_date").column("day").to_pylist()
    assert (min(days), max(days), len(days)) == (START.date(), date(2026, 12, 31), 366 + 365 + 365)
    assert len(set(days)) == result.rows == len(days)
    version = engine.store.version("gold.dim_date")
    work_dim_date(engine, [None], step_inputs(NOW.replace(day=30)))
    assert engine.store.version("gold.dim_date") == version
    work_dim_date(engine, [None], step_inputs(NOW.replace(year=2026)))
    assert max(engine.store.read_arrow("gold.dim_date").column("day").to_pylist()) == date(2027, 12, 31)
