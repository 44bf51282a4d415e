"""Shared by the ledgers of forecasts: which version forecasts which slot, and rows that are inserted once.

Belongs here: what `gold.price_predictions` and `gold.volatility_forecasts` do alike. Does not belong here: forecasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crypto_assets.assets import training
from crypto_assets.assets.publishing import pieces, reports, summary
from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import compute
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice
from crypto_assets.engine.base import Engine, Result, StepInputs, TableResult
from crypto_assets.ml import registry
from crypto_assets.ml.baselines import BASELINE
from crypto_assets.ml.panel import Panel, panel
from crypto_assets.ml.scoring import Version

if TYPE_CHECKING:
    import pyarrow as pa

CHECKS = {training.CUTOFF_BEFORE: "Every forecast's model version was trained only on what lay before its slot."}
PLACE = ("coin_id", "window_start", "window_end", "day", "hour")
"""Columns of a feature row that place a forecast."""

ROW = (*PLACE, "available_at")

Rows = Sequence[Mapping[str, Any]]
Forecast = Callable[[Rows, Panel, Version], list[dict[str, Any]]]


def insert(
    table: Table,
    engine: Engine,
    partition_keys: Sequence[str],
    inputs: StepInputs,
    forecast: Callable[[Slice, Sequence[dict[str, Any]]], pa.Table],
    why_empty: str,
) -> Result:
    """Forecast from every slot of hours whose key is not in the ledger yet.

    Args:
        table: The ledger.
        engine: Engine whose store is read and written.
        partition_keys: Hours.
        inputs: Inputs of the step.
        forecast: Forecasts of a slice, given all promotions.
        why_empty: Reason given by `has_rows` when an hour has none.

    Returns:
        Rows that the ledger holds for each hour, and its checks.

    Raises:
        AuditFailed: A blocking rule failed, or a version had seen its slot; nothing of that slice was committed.
    """
    decided = training.promotions(engine, inputs)
    result, writes = TableResult(), []
    for slice_, keys in pieces(partition_keys, "hour"):
        made = forecast(slice_, decided)
        training.refuse_seen(table.full_name, training.by_hour(keys, made), decided)
        write = engine.store.merge(
            table.full_name,
            made,
            mode="insert_if_absent",
            audit=rules.audit(table, keys),
            commit_metadata={
                "run_id": inputs.run_id,
                "slice_start": slice_.start.isoformat(),
                "slice_end": slice_.end.isoformat(),
            },
        )
        writes.append(write)
        rows = engine.store.read_arrow(table.full_name, slice_)
        checks = {key: [training.cutoff_outcome(found, decided)] for key, found in training.by_hour(keys, rows).items()}
        result.partitions |= reports(table, rows, keys, write, ("predicted_at", "mode"), why_empty, checks)
    result.metadata = summary(writes)
    return Result({table.full_name: result})


def by_version(
    model: str,
    wanted: pa.Table,
    features: pa.Table,
    slice_: Slice,
    decided: Sequence[Mapping[str, Any]],
    inputs: StepInputs,
    begin: Callable[[datetime], datetime],
    forecast: Forecast,
) -> list[dict[str, Any]]:
    """Forecasts of a slice by the versions in force, or by the baseline where their inputs are unknown.

    Args:
        model: The model.
        wanted: Feature rows to forecast from, with the columns that `forecast` reads of a row.
        features: Those of the slice and of what precedes it, for panels.
        slice_: Whole hours.
        decided: All promotions.
        inputs: `params` of the model store.
        begin: Start of the features that forecasts of a part need, from the part's start.
        forecast: Forecasts of rows by a version, from a panel that holds them.
    """
    baseline = next(p for p in decided if p["model"] == model and p["version"] == BASELINE)
    made: list[dict[str, Any]] = []
    for part, serving in training.in_force(slice_, decided, model):
        rows = within(wanted, part).to_pylist()
        if not rows:
            continue
        data = panel(within(features, Slice(begin(part.start), part.end)), part.end)
        found = forecast(rows, data, registry.load(serving, inputs.params.get("home")))
        there = {(r["coin_id"], r["window_end"]) for r in found}
        rest = [r for r in rows if (r["coin_id"], r["window_end"]) not in there]
        made += found
        if rest and serving["version"] != BASELINE:
            made += forecast(rest, data, registry.load(baseline))
    return made


def within(rows: pa.Table, span: Slice) -> pa.Table:
    """Rows whose slot begins within a span."""
    pc = compute()
    start = rows.column("window_start")
    return rows.filter(pc.and_(pc.greater_equal(start, span.start), pc.less(start, span.end)))
