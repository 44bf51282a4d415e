"""Shared by the model steps: daily training, data known at a cut-off, promotions, checks on cut-offs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_day, hour_key, key_slice
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import (
    CheckOutcome,
    Engine,
    NotEnoughData,
    PartitionResult,
    Result,
    StepInputs,
    TableResult,
)
from crypto_assets.ml import artifacts, registry
from crypto_assets.ml.baselines import BASELINE, v0_rows
from crypto_assets.ml.panel import FIELDS, SLOT_S, Panel, panel
from crypto_assets.ml.promotions import beside, effective
from crypto_assets.storage.base import AuditFailed

if TYPE_CHECKING:
    import pyarrow as pa

Trained = TypeVar("Trained")
ENOUGH_DATA, RESTATED = "enough_data", "inputs_restated_after_training"
CUTOFF_BEFORE = "cutoff_before_window"
COMMON_CHECKS = {
    ENOUGH_DATA: "Enough days to train on; else the result names how many are missing and nothing is materialized.",
    "promotion_gate": "The recorded decision is what the rule makes of the recorded figures, whoever won.",
    RESTATED: "The features it was trained on have not been restated since.",
}
ROW = ("coin_id", "window_end", "available_at")
"""Columns that place a feature row."""

SLOT = timedelta(seconds=SLOT_S)


def known(engine: Engine, cutoff: datetime, days: int, fields: Sequence[str] = FIELDS) -> Panel:
    """Features of the last days before a cut-off, as known at it.

    Args:
        engine: Engine whose store is read.
        cutoff: End of the training day (UTC).
        days: Days back.
        fields: Features wanted.
    """
    columns = [*ROW, *fields]
    rows = engine.store.read_arrow("features.price_features", Slice(cutoff - days * DAY, cutoff), columns=columns)
    return panel(rows, cutoff, known_at=cutoff)


def by_day(
    asset: str,
    engine: Engine,
    partition_keys: Sequence[str],
    inputs: StepInputs,
    learn: Callable[[datetime], Trained],
    decide: Callable[[Engine, str, datetime, Trained, list[dict[str, Any]], StepInputs], PartitionResult],
) -> Result:
    """Train and decide for days, in time order.

    Args:
        asset: Name of the model's asset.
        engine: Engine whose store is read and whose `ml.promotions` is written.
        partition_keys: Days.
        inputs: Inputs of the step.
        learn: Trains on data known at a cut-off, the end of a day (UTC); raises `NotEnoughData`.
        decide: Records the version that serves from the next day on, given the training and all promotions.

    Returns:
        Decisions by day; days without enough data are named. If none had enough, only the red check `enough_data`.
    """
    result = TableResult()
    short: list[str] = []
    last = NotEnoughData("")
    for key in sorted(partition_keys):
        cutoff = key_slice(key, "day").end
        decided = promotions(engine, inputs)
        try:
            trained = learn(cutoff)
        except NotEnoughData as error:
            last = error
            short.append(f"{key}: {error}")
            continue
        result.partitions[key] = decide(engine, key, cutoff, trained, decided, inputs)
    if not result.partitions:
        return Result(skipped={asset: [CheckOutcome(ENOUGH_DATA, False, str(last), "warn", last.metadata)]})
    if short:
        result.metadata["run_days_without_enough_data"] = short
    return Result({asset: result})


def promotions(engine: Engine, inputs: StepInputs) -> list[dict[str, Any]]:
    """All promotions; a model's baseline is written at first use, so that there always is a version."""
    rows = engine.store.read_arrow(PROMOTIONS.full_name).to_pylist()
    there = {r["model"] for r in rows if r["version"] == BASELINE}
    missing = [r for r in v0_rows(inputs.partitions_start, inputs.now) if r["model"] not in there]
    if missing:
        record(engine, missing)
        rows = engine.store.read_arrow(PROMOTIONS.full_name).to_pylist()
    return rows


def record(engine: Engine, rows: Sequence[dict[str, Any]]) -> None:
    """Insert missing promotions; a decision is never rewritten.

    Args:
        engine: Engine whose `ml.promotions` is written.
        rows: Decisions: those of a training through `beside`, since what a person decided may hold.
    """
    import pyarrow as pa

    frame: pa.Table = pa.Table.from_pylist(list(rows), schema=arrow_schema(PROMOTIONS))
    engine.store.merge(PROMOTIONS.full_name, frame, mode="insert_if_absent", audit=rules.audit(PROMOTIONS, [None]))


