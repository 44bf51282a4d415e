"""`ml/price_model`: forecasters of both horizons, one training per day; most days end with "no skill"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crypto_assets.assets import training
from crypto_assets.assets.card import ModelAsset, Reads, Step
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import CheckOutcome, Engine, PartitionResult, Result, StepInputs
from crypto_assets.ml import artifacts, card, price
from crypto_assets.ml.baselines import HORIZONS
from crypto_assets.ml.bootstrap import Difference
from crypto_assets.ml.calibration import Calibration
from crypto_assets.ml.evaluation import Skill
from crypto_assets.ml.intervals import OWN_SIGMA
from crypto_assets.ml.panel import Panel
from crypto_assets.ml.price import Forecaster

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

    def learn(cutoff: datetime) -> _Learnt:
        data, decided = training.known(engine, cutoff, DAYS), training.promotions(engine, inputs)
        trained = {
            horizon: price.train(data, slots, present=_present(decided, f"price_{horizon}", cutoff))
            for horizon, slots in HORIZONS.items()
        }
        return _Learnt(trained, data)

    return training.by_day(MODEL.full_name, engine, partition_keys, inputs, learn, _decide)


@dataclass(frozen=True)
class _Learnt:
    """Forecasters of a day by horizon, and the features they were trained on."""

    trained: Mapping[str, Forecaster]
    data: Panel


def _present(decided: Sequence[Mapping[str, Any]], model: str, cutoff: datetime) -> str:
    """Scale of the version that serves up to a cut-off; the first version's names none."""
    serving = training.in_force_before(decided, model, cutoff)
    return price.scale_of(serving["algorithm"]) if serving else OWN_SIGMA


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
        return [_made(key, h, f, learnt.data, cutoff) for h, f in trained.items()]

    rows = training.decide(engine, [f"price_{h}" for h in trained], cutoff, decided, inputs, make)
    promoted = {r["model"].removeprefix("price_"): r for r in rows}
    evaluated = not any(r["provisional"] for r in rows)
    hashes = {h: artifacts.content_hash(f.parameters(), f.model) for h, f in trained.items()}
    return PartitionResult(
        rows=len(rows),
        data_version="-".join(promoted[h]["content_hash"][:16] for h in trained),
        metadata={
            "cutoff": cutoff.isoformat(),
            "reproduced": all(hashes[h] == promoted[h]["content_hash"] for h in trained),
            **{f"why_{h}": r["why"] for h, r in promoted.items()},
        },
        checks=[
            CheckOutcome(
                training.ENOUGH_DATA,
                evaluated,
                f"evaluated on {price.EVALUATION_DAYS} days" + _lacking(trained)
                if evaluated
                else "; ".join(f"{h}: {r['why']}" for h, r in promoted.items() if r["provisional"]),
                "warn",
                min((f.metrics for f in trained.values() if "days" in f.metrics), key=lambda m: m["days"], default={}),
            ),
            _gate(rows),
            training.restated(engine, cutoff, DAYS, [dict(d) for d in decided if d["model"].startswith("price")]),
        ],
    )


def _lacking(trained: Mapping[str, Forecaster]) -> str:
    lacks = {f.calibration.missing for f in trained.values() if f.calibration and f.calibration.missing}
    return f"; {'; '.join(sorted(lacks))}" if lacks else ""


def _gate(rows: Sequence[Mapping[str, Any]]) -> CheckOutcome:
    return training.gate(rows, price.by_rule)


def _why(forecaster: Forecaster) -> str:
    """Describe the decision, with its figures."""
    if not forecaster.candidates:
        measured = f"persistence serves, its errors measured on {forecaster.errors:,} outcomes"
        point = f"{measured}; {forecaster.metrics.get('missing')}"
    else:
        figures = "; ".join(
            f"{c.algorithm} {_figures(c.skill)}"
            + (f", a bar later {_figures(c.skill_delayed)}" if c.skill_delayed else "")
            for c in forecaster.candidates
        )
        verdict = "promoted" if forecaster.model is not None else "no skill, not promoted"
        point = f"{verdict}: skill over persistence {figures}"
    return f"{point}; {_interval(forecaster.calibration)}" if forecaster.calibration else point


def _interval(calibration: Calibration) -> str:
    """Describe the choice of the interval's scale; scores in basis points."""
    said = f"interval by {calibration.scale.name}"
    if calibration.winkler is not None:
        said += f", Winkler of {calibration.present} {_points(calibration.winkler)} over {calibration.days} days"
    for t in calibration.trials:
        least, most = (pick(t.coverage.values(), default=math.nan) for pick in (min, max))
        said += (
            f"; {t.name} {_points(t.winkler)}, better by {_bounds(t.gain)}, than a constant width by "
            f"{_bounds(t.over_constant)}, covers {least:.1%} to {most:.1%}"
        )
    return f"{said}; {calibration.missing}" if calibration.missing else said


def _points(score: float) -> str:
    return f"{score * 1e4:.1f} bp"


def _bounds(gain: Difference) -> str:
    return f"{gain.value * 1e4:+.1f} [{gain.lower * 1e4:+.1f}, {gain.upper * 1e4:+.1f}]"


def _figures(skill: Skill) -> str:
    return f"{skill.value:+.2%} [{skill.lower:+.2%}, {skill.upper:+.2%}]"


def _made(key: str, horizon: str, forecaster: Forecaster, data: Panel, cutoff: datetime) -> training.Made:
    """The version of a training. It is always promoted: at least persistence with new quantiles."""
    version = f"{key}-{forecaster.name.replace('_', '-').replace('+', '-')}"
    why = _why(forecaster)
    return training.Made(
        f"price_{horizon}",
        version,
        forecaster.name,
        forecaster.parameters(),
        forecaster.figures(),
        why,
        card.price(version, horizon, forecaster, data, cutoff=cutoff, why=why),
        forecaster.model,
        provisional=not forecaster.candidates,
    )
