"""`ml/price_model`: forecasters of both horizons, one training a day; most days end with "no skill"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from crypto_assets.compute.base import (
    CheckOutcome,
    Engine,
    NotEnoughData,
    PartitionResult,
    Result,
    StepInputs,
    TableResult,
)
from crypto_assets.contracts.slices import key_slice
from crypto_assets.ml import artifacts, price, registry
from crypto_assets.ml.baselines import HORIZONS
from crypto_assets.ml.price import Forecaster
from crypto_assets.steps import training

ASSET = "ml.price_model"
EXTRA_CHECKS = training.COMMON_CHECKS
DAYS = price.LOOK_BACK_DAYS


def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Train the forecasters of days, in time order.

    Args:
        engine: Engine whose store is read and whose `ml.promotions` is written.
        partition_keys: Days; day D sees nothing after its end, labels included.
        inputs: `params` of the model store.

    Returns:
        Versions and figures by day. If no day had data enough, only the red check `enough_data`.
    """
    result = TableResult()
    short: list[str] = []
    for key in sorted(partition_keys):
        cutoff = key_slice(key, "day").end
        decided = training.promotions(engine, inputs)
        data = training.known(engine, cutoff, DAYS)
        try:
            trained = {horizon: price.train(data, slots) for horizon, slots in HORIZONS.items()}
        except NotEnoughData as error:
            short.append(f"{key}: {error}")
            continue
        result.partitions[key] = _decide(engine, key, cutoff, trained, decided, inputs)
    if not result.partitions:
        return Result(skipped={ASSET: [CheckOutcome(training.ENOUGH_DATA, False, short[-1].split(": ", 1)[1], "warn")]})
    return Result({ASSET: result})


def _decide(
    engine: Engine,
    key: str,
    cutoff: datetime,
    trained: Mapping[str, Forecaster],
    decided: Sequence[Mapping[str, Any]],
    inputs: StepInputs,
) -> PartitionResult:
    rows = [_row(key, f"price_{h}", f, cutoff, inputs, decided) for h, f in trained.items()]
    training.record(engine, [r for r in rows if r is not None])
    now_decided = training.promotions(engine, inputs)
    for horizon in trained:
        registry.render_alias(registry.Store.of(inputs.params), now_decided, f"price_{horizon}")
    told = {h: _why(f) for h, f in trained.items()}
    evaluated = all(f.candidates for f in trained.values())
    beaten = [h for h, f in trained.items() if f.model is not None]
    hashes = [artifacts.content_hash(_parameters(f), f.model) for f in trained.values()]
    return PartitionResult(
        rows=len(trained),
        data_version="-".join(h[:16] for h in hashes),
        metadata={"cutoff": cutoff.isoformat(), **{f"why_{h}": w for h, w in told.items()}},
        checks=[
            CheckOutcome(
                training.ENOUGH_DATA,
                evaluated,
                "evaluated on 14 days" if evaluated else str(trained["5m"].metrics.get("missing")),
                "warn",
            ),
            CheckOutcome("promotion_gate", bool(beaten), "; ".join(f"{h}: {w}" for h, w in told.items()), "warn"),
            training.restated(engine, cutoff, DAYS, [dict(d) for d in decided if d["model"].startswith("price")]),
        ],
    )


def _why(forecaster: Forecaster) -> str:
    """What was decided, with the figures."""
    if not forecaster.candidates:
        return f"persistence serves, its errors measured on {forecaster.errors:,} outcomes; {forecaster.metrics.get('missing')}"
    told = ", ".join(
        f"{c.algorithm} {c.skill.value:+.2%} [{c.skill.lower:+.2%}, {c.skill.upper:+.2%}], a bar later "
        f"{c.skill_delayed.value:+.2%} [{c.skill_delayed.lower:+.2%}, {c.skill_delayed.upper:+.2%}]"
        for c in forecaster.candidates
    )
    verdict = "promoted" if forecaster.model is not None else "no skill, not promoted"
    return f"{verdict}: skill over persistence {told}"


def _parameters(forecaster: Forecaster) -> dict[str, Any]:
    return {
        "algorithm": forecaster.algorithm,
        "lower": forecaster.lower,
        "upper": forecaster.upper,
        "errors": forecaster.errors,
        "horizon_slots": forecaster.horizon_slots,
    }


def _row(
    key: str,
    model: str,
    forecaster: Forecaster,
    cutoff: datetime,
    inputs: StepInputs,
    decided: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """The promotion row; None when the version is there already. What serves is always promoted: at least persistence
    with its errors measured anew."""
    version = f"{key}-{forecaster.algorithm.replace('_', '-')}"
    if any(d["model"] == model and d["version"] == version for d in decided):
        return None
    parameters = _parameters(forecaster)
    metrics = {c.algorithm: {"skill": asdict(c.skill), "delayed": asdict(c.skill_delayed)} for c in forecaster.candidates}
    folder, sha256, run_id = registry.log_version(
        registry.Store.of(inputs.params),
        model,
        version,
        parameters=parameters,
        estimator=forecaster.model,
        metrics=metrics,
        tags={"cutoff": cutoff.isoformat(), "algorithm": forecaster.algorithm},
    )
    return {
        "model": model,
        "version": version,
        "algorithm": forecaster.algorithm,
        "cutoff": cutoff,
        "effective_from": cutoff,
        "decision": "promoted",
        "provisional": not forecaster.candidates,
        "why": _why(forecaster),
        "metrics": json.dumps(metrics, sort_keys=True),
        "artifact_uri": folder,
        "artifact_sha256": sha256,
        "content_hash": artifacts.content_hash(parameters, forecaster.model),
        "run_id": run_id,
        "decided_at": inputs.now,
    }
