"""`ml/volatility_model`: forecasters of volatility of both horizons, one training per day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crypto_assets.assets import training
from crypto_assets.assets.card import ModelAsset, Reads, Step
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import CheckOutcome, Engine, PartitionResult, Result, StepInputs
from crypto_assets.ml import artifacts, volatility, volatility_card
from crypto_assets.ml import volatility_training as learning
from crypto_assets.ml.baselines import VOLATILITY_HORIZONS
from crypto_assets.ml.panel import Panel
from crypto_assets.ml.volatility_training import Trained

DAYS = learning.LOOK_BACK_DAYS + volatility.LOOK_BACK_DAYS

MODEL = ModelAsset(
    "ml",
    "volatility_model",
    "Volatility forecasters (1 h and 24 h) of day D: a log-HAR regression of the 28 days before the end of D, or "
    "an exponential average until the regression's QLIKE is lower with 95 % confidence. Serves from D + 1.",
    kinds=("python", "mlflow"),
)


@Step(
    "volatility_model",
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
        partition_keys: Days; day D sees nothing after its end, outcomes included.
        inputs: `params` of the model store.

    Returns:
        Versions and figures by day. If no day had enough data, only the red check `enough_data`.
    """

    def learn(cutoff: datetime) -> _Learnt:
        data = training.known(engine, cutoff, DAYS, volatility.FIELDS)
        decided = training.promotions(engine, inputs)
        serving = {h: training.in_force_before(decided, f"volatility_{h}", cutoff) for h in VOLATILITY_HORIZONS}
        known = learning.Prepared.of(data)
        trained = {
            horizon: learning.train(known, slots, present=(serving[horizon] or {}).get("algorithm", volatility.EWMA))
            for horizon, slots in VOLATILITY_HORIZONS.items()
        }
        return _Learnt(trained, data)

    return training.by_day(MODEL.full_name, engine, partition_keys, inputs, learn, _decide)


@dataclass(frozen=True)
class _Learnt:
    """Trainings of a day by horizon, and the features they rest on."""

    trained: Mapping[str, Trained]
    data: Panel


def _decide(
    engine: Engine,
    key: str,
    cutoff: datetime,
    learnt: _Learnt,
    decided: Sequence[Mapping[str, Any]],
    inputs: StepInputs,
) -> PartitionResult:
    """Record both horizons' versions at once; a day decided before keeps its decision."""
    trained = learnt.trained

    def make() -> list[training.Made]:
        return [_made(key, h, t, learnt.data, cutoff) for h, t in trained.items()]

    rows = training.decide(engine, [f"volatility_{h}" for h in trained], cutoff, decided, inputs, make)
    by_horizon = {r["model"].removeprefix("volatility_"): r for r in rows}
    hashes = {h: artifacts.content_hash(t.version.parameters()) for h, t in trained.items()}
    return PartitionResult(
        rows=len(rows),
        data_version="-".join(by_horizon[h]["content_hash"][:16] for h in trained),
        metadata={
            "cutoff": cutoff.isoformat(),
            "reproduced": all(hashes[h] == by_horizon[h]["content_hash"] for h in trained),
            **{f"why_{h}": r["why"] for h, r in by_horizon.items()},
        },
        checks=[
            CheckOutcome(training.ENOUGH_DATA, True, f"compared on {min(t.days for t in trained.values())} days"),
            training.gate(rows, learning.by_rule),
            training.restated(engine, cutoff, DAYS, [dict(d) for d in decided if d["model"].startswith("volatility")]),
        ],
    )


def _made(key: str, horizon: str, trained: Trained, data: Panel, cutoff: datetime) -> training.Made:
    """The version of a training. It is always promoted: at least the exponential average."""
    algorithm = trained.version.algorithm
    version = f"{key}-{algorithm.replace('_', '-')}"
    why = _why(trained)
    return training.Made(
        f"volatility_{horizon}",
        version,
        algorithm,
        trained.version.parameters(),
        trained.figures(),
        why,
        volatility_card.card(version, horizon, trained, data, cutoff=cutoff, why=why),
    )


def _why(trained: Trained) -> str:
    """Describe the decision, with its figures."""
    loss, served = trained.loss[volatility.LOG_HAR], trained.version.algorithm
    compared = "; ".join(
        f"{name} {trained.loss[name]:.3f}, log_har less by {gain.value:+.3f} [{gain.lower:+.3f}, {gain.upper:+.3f}]"
        for name, gain in trained.gains.items()
    )
    in_force = f"{served} serves, {trained.present} was in force"
    return f"{in_force}; QLIKE over {trained.days} days: log_har {loss:.3f}; {compared}"
