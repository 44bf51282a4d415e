"""`gold.anomalies`: every slot of an hour, scored by the version effective then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.assets import training
from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.plots import lines
from crypto_assets.assets.publishing import publish
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import DAY, HOUR, Slice, contiguous, hour_keys
from crypto_assets.contracts.tables import ANOMALIES, PROMOTIONS
from crypto_assets.engine.base import CheckOutcome, Engine, Markdown, Result, StepInputs
from crypto_assets.ml import registry, scoring
from crypto_assets.ml.baselines import ANOMALY
from crypto_assets.ml.panel import SLOT_S, panel

if TYPE_CHECKING:
    import pyarrow as pa

EXTRA_CHECKS = {training.CUTOFF_BEFORE: "Every row's model version was trained only on what lay before its slot."}
PLOTTED = 3 * DAY
"""Longest plotted part of a range."""
VOLATILE = ("scored_at", "latency_s", "inference_ms", "revision", "previous_is_anomaly")
FIRST = ("scored_at", "latency_s", "inference_ms")
"""Columns of a slot's first scoring, which outlive restatements."""
SECOND = ("detectors", "z_threshold", "market_score", "market_threshold", "size_market_sigma", "similar_windows")
"""Columns that came with the second score: null in older rows, which does not make a row a changed one."""
THIRD = ("common_score", "common_threshold")
"""Those that came with the third."""


@Step(
    "gold_anomalies",
    [ANOMALIES],
    reads=[Reads("features/price_features"), Reads("ml/anomaly_model", day_before=True)],
    moved_by="refresh",
    role="serve",
    checks=EXTRA_CHECKS,
    also_writes=[PROMOTIONS],
    restated=True,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Score hours.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours.
        inputs: `now` is scored_at of new rows; `coins` gives symbols.

    Returns:
        Rows and checks by hour. A row scored before keeps scored_at; a changed one gets the next revision and keeps its
        former flag.

    Raises:
        AuditFailed: A version would score slots it was trained on; nothing of that slice was committed.
    """
    decided = training.promotions(engine, inputs)

    def build(slice_: Slice) -> pa.Table:
        rows = _scored(engine, slice_, decided, inputs)
        training.refuse_seen(ANOMALIES.full_name, training.by_hour(hour_keys(slice_), rows), decided)
        return rows

    def check(slice_: Slice, rows: pa.Table) -> dict[str, list[CheckOutcome]]:
        return {
            key: [training.cutoff_outcome(mine, decided)]
            for key, mine in training.by_hour(hour_keys(slice_), rows).items()
        }

    done = publish(
        engine,
        ANOMALIES,
        partition_keys,
        inputs,
        build,
        extra_checks=check,
        volatile=VOLATILE,
        why_empty="the features of this hour are empty",
    )
    if len(partition_keys) > 1:  # a refresh of an hour or two has little to show, a thousand times a day
        done.metadata["plot"] = _plot(engine, partition_keys)
    return Result({ANOMALIES.full_name: done})


def _plot(engine: Engine, partition_keys: Sequence[str]) -> Markdown | None:
    """Scores of the hours by coin over their thresholds, flags circled."""
    spans = [s for s, _ in contiguous(partition_keys, "hour")]
    slice_ = Slice(max(spans[0].start, spans[-1].end - PLOTTED), spans[-1].end)
    columns = ["symbol", "window_end", "anomaly_score", "threshold", "is_anomaly"]
    rows = engine.store.read_arrow(ANOMALIES.full_name, slice_, columns=columns).sort_by("window_end").to_pylist()
    scores: dict[str, list[tuple[datetime, float]]] = {}
    flags: dict[str, list[tuple[datetime, float]]] = {}
    for row in rows:
        if row["anomaly_score"] is not None:
            point = (row["window_end"], row["anomaly_score"] / row["threshold"])
            scores.setdefault(row["symbol"], []).append(point)
            if row["is_anomaly"]:
                flags.setdefault(row["symbol"], []).append(point)
    return lines("anomaly score, flags circled", "times the threshold", dict(sorted(scores.items())), marks=flags)


def _scored(engine: Engine, slice_: Slice, decided: Sequence[dict[str, Any]], inputs: StepInputs) -> pa.Table:
    import pyarrow as pa

    features = engine.store.read_arrow("features.price_features", slice_.extend(before=HOUR))
    stored = {
        (r["coin_id"], r["window_end"]): r for r in engine.store.read_arrow(ANOMALIES.full_name, slice_).to_pylist()
    }
    symbols = {c.coin_id: c.symbol for c in inputs.coins}
    rows: list[dict[str, Any]] = []
    for part, serving in training.in_force(slice_, decided, ANOMALY):
        version = registry.load(serving, inputs.params.get("home"))
        rows += _day(features, part, version, symbols, inputs.now)
    finished = [_revised(row, stored.get((row["coin_id"], row["window_end"]))) for row in rows]
    return pa.Table.from_pylist(finished, schema=arrow_schema(ANOMALIES))


def _day(
    features: pa.Table, part: Slice, version: scoring.Version, symbols: Mapping[str, str], now: datetime
) -> list[dict[str, Any]]:
    """Rows of one day's part; the panel includes the hour before, for a flag's neighbours."""
    data = panel(features, part.end)
    if not data.slots:
        return []
    started = time.perf_counter()
    scored = scoring.Scored(data, version)
    took_ms = (time.perf_counter() - started) * 1000
    index = {c: i for i, c in enumerate(data.coins)}
    rows = []
    for f in features.to_pylist():
        if not part.start <= f["window_start"] < part.end:
            continue
        c, t = index[f["coin_id"]], int(f["window_end"].timestamp()) // SLOT_S - data.first_slot
        rows.append(
            {
                "coin_id": f["coin_id"],
                "symbol": symbols.get(f["coin_id"], f["coin_id"]),
                "window_start": f["window_start"],
                "window_end": f["window_end"],
                **scored.row(c, t),
                "suspicion": scoring.suspicion(f, frozen=scored.frozen(c, t)),
                "price": f["price"],
                "model_name": ANOMALY,
                "model_version": version.name,
                "scored_at": now,
                "latency_s": (now - f["window_end"]) / timedelta(seconds=1),
                "inference_ms": took_ms,
                "revision": 0,
                "previous_is_anomaly": None,
                "day": f["day"],
                "hour": f["hour"],
            }
        )
    return rows


def _revised(row: dict[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge a row with the one stored for its slot."""
    if old is None:
        return row
    first = {n: old[n] for n in FIRST}
    passed = {*VOLATILE}
    if old["detectors"] is None:
        passed |= {*SECOND}
    if old["common_score"] is None:
        passed |= {*THIRD}
    if all(row[n] == old[n] for n in row if n not in passed):
        return {**row, **first, **{n: old[n] for n in ("revision", "previous_is_anomaly")}}
    return {**row, **first, "revision": old["revision"] + 1, "previous_is_anomaly": old["is_anomaly"]}
