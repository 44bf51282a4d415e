"""`gold.price_predictions`: forecasts, inserted once and never rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crypto_assets.assets import training
from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.publishing import pieces, reports, summary
from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import arrow_schema, compute
from crypto_assets.contracts.slices import Slice, floor_day
from crypto_assets.contracts.tables import PRICE_PREDICTIONS, PROMOTIONS
from crypto_assets.engine.base import Engine, Result, StepInputs, TableResult
from crypto_assets.ml import forecasts, registry
from crypto_assets.ml.baselines import BASELINE, HORIZONS
from crypto_assets.ml.panel import FIELDS, Panel, panel

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("coin_id", "window_start", "window_end", "available_at", "day", "hour", *FIELDS)
EXTRA_CHECKS = {training.CUTOFF_BEFORE: "Every forecast's model version was trained only on what lay before its slot."}


@Step(
    "gold_price_predictions",
    [PRICE_PREDICTIONS],
    reads=[Reads("features/price_features", back=23), Reads("ml/price_model", day_before=True)],
    moved_by="refresh",
    role="serve",
    checks=EXTRA_CHECKS,
    also_writes=[PROMOTIONS],
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Forecast from every slot of hours whose key is not in the ledger yet.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours.
        inputs: `now` decides whether a forecast is live or a backfill.

    Returns:
        Rows that the ledger holds for each hour, and its checks.
    """
    decided = training.promotions(engine, inputs)
    result, writes = TableResult(), []
    for slice_, keys in pieces(partition_keys, "hour"):
        made = _forecasts(engine, slice_, decided, inputs)
        training.refuse_seen(PRICE_PREDICTIONS.full_name, training.by_hour(keys, made), decided)
        write = engine.store.merge(
            PRICE_PREDICTIONS.full_name,
            made,
            mode="insert_if_absent",
            audit=rules.audit(PRICE_PREDICTIONS, keys),
            commit_metadata={
                "run_id": inputs.run_id,
                "slice_start": slice_.start.isoformat(),
                "slice_end": slice_.end.isoformat(),
            },
        )
        writes.append(write)
        rows = engine.store.read_arrow(PRICE_PREDICTIONS.full_name, slice_)
        checks = {key: [training.cutoff_outcome(found, decided)] for key, found in training.by_hour(keys, rows).items()}
        why_empty = "no slot of this hour has a price and a scale yet"
        result.partitions |= reports(PRICE_PREDICTIONS, rows, keys, write, ("predicted_at", "mode"), why_empty, checks)
    result.metadata = summary(writes)
    return Result({PRICE_PREDICTIONS.full_name: result})


def _forecasts(engine: Engine, slice_: Slice, decided: Sequence[dict[str, Any]], inputs: StepInputs) -> pa.Table:
    """Forecasts of a slice; features are read from midnight on, where the tracking of intervals begins."""
    import pyarrow as pa

    span = Slice(floor_day(slice_.start), slice_.end)
    features = engine.store.read_arrow("features.price_features", span, columns=list(COLUMNS))
    made: list[dict[str, Any]] = []
    for horizon in HORIZONS:
        for part, serving in training.in_force(slice_, decided, f"price_{horizon}"):
            rows = _within(features, part).to_pylist()
            data = panel(_within(features, Slice(floor_day(part.start), part.end)), part.end)
            if rows and data.slots:
                made += _of_horizon(rows, data, horizon, serving, decided, inputs)
    return pa.Table.from_pylist(made, schema=arrow_schema(PRICE_PREDICTIONS))


def _within(rows: pa.Table, span: Slice) -> pa.Table:
    """Rows whose slot begins within a span."""
    pc = compute()
    start = rows.column("window_start")
    return rows.filter(pc.and_(pc.greater_equal(start, span.start), pc.less(start, span.end)))


def _of_horizon(
    rows: Sequence[Mapping[str, Any]],
    data: Panel,
    horizon: str,
    promotion: Mapping[str, Any],
    decided: Sequence[Mapping[str, Any]],
    inputs: StepInputs,
) -> list[dict[str, Any]]:
    """Forecasts by the version in force, or by the baseline if that version's inputs are unknown."""
    made = forecasts.forecasts(rows, data, registry.load(promotion, inputs.params.get("home")), horizon, inputs.now)
    there = {(r["coin_id"], r["window_end"]) for r in made}
    rest = [r for r in rows if (r["coin_id"], r["window_end"]) not in there]
    baseline = next(p for p in decided if p["model"] == promotion["model"] and p["version"] == BASELINE)
    return made + forecasts.forecasts(rest, data, registry.load(baseline), horizon, inputs.now)
