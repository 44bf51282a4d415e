"""Forecasts against what came: live ones and backfilled ones, by the day of their target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from crypto_assets.assets import accuracy
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.builders import START, step_inputs
from crypto_assets_tests.ml.synthetic import SLOT, bar, bar_rows

NOW = START + 60 * DAY


def forecast(end: datetime, **changed: Any) -> dict[str, Any]:
    """A row of the ledger: bitcoin at 100, forecast to stay, within +-1 %."""
    plain = {
        "coin_id": "bitcoin", "window_end": end, "horizon": "5m", "target_at": end + SLOT, "price": 100.0,
        "predicted_return": 0.0, "predicted_price": 100.0, "lower_90": 99.0, "upper_90": 101.0,
        "model_name": "price_5m", "model_version": "v0", "mode": "live", "predicted_at": end,
        "day": (end - SLOT).date(), "hour": (end - SLOT).replace(minute=0),
    }  # fmt: skip
    return {**plain, **changed}


def score(engine: SailEngine, rows: Sequence[dict[str, Any]], closes: Mapping[datetime, float]) -> list[dict[str, Any]]:
    engine.store.merge(
        "gold.price_predictions",
        pa.Table.from_pylist(list(rows), schema=arrow_schema(TABLES["gold.price_predictions"])),
        mode="insert_if_absent",
    )
    bars = bar_rows([bar("bitcoin", end - SLOT, close) for end, close in closes.items()])
    engine.store.replace_slice("gold.bars_5m", Slice(START, START + 3 * DAY), lambda: bars, now=NOW)
    accuracy.work(engine, [day_key(START + DAY)], step_inputs(NOW))
    return sorted(
        engine.store.read_arrow("gold.prediction_accuracy").to_pylist(), key=lambda r: (r["horizon"], r["mode"])
    )


def test_accuracy_scores_log_returns_and_keeps_backfill_apart(engine: SailEngine) -> None:
    noon = START + DAY + 12 * HOUR
    up = math.log(1.005)
    rows = [
        forecast(noon, predicted_return=up, predicted_price=100.5),
        forecast(noon + SLOT, predicted_return=-up, predicted_price=99.5),
        forecast(noon + 2 * SLOT),
        forecast(noon + 3 * SLOT),
        forecast(noon + 4 * SLOT, mode="backfill", predicted_return=math.log(1.02), lower_90=90.0, upper_90=110.0),
    ]
    closes = {noon + k * SLOT: c for k, c in ((1, 100.5), (2, 100.5), (3, 103.0), (5, 102.0))}
    backfill, live = score(engine, rows, closes)
    assert (live["mode"], live["forecasts"], live["without_outcome"]) == ("live", 3, 1)
    errors, moves = [0.0, 2 * up, math.log(1.03)], [up, up, math.log(1.03)]
    assert live["mae_pct"] == pytest.approx(100 * sum(errors) / 3)
    assert live["rmse_pct"] == pytest.approx(100 * math.sqrt(sum(e * e for e in errors) / 3))
    assert live["skill"] == pytest.approx(1 - sum(e * e for e in errors) / sum(m * m for m in moves))
    assert live["direction_hit"] == 0.5
    assert live["coverage_90"] == pytest.approx(2 / 3)
    assert live["width_pct"] == pytest.approx(2.0)
    assert live["winkler_pct"] == pytest.approx(2.0 + 20 * (103.0 - 101.0) / 3)
    assert (live["below_lower"], live["below_upper"]) == (0, pytest.approx(2 / 3))
    assert live["below_median"] is None, "these forecasts have no median"
    assert (backfill["mode"], backfill["forecasts"], backfill["skill"]) == ("backfill", 1, pytest.approx(1.0))


def test_a_target_on_midnight_belongs_to_the_day_that_ends_there(engine: SailEngine) -> None:
    begin, end = START + DAY, START + 2 * DAY
    rows = [forecast(t - SLOT) for t in (begin, begin + SLOT, end, end + SLOT)]
    rows += [forecast(end - HOUR, horizon="1h", target_at=end, model_name="price_1h")]
    found = {r["horizon"]: r for r in score(engine, rows, dict.fromkeys((begin, begin + SLOT, end, end + SLOT), 100.5))}
    assert found["5m"]["forecasts"] == 2
    assert found["1h"]["forecasts"] == 1
    assert {(r["day"], r["day_start"]) for r in found.values()} == {(begin.date(), begin)}
    assert found["5m"]["skill"] == 0
    assert found["5m"]["direction_hit"] is None, "no change is no direction"


def test_forecasts_without_an_outcome_have_no_figures(engine: SailEngine) -> None:
    (row,) = score(engine, [forecast(START + DAY + HOUR)], {START + DAY: 100.0})
    assert (row["forecasts"], row["without_outcome"]) == (0, 1)
    assert [row[n] for n in ("mae_pct", "rmse_pct", "skill", "direction_hit", "coverage_90")] == [None] * 5


def test_shares_below_the_quantiles_are_the_calibration_curve(engine: SailEngine) -> None:
    noon = START + DAY + 12 * HOUR
    rows = [forecast(noon + k * SLOT, median=100.2) for k in range(4)]
    (row,) = score(engine, rows, {noon + (k + 1) * SLOT: c for k, c in enumerate((98.0, 100.1, 100.3, 101.0))})
    assert [row[n] for n in ("below_lower", "below_median", "below_upper")] == [0.25, 0.5, 1.0]


def test_a_week_of_intervals_that_are_too_narrow_is_red_and_named() -> None:
    def day(coin: str, share: float, mode: str = "live", forecasts: int = 288) -> dict[str, Any]:
        return {"coin_id": coin, "horizon": "5m", "mode": mode, "coverage_90": share, "forecasts": forecasts}

    narrow = [*[day("bitcoin", 0.9)] * 5, day("bitcoin", 0.7), *[day("solana", 0.91)] * 7]
    found = accuracy._covered(narrow)
    assert (found.passed, found.severity, found.metadata) == (False, "warn", {"judged": 2, "off": 1})
    assert "off by more than 2 points: bitcoin 5m 86.7%" in found.description
    assert accuracy._covered([day("solana", 0.91)] * 7).passed
    young = accuracy._covered([day("bitcoin", 0.5)] * 5)
    assert young.passed
    assert "yet" in young.description
    unknown = accuracy._covered([{**day("bitcoin", 0.5), "coverage_90": None}] * 7)
    assert unknown.metadata == {"judged": 0, "off": 0}


def test_a_day_without_forecasts_is_red_only_once_there_were_some(engine: SailEngine) -> None:
    def has_rows(day: str):
        done = accuracy.work(engine, [day], step_inputs(NOW)).tables["gold.prediction_accuracy"]
        return next(c for c in done.partitions[day].checks if c.name == "has_rows")

    assert has_rows(day_key(START)).passed
    score(engine, [forecast(START + DAY + HOUR)], {})
    before, after = has_rows(day_key(START)), has_rows(day_key(START + 2 * DAY))
    assert (before.passed, before.description[:12]) == (True, "no rows yet:")
    assert (after.passed, after.severity) == (False, "warn")
