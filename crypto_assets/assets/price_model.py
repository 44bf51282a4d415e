"""`ml/price_model`: forecasters of both horizons, one training per day; most days end with "no skill"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from crypto_assets.assets import training
from crypto_assets.assets.card import ModelAsset, Reads, Step
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import CheckOutcome, Engine, PartitionResult, Result, StepInputs
from crypto_assets.ml import artifacts, price, registry
from crypto_assets.ml.baselines import HORIZONS
from crypto_assets.ml.evaluation import Skill
from crypto_assets.ml.price import Forecaster
from crypto_assets.ml.promotions import held

DAYS = price.LOOK_BACK_DAYS

MODEL = ModelAsset(
    "ml",
    "price_model",
    "Price forecasters (5 min and 1 h) of day D: walk-forward evaluation before the end of D, promoted only if their "
    "skill over persistence is above zero with 95 % confidence. Serves from D + 1.",
)


@Step(
    "price_model",
    [MODEL],
    reads=[Reads("features/price_features", back=DAYS - 1)],
    moved_by="daily",
    role="train",
    checks=training.COMMON_CHECKS,
    also_writes=[PROMOTIONS],
    skippable=True,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Train the forecasters of days, in time order.

    Args:
        engine: Engine whose store is read and whose `ml.promotions` is written.
        partition_keys: Days; day D sees nothing after its end, labels included.
        inputs: `params` of the model store.

    Returns:
        Versions and figures by day. If no day had enough data, only the red check `enough_data`.
    """

    def learn(cutoff: datetime) -> dict[str, Forecaster]:
        data = training.known(engine, cutoff, DAYS)
        return {horizon: price.train(data, slots) for horizon, slots in HORIZONS.items()}

    return training.by_day(MODEL.full_name, engine, partition_keys, inputs, learn, _decide)


def _decide(
    engine: Engine,
    key: str,
    cutoff: datetime,
    trained: Mapping[str, Forecaster],
    decided: Sequence[Mapping[str, Any]],
    inputs: StepInputs,
) -> PartitionResult:
    """Record both horizons' versions at once; a day decided before keeps its decision."""
    rows = [r for h in trained for r in training.decided_on(decided, f"price_{h}", cutoff)]
    if not rows:
        rows = held([_row(key, f"price_{h}", f, cutoff, inputs) for h, f in trained.items()], decided, inputs.now)
        training.record(engine, rows)
    now_decided = training.promotions(engine, inputs)
    for horizon in trained:
        registry.render_alias(registry.Store.of(inputs.params), now_decided, f"price_{horizon}")
    promoted = {r["model"].removeprefix("price_"): r for r in rows}
    evaluated = not any(r["provisional"] for r in rows)
    learnt = {h: artifacts.content_hash(_parameters(f), f.model) for h, f in trained.items()}
    return PartitionResult(
        rows=len(rows),
        data_version="-".join(promoted[h]["content_hash"][:16] for h in trained),
        metadata={
            "cutoff": cutoff.isoformat(),
            "reproduced": all(learnt[h] == promoted[h]["content_hash"] for h in trained),
            **{f"why_{h}": r["why"] for h, r in promoted.items()},
        },
        checks=[
            CheckOutcome(
                training.ENOUGH_DATA,
                evaluated,
                f"evaluated on {price.EVALUATION_DAYS} days"
                if evaluated
                else "; ".join(f"{h}: {r['why']}" for h, r in promoted.items() if r["provisional"]),
                "warn",
                min((f.metrics for f in trained.values() if "days" in f.metrics), key=lambda m: m["days"], default={}),
            ),
            CheckOutcome(
                "promotion_gate",
                any(r["algorithm"] != "persistence" for r in rows),
                "; ".join(f"{h}: {r['why']}" for h, r in promoted.items()),
                "warn",
            ),
            training.restated(engine, cutoff, DAYS, [dict(d) for d in decided if d["model"].startswith("price")]),
        ],
    )


def _why(forecaster: Forecaster) -> str:
    """Describe the decision, with its figures."""
    if not forecaster.candidates:
        measured = f"persistence serves, its errors measured on {forecaster.errors:,} outcomes"
        return f"{measured}; {forecaster.metrics.get('missing')}"
    figures = "; ".join(
        f"{c.algorithm} {_figures(c.skill)}" + (f", a bar later {_figures(c.skill_delayed)}" if c.skill_delayed else "")
        for c in forecaster.candidates
    )
    verdict = "promoted" if forecaster.model is not None else "no skill, not promoted"
    return f"{verdict}: skill over persistence {figures}"


def _figures(skill: Skill) -> str:
    return f"{skill.value:+.2%} [{skill.lower:+.2%}, {skill.upper:+.2%}]"


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
) -> dict[str, Any]:
    """Promotion row. The serving version is always promoted: at least persistence with new error quantiles."""
    version = f"{key}-{forecaster.algorithm.replace('_', '-')}"
    parameters = _parameters(forecaster)
    metrics = {
        c.algorithm: {
            "skill": asdict(c.skill),
            **({"delayed": asdict(c.skill_delayed)} if c.skill_delayed is not None else {}),
        }
        for c in forecaster.candidates
    }
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