@dataclass(frozen=True)
class Made:
    """A version that a training made.

    Args:
        model: Its model.
        version: Version text.
        algorithm: As promotions name it.
        parameters: What was learnt, JSON-safe.
        metrics: Figures on which the decision rests, JSON-safe.
        why: The decision, with its figures.
        texts: Card and pictures by file name.
        estimator: scikit-learn model, or None.
        promoted: Whether it serves.
        provisional: Whether it rests on fewer days than wanted.
    """

    model: str
    version: str
    algorithm: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    why: str
    texts: Mapping[str, str]
    estimator: Any = None
    promoted: bool = True
    provisional: bool = False


def decide(
    engine: Engine,
    models: Sequence[str],
    cutoff: datetime,
    decided: Sequence[Mapping[str, Any]],
    inputs: StepInputs,
    make: Callable[[], Sequence[Made]],
) -> Sequence[Mapping[str, Any]]:
    """Promotion rows of models at a cut-off: those of an earlier training, else recorded now; aliases follow.

    Args:
        engine: Engine whose `ml.promotions` is written.
        models: Models that are decided on together.
        cutoff: End of the training day (UTC).
        decided: All promotions so far.
        inputs: Inputs of the step.
        make: Makes the versions; called only if there is no earlier decision.
    """
    rows: Sequence[Mapping[str, Any]] = [r for model in models for r in decided_on(decided, model, cutoff)]
    if not rows:
        recorded = beside([_logged(made, cutoff, inputs) for made in make()], decided, inputs.now)
        record(engine, recorded)
        rows = recorded
    now_decided = promotions(engine, inputs)
    for model in models:
        registry.render_alias(registry.Store.of(inputs.params), now_decided, model)
    return rows


def _logged(made: Made, cutoff: datetime, inputs: StepInputs) -> dict[str, Any]:
    """Promotion row of a version, with its files saved and registered."""
    folder, sha256, run_id = registry.log_version(
        registry.Store.of(inputs.params),
        made.model,
        made.version,
        parameters=made.parameters,
        estimator=made.estimator,
        metrics=made.metrics,
        tags={"cutoff": cutoff.isoformat(), "algorithm": made.algorithm},
        texts=made.texts,
    )
    return {
        "model": made.model,
        "version": made.version,
        "algorithm": made.algorithm,
        "cutoff": cutoff,
        "effective_from": cutoff,
        "decision": "promoted" if made.promoted else "rejected",
        "provisional": made.provisional,
        "why": made.why,
        "metrics": json.dumps(made.metrics, sort_keys=True),
        "artifact_uri": folder,
        "artifact_sha256": sha256,
        "content_hash": artifacts.content_hash(made.parameters, made.estimator),
        "run_id": run_id,
        "decided_at": inputs.now,
    }


def in_force_before(decided: Sequence[Mapping[str, Any]], model: str, cutoff: datetime) -> Mapping[str, Any] | None:
    """The version that serves a model up to a cut-off, which a training compares with; None without any."""
    earlier = [d for d in decided if d["model"] == model and d["cutoff"] < cutoff and d["effective_from"] <= cutoff]
    return effective(earlier, model, cutoff) if earlier else None


def gate(rows: Sequence[Mapping[str, Any]], by_rule: Callable[[Mapping[str, Any]], str]) -> CheckOutcome:
    """Whether the recorded decisions are those that the rule gives on their figures, whoever won.

    Args:
        rows: Decisions of a day, at most one promoted of each model.
        by_rule: Algorithm that serves by the figures of a training.
    """
    wrong = [
        f"{r['model']}: by the figures {wanted} serves, not {r['algorithm']}"
        for r in rows
        if r["decision"] == "promoted" and (wanted := by_rule(json.loads(r["metrics"]))) != r["algorithm"]
    ]
    said = "; ".join(wrong) or "; ".join(f"{r['model'].partition('_')[2]}: {r['why']}" for r in rows)
    return CheckOutcome("promotion_gate", not wrong, said, "warn")


def decided_on(decided: Sequence[Mapping[str, Any]], model: str, cutoff: datetime) -> list[Mapping[str, Any]]:
    """Earlier decisions about a model at a cut-off; they stand, whatever a later training finds."""
    return [d for d in decided if d["model"] == model and d["cutoff"] == cutoff and d["version"] != BASELINE]


