"""`ml/anomaly_model`: one training per day, and the choice of the detector that serves from the next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from crypto_assets.assets import training
from crypto_assets.assets.card import ModelAsset, Reads, Step
from crypto_assets.contracts.slices import DAY
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import CheckOutcome, Engine, PartitionResult, Result, StepInputs
from crypto_assets.ml import anomaly, artifacts, card, challenger, drift, registry
from crypto_assets.ml.anomaly import Training
from crypto_assets.ml.artifacts import ArtifactRefused
from crypto_assets.ml.baselines import ANOMALY, BASELINE
from crypto_assets.ml.detectors import CALIBRATION_DAYS, FOREST, Detector
from crypto_assets.ml.drift import Drift
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets.ml.promotions import effective

DAYS = challenger.FIT_DAYS + CALIBRATION_DAYS
WEEK = timedelta(days=7)

IN_BUDGET = "flags_in_budget"
BUDGET_RANGE = (0.5, 1.5)
"""Measured flags over budgeted ones within which the check is green."""

DRIFT = "drift"
COOL_DOWN = timedelta(days=7)
"""Time after an early comparison in which drift causes no other."""

CHECKS = training.COMMON_CHECKS | {
    IN_BUDGET: "Flags of the last 28 days by the versions that served them, over the budget: within 0.5 to 1.5.",
    DRIFT: "Inputs and scores of each coin's last 7 days are distributed as in the 28 days before.",
}

MODEL = ModelAsset(
    "ml",
    "anomaly_model",
    "Anomaly detector of day D: thresholds of its scores, calibrated on features before the end of D. At the end of a "
    "UTC week an isolation forest is compared on injected faults, and serves the next week only if it finds more at an "
    "equal flag rate. Serves from D + 1.",
)


@Step(
    "anomaly_model",
    [MODEL],
    reads=[Reads("features/price_features", back=DAYS - 1)],
    moved_by="daily",
    role="train",
    checks=CHECKS,
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

    def learn(cutoff: datetime) -> _Learnt:
        data = training.known(engine, cutoff, DAYS)
        drifted = drift.measure(data)
        early = bool(drifted.red) and not _answered(training.promotions(engine, inputs), cutoff)
        return _Learnt(anomaly.train(data, inputs.anomaly_budget, early=early), data, drifted)

    return training.by_day(MODEL.full_name, engine, partition_keys, inputs, learn, _decide)


@dataclass(frozen=True)
class _Learnt:
    """A day's training, the features it saw, and their drift."""

    trained: Training
    data: Panel
    drift: Drift

    def recorded(self) -> dict[str, Any]:
        """What is recorded of drift: red series by coin, and whether a forest was compared on that day."""
        return {"red": self.drift.red, "answered": bool(self.drift.red) and self.trained.comparison is not None}


def _answered(decided: Sequence[Mapping[str, Any]], cutoff: datetime) -> bool:
    """Whether drift was answered by a comparison within the cool-down before a cut-off."""
    return any(
        json.loads(row["metrics"]).get(DRIFT, {}).get("answered")
        for row in decided
        if row["model"] == ANOMALY and cutoff - COOL_DOWN < row["cutoff"] < cutoff
    )


