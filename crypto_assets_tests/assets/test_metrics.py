"""The pipeline's own metrics and the board of 24 hours over the tables that the steps themselves wrote."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from crypto_assets.assets import bars, leaderboard, metrics, silver
from crypto_assets.contracts.slices import DAY, HOUR, Slice, hour_key, hour_keys
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.engine.base import Engine
from crypto_assets.engine.sail import SailEngine
from crypto_assets.storage.base import AppendBatch, OffsetRange, SliceRefused
from crypto_assets_tests.builders import TOPIC_ID, Record, at, bronze_rows, sample, step_inputs, write_bronze

TEN = at("2024-05-01 10:00:00")
NOW = TEN + DAY
MINUTE = timedelta(minutes=1)
NAME = "ops.pipeline_metrics"


def values(engine: Engine, hour: Any) -> dict[str, tuple[float | None, int]]:
    rows = engine.store.read_arrow(NAME).to_pylist()
    return {r["metric"]: (r["value"], r["measured_over"]) for r in rows if r["hour"] == hour}


def polls(engine: Engine, outcomes: list[str]) -> None:
    """Rows of `ops.polls` of ten o'clock."""
    import pyarrow as pa

    from crypto_assets.contracts.arrow import arrow_schema
    from crypto_assets.contracts.tables import POLLS

    log = bronze_rows([Record(TEN + i * MINUTE, json.dumps({"poll_id": f"p{i}"})) for i in range(len(outcomes))])
    rows = [
        {**row, "poll_id": f"p{i}", "outcome": outcomes[i], "range_start": 0, "range_end": len(outcomes)}
        for i, row in enumerate(log.to_pylist())
    ]
    names = [n for n in POLLS.column_names if n not in ("seq", "batch_id")]
    table = pa.Table.from_pylist([{n: r.get(n) for n in names} for r in rows], schema=arrow_schema(POLLS, names))
    batch = AppendBatch(table, (OffsetRange(0, 0, len(outcomes)),))
    slice_ = Slice(TEN, TEN + HOUR)
    assert engine.store.append_once(
        POLLS.full_name, slice_, f"polls/{TOPIC_ID}/{hour_key(TEN)}", lambda _: batch
    ).committed


def test_metrics_of_hours_that_the_steps_wrote(engine: SailEngine) -> None:
    """Eleven brings a copy of ten's quote and a quote that is six hours late; both are judged by their event hours."""
    quote, late = TEN + MINUTE, TEN - 6 * HOUR
    write_bronze(
        engine.store,
        [
            sample("bitcoin", quote),
            sample("bitcoin", quote, delay=2 * MINUTE),
            sample("ethereum", quote),
            Record(TEN + 3 * MINUTE, "{oops"),
            sample("bitcoin", quote, delay=HOUR),
            sample("ethereum", late, delay=7 * HOUR),
        ],
    )
    polls(engine, ["ok", "ok", "upstream_down", "ok"])
    hours = [hour_key(TEN), hour_key(TEN + HOUR)]
    silver.work(engine, [hour_key(late), *hours], step_inputs(NOW))
    silver.work_quarantine(engine, hours, step_inputs(NOW))
    result = metrics.work(engine, hours, step_inputs(NOW, source="coingecko"))

    ten, eleven = values(engine, TEN), values(engine, TEN + HOUR)
    assert (ten["messages_produced"], eleven["messages_produced"]) == ((4.0, 4), (2.0, 2))
    assert (ten["dedup_rate"], eleven["dedup_rate"]) == ((pytest.approx(1 / 3), 3), (0.5, 2))
    assert (ten["quarantine_rate"], eleven["quarantine_rate"]) == ((0.25, 4), (0.0, 2))
    assert (ten["polls_ok_rate"], eleven["polls_ok_rate"]) == ((0.75, 4), (None, 0))
    assert (ten["processing_latency_ms_p50"], ten["processing_latency_ms_p99"]) == ((0.0, 4), (0.0, 4))
    assert ten["model_inference_latency_ms"] == (None, 0)
    red = {k: [c.name for c in p.checks if not c.passed] for k, p in result.tables[NAME].partitions.items()}
    assert red == {hours[0]: ["quarantine_below_1pct"], hours[1]: []}

    metrics.work(engine, hours, step_inputs(NOW, source="replay"))
    assert values(engine, TEN)["processing_latency_ms_p50"] == (None, 0)
    assert values(engine, TEN)["messages_produced"] == (4.0, 4)


def test_an_hour_without_anything_has_rows_without_values(engine: SailEngine) -> None:
    metrics.work(engine, [hour_key(TEN)], step_inputs(NOW))
    assert set(values(engine, TEN).values()) == {(None, 0)}


def test_figures_of_hours_whose_records_are_gone_stay(engine: SailEngine) -> None:
    write_bronze(engine.store, [sample("bitcoin", TEN + MINUTE)])
    metrics.work(engine, [hour_key(TEN)], step_inputs(NOW))
    assert RAW_PRICES.retention_days is not None
    later = step_inputs(TEN + timedelta(days=RAW_PRICES.retention_days))
    with pytest.raises(SliceRefused):
        metrics.work(engine, [hour_key(TEN)], later)
    assert values(engine, TEN)["messages_produced"] == (1.0, 1)


def test_the_board_shows_the_24_hours_that_the_log_covers(engine: SailEngine) -> None:
    """A day and ten minutes of records; `now` is much later, and the board is as of the newest bar all the same."""
    start = TEN - DAY - 10 * MINUTE
    write_bronze(
        engine.store,
        [
            *[sample("bitcoin", start + i * HOUR, str(100 + i)) for i in range(24)],
            sample("bitcoin", TEN - 6 * MINUTE, "150"),
            sample("ethereum", TEN - 2 * HOUR, "7"),
        ],
    )
    hours = hour_keys(Slice(TEN - DAY - HOUR, TEN))
    silver.work(engine, hours, step_inputs(NOW))
    bars.work(engine, hours, step_inputs(NOW), ["gold.bars_5m"])
    leaderboard.work(engine, [None], step_inputs(NOW + 3 * DAY))
    rows = {r["coin_id"]: r for r in engine.store.read_arrow("gold.leaderboard_24h").to_pylist()}
    assert (rows["bitcoin"]["rank"], rows["bitcoin"]["change_24h"]) == (1, 0.5)
    assert (rows["bitcoin"]["price_24h_ago_usd"], rows["bitcoin"]["low_24h"]) == (Decimal(100), Decimal(101))
    assert (rows["ethereum"]["rank"], rows["ethereum"]["change_24h"]) == (2, None)


def test_a_board_without_bars_is_empty_and_red(engine: SailEngine) -> None:
    partition = leaderboard.work(engine, [None], step_inputs(NOW)).tables["gold.leaderboard_24h"].partitions[None]
    assert (partition.rows, [c.passed for c in partition.checks if c.name == "has_rows"]) == (0, [False])
