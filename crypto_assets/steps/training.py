"""What both model steps share: reading what was known, writing promotions, and the check on restated inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.compute.base import CheckOutcome, Engine, StepInputs
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import DAY, Slice
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.ml.baselines import v0_rows
from crypto_assets.ml.panel import FIELDS, Panel, panel

if TYPE_CHECKING:
    import pyarrow as pa

ENOUGH_DATA, RESTATED = "enough_data", "inputs_restated_after_training"
COMMON_CHECKS = {
    ENOUGH_DATA: "There were days enough to train on; else it says how many are missing and nothing is materialized.",
    "promotion_gate": "A challenger was compared with the champion and is at least as good; else the champion serves.",
    RESTATED: "The features it was trained on have not been restated since.",
}
COLUMNS = ("coin_id", "window_end", "available_at", *FIELDS)


def known(engine: Engine, cutoff: datetime, days: int) -> Panel:
    """Features of the last days before a cut-off, as they were known at it.

    Args:
        engine: Engine whose store is read.
        cutoff: End of the training day (UTC).
        days: Days back.
    """
    rows = engine.store.read_arrow(
        "features.price_features", Slice(cutoff - days * DAY, cutoff), columns=list(COLUMNS)
    )
    return panel(rows, cutoff)


def promotions(engine: Engine, inputs: StepInputs) -> list[dict[str, Any]]:
    """All promotions; the baselines are written at first use, so that there always is a version to score with."""
    rows = engine.store.read_arrow(PROMOTIONS.full_name).to_pylist()
    if not any(r["version"] == "v0" for r in rows):
        record(engine, v0_rows(inputs.partitions_start, inputs.now))
        rows = engine.store.read_arrow(PROMOTIONS.full_name).to_pylist()
    return rows


def record(engine: Engine, rows: Sequence[dict[str, Any]]) -> None:
    """Add promotions that are not there yet; a decision is never rewritten."""
    import pyarrow as pa

    frame: pa.Table = pa.Table.from_pylist(list(rows), schema=arrow_schema(PROMOTIONS))
    engine.store.merge(PROMOTIONS.full_name, frame, mode="insert_if_absent")


def restated(engine: Engine, cutoff: datetime, days: int, decided: Sequence[dict[str, Any]]) -> CheckOutcome:
    """Whether feature slices of the training window were rewritten after an earlier decision on this cut-off."""
    earlier = [p["decided_at"] for p in decided if p["cutoff"] == cutoff and p["version"] != "v0"]
    if not earlier:
        return CheckOutcome(RESTATED, True, "trained for the first time", "warn")
    since, start = min(earlier), cutoff - timedelta(days=days)
    late = [
        c
        for c in engine.store.commits_after("features.price_features", -1, 100_000)
        if c.at > since
        and "slice_start" in c.metadata
        and start <= datetime.fromisoformat(c.metadata["slice_start"]) < cutoff
    ]
    return CheckOutcome(
        RESTATED,
        not late,
        f"{len(late)} feature slices of the training window were rewritten since {since.isoformat()}; models of old days "
        "are not retrained by themselves",
        "warn",
        {"rewritten_slices": len(late)},
    )