def _decide(
    engine: Engine,
    key: str,
    cutoff: datetime,
    learnt: _Learnt,
    decided: Sequence[dict[str, Any]],
    inputs: StepInputs,
) -> PartitionResult:
    """Record the day's versions at once; a day decided before keeps its decision."""
    trained = learnt.trained
    holder = _forest_of_the_week(decided, cutoff)

    def make() -> list[training.Made]:
        return _made(key, learnt, cutoff, inputs, _served(decided, learnt.data, cutoff, inputs), holder)

    rows = training.decide(engine, [ANOMALY], cutoff, decided, inputs, make)
    for row in rows:
        if row["algorithm"] == FOREST:
            registry.point_challenger(registry.Store.of(inputs.params), row)
    # While a rollback holds, or the forest of this week serves, none is promoted.
    shown = next((r for r in rows if r["decision"] == "promoted"), rows[0])
    again = _version(trained, shown["algorithm"])
    learnt_hash = artifacts.content_hash(again.parameters(), again.forest) if again else None
    return PartitionResult(
        rows=1,
        data_version=shown["content_hash"],
        metadata={
            "version": shown["version"],
            "algorithm": shown["algorithm"],
            "cutoff": cutoff.isoformat(),
            "calibration_days": trained.champion.calibration_days,
            "provisional": shown["provisional"],
            "why": shown["why"],
            "reproduced": learnt_hash == shown["content_hash"],
            "metrics": json.loads(shown["metrics"]),
        },
        checks=[
            CheckOutcome(training.ENOUGH_DATA, True, f"calibrated on {trained.champion.calibration_days} days"),
            gate(rows, holder),
            in_budget(training.promotions(engine, inputs), cutoff, inputs.anomaly_budget),
            _drifted(learnt),
            training.restated(engine, cutoff, DAYS, [dict(d) for d in decided if d["model"] == ANOMALY]),
        ],
    )


def _drifted(learnt: _Learnt) -> CheckOutcome:
    """Whether the last week's inputs and scores are distributed as before, and what follows if not."""
    text = learnt.drift.text
    if learnt.drift.red:
        compared = (
            "a forest was compared at once" if learnt.trained.comparison else "no forest is compared again so soon"
        )
        text += f". Thresholds follow every day; {compared}. One coin alone: compare its quotes with the source's page"
    return CheckOutcome(DRIFT, not learnt.drift.red, text, "warn", {"psi": learnt.drift.indices})


def _version(trained: Training, algorithm: str) -> Detector | None:
    """The detector of a training by its algorithm; None if it made none."""
    if trained.champion.algorithm == algorithm:
        return trained.champion
    return trained.comparison.challenger if trained.comparison and algorithm == FOREST else None


def _forest_of_the_week(decided: Sequence[Mapping[str, Any]], cutoff: datetime) -> Mapping[str, Any] | None:
    """The forest that won the comparison at the end of last week, if it serves up to a cut-off within this one."""
    serving = effective(decided, ANOMALY, cutoff - DAY)
    won = serving["algorithm"] == FOREST and serving["decision"] == "promoted"
    return serving if won and cutoff - serving["cutoff"] < WEEK else None


def _made(
    key: str,
    learnt: _Learnt,
    cutoff: datetime,
    inputs: StepInputs,
    served: Mapping[str, Any] | None,
    holder: Mapping[str, Any] | None,
) -> list[training.Made]:
    """Versions of a training: the scores, and when a forest was compared that forest."""
    trained = learnt.trained
    metrics = {**trained.champion.metrics, **({"served": served} if served else {}), DRIFT: learnt.recorded()}
    champion = replace(trained.champion, metrics=metrics)
    version = f"{key}-{champion.algorithm.replace('_', '-')}"
    if trained.comparison is None:
        why = f"{holder['version']} serves until the end of its week" if holder else trained.why
        return [_version_of(version, champion, learnt.data, cutoff, inputs, holder is None, why)]
    found = trained.comparison
    picture = {"gate.svg": challenger.picture(found.figures)}
    return [
        _version_of(version, champion, learnt.data, cutoff, inputs, not found.wins, found.why),
        _version_of(f"{key}-forest", found.challenger, learnt.data, cutoff, inputs, found.wins, found.why, picture),
    ]


def _served(
    decided: Sequence[dict[str, Any]], data: Panel, cutoff: datetime, inputs: StepInputs
) -> dict[str, float] | None:
    """Flags of the day by the version that served it, and the days of coins scored; None for the baseline."""
    import numpy as np

    serving = effective(decided, ANOMALY, cutoff - DAY)
    if serving["version"] == BASELINE:
        return None
    try:
        detector = registry.load(serving, inputs.params.get("home")).detector
    except ArtifactRefused:
        return None  # Scoring names it; a training of other days need not fail.
    day = data.cut(data.slots - SLOTS_A_DAY, data.slots)
    known = np.logical_or.reduce([np.isfinite(values) for values in detector.scores(day).values()])
    return {
        "flags": int(detector.flags(day).sum()),
        "coin_days": float(known.sum()) / SLOTS_A_DAY,
        "budget": inputs.anomaly_budget,
    }