def in_force(slice_: Slice, decided: Sequence[Mapping[str, Any]], model: str) -> list[tuple[Slice, dict[str, Any]]]:
    """Parts of a slice with the decision that serves each: parts end at midnight and where the version changes.

    Args:
        slice_: Whole hours.
        decided: All promotions.
        model: One of `REGISTERED`.
    """
    parts: list[tuple[Slice, dict[str, Any]]] = []
    for hour in slice_.hours():
        serving = effective(decided, model, hour)
        if parts and hour != floor_day(hour) and parts[-1][1] == serving:
            parts[-1] = (Slice(parts[-1][0].start, hour + HOUR), serving)
        else:
            parts.append((Slice(hour, hour + HOUR), serving))
    return parts


def by_hour(keys: Sequence[str], rows: pa.Table) -> dict[str, list[tuple[str, str, datetime]]]:
    """Model, version and window_start of the scored rows of each hour."""
    found: dict[str, list[tuple[str, str, datetime]]] = {key: [] for key in keys}
    names = ("hour", "model_name", "model_version", "window_end")
    columns = (rows.column(name).to_pylist() for name in names)
    lists = {hour: found.get(hour_key(hour)) for hour in rows.column("hour").unique().to_pylist()}
    for hour, model, version, end in zip(*columns, strict=True):
        if (mine := lists[hour]) is not None:
            mine.append((model, version, end - SLOT))
    return found


def cutoff_outcome(
    scored: Iterable[tuple[str, str, datetime]], decided: Sequence[Mapping[str, Any]], *, blocking: bool = False
) -> CheckOutcome:
    """Check that no slot was scored by a version that had seen it.

    Args:
        scored: Model, version and window_start of rows.
        decided: All promotions. An unknown version counts as having seen everything.
        blocking: Whether a violation stops the write.
    """
    cutoffs = {(d["model"], d["version"]): d["cutoff"] for d in decided}
    rows = list(scored)
    bad = [r for r in rows if r[:2] not in cutoffs or cutoffs[r[:2]] > r[2]]
    versions = sorted({version for _, version, _ in bad})
    return CheckOutcome(
        CUTOFF_BEFORE,
        not bad,
        f"{len(bad)} rows are by a version that had seen their slot ({', '.join(versions)}): its effective_from in "
        "ml.promotions lies before its cut-off"
        if bad
        else "no version had seen its slots",
        metadata={"violations": len(bad), "rows": len(rows), **({"blocking": True} if blocking else {})},
    )


def refuse_seen(
    table: str, keyed: Mapping[str, Sequence[tuple[str, str, datetime]]], decided: Sequence[Mapping[str, Any]]
) -> None:
    """Stop a write of rows scored by versions that had seen their slots.

    Args:
        table: Table that would be written.
        keyed: Model, version and window_start of its rows by partition key.
        decided: All promotions.

    Raises:
        AuditFailed: There are such rows.
    """
    outcomes = [(key, cutoff_outcome(rows, decided, blocking=True)) for key, rows in keyed.items()]
    red = [f"{key}: {o.description}" for key, o in outcomes if not o.passed]
    if red:
        raise AuditFailed(f"{table}: {CUTOFF_BEFORE}, so nothing was written. {'; '.join(red)}", outcomes)


def restated(engine: Engine, cutoff: datetime, days: int, decided: Sequence[dict[str, Any]]) -> CheckOutcome:
    """Check whether feature slices of the training window were rewritten after an earlier decision on this cut-off."""
    earlier = [p["decided_at"] for p in decided if p["cutoff"] == cutoff and p["version"] != BASELINE]
    if not earlier:
        return CheckOutcome(RESTATED, True, "trained for the first time", "warn")
    since, start = min(earlier), cutoff - days * DAY

    def overlaps(metadata: Mapping[str, str]) -> bool:
        if "slice_start" not in metadata:
            return False
        first, last = (datetime.fromisoformat(metadata[n]) for n in ("slice_start", "slice_end"))
        return first < cutoff and last > start

    commits = engine.store.commits_after("features.price_features", -1, 100_000)
    late = [c for c in commits if c.at > since and overlaps(c.metadata)]
    return CheckOutcome(
        RESTATED,
        not late,
        f"{len(late)} feature slices of the training window were rewritten since {since.isoformat()}; models of old "
        "days are not retrained",
        "warn",
        {"rewritten_slices": len(late)},
    )
