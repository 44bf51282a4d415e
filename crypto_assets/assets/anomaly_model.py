"""`ml/anomaly_model`: one training per day, and the choice of the detector that serves from the next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from crypto_assets.assets import training
from crypto_assets.assets.card import ModelAsset, Reads, Step
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import CheckOutcome, Engine, PartitionResult, Result, StepInputs
from crypto_assets.ml import anomaly, artifacts, registry
from crypto_assets.ml.anomaly import Detector, Training
from crypto_assets.ml.baselines import ANOMALY
from crypto_assets.ml.promotions import held

DAYS = anomaly.FIT_DAYS + anomaly.CALIBRATION_DAYS

MODEL = ModelAsset(
    "ml",
    "anomaly_model",
    "Anomaly detector of day D: trained and calibrated on features before the end of D, compared with the champion on "
    "injected faults, and promoted only if it finds at least as many at the same flag rate. Serves from D + 1.",
)


@Step(
    "anomaly_model",
    [MODEL],
    reads=[Reads("features/price_features", back=DAYS - 1)],
    moved_by="daily",
    role="train",
    checks=training.COMMON_CHECKS,
    also_writes=[PROMOTIONS],
    skippable=True,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Train the detectors of days, in time order.

    Args:
        engine: Engine whose store is read and whose `ml.promotions` is written.
        partition_keys: Days; day D sees nothing after its end.
        inputs: `anomaly_budget`, and `params` of the model store.

    Returns:
        A version and its figures by day. If no day had enough data, only the red check `enough_data`.
    """

    def learn(cutoff: datetime) -> Training:
        return anomaly.train(training.known(engine, cutoff, DAYS), inputs.anomaly_budget)

    return training.by_day(MODEL.full_name, engine, partition_keys, inputs, learn, _decide)


def _decide(
    engine: Engine,
    key: str,
    cutoff: datetime,
    trained: Training,
    decided: Sequence[Mapping[str, Any]],
    inputs: StepInputs,
) -> PartitionResult:
    """Record the day's champion and challenger at once; a day decided before keeps its decision."""
    serving = trained.challenger if trained.challenger_wins and trained.challenger else trained.champion
    learnt = artifacts.content_hash(_parameters(serving), serving.forest)
    rows = training.decided_on(decided, ANOMALY, cutoff)
    if not rows:
        rows = [_row(f"{key}-robust-z", trained.champion, cutoff, inputs, not trained.challenger_wins, trained.why)]
        if trained.challenger is not None:
            rows.append(_row(f"{key}-forest", trained.challenger, cutoff, inputs, trained.challenger_wins, trained.why))
        rows = held(rows, decided, inputs.now)
        training.record(engine, rows)
    now_decided = training.promotions(engine, inputs)
    registry.render_alias(registry.Store.of(inputs.params), now_decided, ANOMALY)
    # While a rollback holds none is promoted.
    promoted = next((r for r in rows if r["decision"] == "promoted"), rows[0])
    return PartitionResult(
        rows=1,
        data_version=promoted["content_hash"],
        metadata={
            "version": promoted["version"],
            "algorithm": promoted["algorithm"],
            "cutoff": cutoff.isoformat(),
            "calibration_days": serving.calibration_days,
            "provisional": promoted["provisional"],
            "why": promoted["why"],
            "reproduced": learnt == promoted["content_hash"],
            "challenger_missing": trained.missing,
            "metrics": json.loads(promoted["metrics"]),
        },
        checks=[
            CheckOutcome(training.ENOUGH_DATA, True, f"calibrated on {serving.calibration_days} days"),
            CheckOutcome(
                "promotion_gate",
                promoted["algorithm"] != trained.champion.algorithm,
                promoted["why"] if trained.missing is None else f"{promoted['why']}: {trained.missing}",
                "warn",
                json.loads(promoted["metrics"]),
            ),
            training.restated(engine, cutoff, DAYS, [dict(d) for d in decided if d["model"] == ANOMALY]),
        ],
    )


def _parameters(detector: Detector) -> dict[str, Any]:
    return {"algorithm": detector.algorithm, "thresholds": detector.thresholds, "days": detector.calibration_days}


def _row(
    version: str,
    detector: Detector,
    cutoff: datetime,
    inputs: StepInputs,
    promoted: bool,
    why: str,
) -> dict[str, Any]:
    """Promotion row of a detector, with its files saved and registered."""
    parameters = _parameters(detector)
    folder, sha256, run_id = registry.log_version(
        registry.Store.of(inputs.params),
        ANOMALY,
        version,
        parameters=parameters,
        estimator=detector.forest,
        metrics=detector.metrics,
        tags={"cutoff": cutoff.isoformat(), "algorithm": detector.algorithm},
    )
    return {
        "model": ANOMALY,
        "version": version,
        "algorithm": detector.algorithm,
        "cutoff": cutoff,
        "effective_from": cutoff,
        "decision": "promoted" if promoted else "rejected",
        "provisional": detector.provisional,
        "why": why,
        "metrics": json.dumps(detector.metrics, sort_keys=True),
        "artifact_uri": folder,
        "artifact_sha256": sha256,
        "content_hash": artifacts.content_hash(parameters, detector.forest),
        "run_id": run_id,
        "decided_at": inputs.now,
    }