def gate(rows: Sequence[Mapping[str, Any]], holder: Mapping[str, Any] | None) -> CheckOutcome:
    """Whether the decision is what the rule makes of the recorded figures, whoever won."""
    promoted = [r["algorithm"] for r in rows if r["decision"] == "promoted"]
    figures = [(r, json.loads(r["metrics"])) for r in rows if r["algorithm"] == FOREST]
    champion = next(r["algorithm"] for r in rows if r["algorithm"] != FOREST)
    wins = any(challenger.wins(f["gate"]) if "gate" in f else _as_at_first(f) for _, f in figures)
    wanted = [FOREST] if wins else [] if holder and not figures else [champion]
    if not promoted and any("held by the rollback" in r["why"] for r in rows):
        wanted = []
    why = rows[0]["why"]
    return CheckOutcome(
        "promotion_gate",
        promoted == wanted,
        why
        if promoted == wanted
        else f"by the figures {_listed(wanted)} serves, and {_listed(promoted)} was promoted: "
        f"{why}; crypto-assets models promote puts the right version into service",
        "warn",
        {"promoted": _listed(promoted), "by_the_figures": _listed(wanted)} | (figures[0][1] if figures else {}),
    )


def _as_at_first(figures: Mapping[str, Any]) -> bool:
    """The rule of the first release, under which its days were decided: at least as much found of every fault."""
    recall = figures.get("recall")
    return bool(recall) and all(recall["challenger"][k] >= recall["champion"][k] for k in recall["champion"])


def _listed(algorithms: Sequence[str]) -> str:
    return ", ".join(algorithms) or "none"


def in_budget(decided: Sequence[Mapping[str, Any]], cutoff: datetime, budget: float) -> CheckOutcome:
    """Measured flags of the last 28 days over the budgeted ones, from what trainings recorded of each day."""
    served: dict[datetime, Mapping[str, float]] = {}
    for row in decided:
        if row["model"] == ANOMALY and cutoff - CALIBRATION_DAYS * DAY < row["cutoff"] <= cutoff:
            of_day = json.loads(row["metrics"]).get("served")
            served |= {row["cutoff"]: of_day} if of_day else {}
    flags = sum(s["flags"] for s in served.values())
    coin_days = sum(s["coin_days"] for s in served.values())
    wanted = sum(s["coin_days"] * s["budget"] for s in served.values())
    if len(served) < CALIBRATION_DAYS or not wanted:
        text = f"{len(served)} of the {CALIBRATION_DAYS} days that are judged were served by a calibrated version"
        return CheckOutcome(IN_BUDGET, True, text, "warn", {"days": len(served)})
    ratio = flags / wanted
    low, high = BUDGET_RANGE
    measured = f"{flags / coin_days:.3f} flags a coin and day over {len(served)} days"
    text = f"{measured}, {ratio:.2f} times the budget of {budget:g}"
    if not low <= ratio <= high:
        text += ": the market differs from the 28 days that thresholds rest on; thresholds follow it day by day"
    metadata = {"ratio": ratio, "flags": flags, "coin_days": coin_days, "days": len(served)}
    return CheckOutcome(IN_BUDGET, low <= ratio <= high, text, "warn", metadata)


def _version_of(
    version: str,
    detector: Detector,
    data: Panel,
    cutoff: datetime,
    inputs: StepInputs,
    promoted: bool,
    why: str,
    texts: Mapping[str, str] | None = None,
) -> training.Made:
    """A detector as a version, with its card."""
    parameters = detector.parameters()
    carded = card.anomaly(version, detector, data, cutoff=cutoff, budget=inputs.anomaly_budget, why=why)
    return training.Made(
        ANOMALY,
        version,
        detector.algorithm,
        parameters,
        detector.metrics,
        why,
        {**carded, **(texts or {})},
        detector.forest,
        promoted,
        detector.provisional,
    )
