"""Column lineage: every column derived from a table names its upstream columns, and they exist where it reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crypto_assets.assets.card import upstream
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.tables import TABLES
from crypto_assets.ml import detectors, intervals, price, volatility
from crypto_assets.ml.panel import FIELDS, Panel, anomaly_inputs

DERIVED = [t for t in TABLES.values() if t.schema not in ("bronze", "ops") or t.name == "pipeline_metrics"]
FROM_NO_TABLE = {
    "the registry of coins": ("gold.dim_coin.*", "features.price_features.coin_id", "gold.anomalies.symbol"),
    "the calendar": ("gold.dim_date.*", *(f"features.price_features.{c}" for c in ("window_start", "window_end"))),
    "the partition of the run": (
        *("features.price_features.day", "features.price_features.hour"),
        *("ops.pipeline_metrics.day", "ops.pipeline_metrics.hour"),
        *("ml.promotions.cutoff", "ml.promotions.effective_from"),
    ),
    "the offset ranges in Bronze's commits": ("gold.latest_prices.covered_until", "gold.latest_prices.covered_offsets"),
    "the clock": (
        *("gold.latest_prices.refreshed_at", "gold.anomalies.scored_at", "gold.price_predictions.predicted_at"),
        "gold.volatility_forecasts.predicted_at",
        *("gold.anomalies.inference_ms", "ml.promotions.decided_at"),
    ),
    "the model that scored": (
        *(f"gold.anomalies.{c}" for c in ("threshold", "z_threshold", "market_threshold", "common_threshold")),
        *(f"gold.anomalies.{c}" for c in ("model_name", "model_version")),
        *(f"gold.price_predictions.{c}" for c in ("model_name", "model_version", "coverage_7d", "coverage_28d")),
        *(f"gold.price_predictions.{c}" for c in ("skill_verdict", "null_reason")),
        *(f"gold.volatility_forecasts.{c}" for c in ("model_name", "model_version")),
    ),
    "the model registry": tuple(f"ml.promotions.{c}" for c in ("model", "version", "artifact_uri", "run_id")),
    "the table's former row": ("gold.anomalies.revision", "gold.anomalies.previous_is_anomaly"),
    "a constant": (
        "gold.price_predictions.horizon",
        "gold.volatility_forecasts.horizon",
        "ops.pipeline_metrics.metric",
        "ops.pipeline_metrics.unit",
    ),
}
"""Columns without lineage, by where their values come from. Chain columns are the store's."""


def _from_no_table(table: Table) -> list[str]:
    named = [n for names in FROM_NO_TABLE.values() for n in names if n.startswith(f"{table.full_name}.")]
    every = f"{table.full_name}.*"
    return [*(table.column_names if every in named else (n.rpartition(".")[2] for n in named)), *table.chain_columns]


@pytest.mark.parametrize("table", DERIVED, ids=lambda t: t.full_name)
def test_every_derived_column_has_lineage_or_a_reason_for_none(table: Table):
    without = [c.name for c in table.columns if not c.lineage]
    assert sorted(without) == sorted(_from_no_table(table))


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.full_name)
def test_lineage_names_existing_columns_of_what_the_card_reads(table: Table):
    read = {asset.replace("/", ".") for asset in upstream(table)} & TABLES.keys()
    known = {f"{name}.{column}" for name in read for column in TABLES[name].column_names}
    for column in table.columns:
        assert set(column.lineage) <= known, column.name
        assert len(set(column.lineage)) == len(column.lineage), column.name


class _Recorded(dict[str, np.ndarray]):
    """Values of a panel; records which fields were read."""

    def __init__(self) -> None:
        super().__init__({f: np.ones((1, 400)) for f in FIELDS})
        self.read: set[str] = set()

    def __getitem__(self, field: str) -> np.ndarray:
        self.read.add(field)
        return super().__getitem__(field)


def _fields(*computed: Callable[[Panel], object]) -> set[str]:
    values = _Recorded()
    for compute in computed:
        compute(Panel(("bitcoin",), 0, values))
    return {f"features.price_features.{f}" for f in values.read}


def test_scores_and_forecasts_name_the_features_their_models_read():
    score = TABLES["gold.anomalies"].column("anomaly_score").lineage
    assert set(score) == _fields(detectors.scores, anomaly_inputs)
    forecast = TABLES["gold.price_predictions"].column("predicted_return").lineage
    assert set(forecast) == _fields(price.inputs)
    width = {f"features.price_features.{name}" for names in intervals.FEATURES.values() for name in names}
    for name in ("lower_90", "median", "upper_90"):
        assert set(TABLES["gold.price_predictions"].column(name).lineage) == {
            *(forecast),
            *width,
            "features.price_features.price",
        }


def test_volatility_forecasts_name_the_features_their_models_read():
    forecasts = TABLES["gold.volatility_forecasts"]
    assert set(forecasts.column("volatility_pct").lineage) == _fields(volatility.inputs)
    assert set(forecasts.column("ewma_pct").lineage) == _fields(lambda data: volatility.ewma(data, 12, 24))
    last = _fields(*(lambda data, slots=slots: volatility.realised(data, slots) for slots in volatility.REALISED))
    assert set(forecasts.column("last_value_pct").lineage) == last


def test_promotions_name_the_features_that_training_reads():
    learnt = TABLES["ml.promotions"].column("content_hash").lineage
    assert set(learnt) == {f"features.price_features.{f}" for f in FIELDS}
