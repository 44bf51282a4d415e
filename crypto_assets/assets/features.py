"""Features by hour, from the 26 hours of closed bars before each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.log_slices.coverage import covered_until
from crypto_assets.assets.publishing import publish
from crypto_assets.assets.reuse import DIGEST, digest, stored
from crypto_assets.contracts.slices import HOUR, Slice, hour_key
from crypto_assets.contracts.tables import PRICE_FEATURES, RAW_PRICES
from crypto_assets.engine.base import CheckOutcome, Engine, Result, StepInputs
from crypto_assets.transforms.features import LOOK_BACK, NAME, USED, VERSION, features, last_slot

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

BARS = "gold.bars_5m"
SCALE_KNOWN = "scale_known"
EXTRA_CHECKS = {SCALE_KNOWN: "At least half of the rows have a scale (144 of the last 288 slots had a return)."}
SCALE_SHARE = 0.5


@Step(
    "price_features",
    [PRICE_FEATURES],
    reads=[Reads("gold/bars_5m", back=LOOK_BACK // HOUR)],
    moved_by="refresh",
    role="transform",
    checks=EXTRA_CHECKS,
    restated=True,
)
def work(engine: Engine, partition_keys: Sequence[str], inputs: StepInputs) -> Result:
    """Write `features.price_features` of hours.

    Args:
        engine: Engine whose store is read and written.
        partition_keys: Hours.
        inputs: `coins`, `now`, `run_id`; `as_of` cuts the log earlier than it reaches.

    Returns:
        Rows and checks by hour; an hour without a closed slot is empty and red.
    """
    reached = engine.store.version(RAW_PRICES.full_name)
    covered = covered_until(engine)
    as_of = min(filter(None, (covered, inputs.as_of)), default=inputs.partitions_start)

    noted = {"feature_set": f"{NAME} {VERSION}", "as_of": _text(as_of)}

    def build(slice_: Slice) -> DataFrame | pa.Table:
        version, read = engine.store.version(BARS), slice_.extend(before=LOOK_BACK)
        noted.pop(DIGEST, None)
        if engine.store.answers_at_once:
            closed = engine.store.read_arrow(BARS, read, columns=USED, where="is_closed", version=version)
            given = slice_.start, last_slot(slice_, as_of), inputs.coins.to_records()
            found = digest(closed.sort_by([(n, "ascending") for n in USED[:2]]), inputs, *given)
            if (same := stored(engine, PRICE_FEATURES, slice_, found, inputs)) is not None:
                return same
            noted.update({DIGEST: found} if found else {})
        bars = engine.store.read(BARS, read, version=version)
        return features(bars, slice_, inputs.coins, as_of)

    done = publish(
        engine,
        PRICE_FEATURES,
        partition_keys,
        inputs,
        build,
        extra_checks=_scale_known,
        why_empty=f"no 5-minute slot is closed: the log reaches {_text(covered)}",
        commit_metadata=noted,
    )
    for partition in done.partitions.values():
        read = partition.metadata.get("read_versions") or {}
        partition.metadata["read_versions"] = read if reached is None else {**read, RAW_PRICES.full_name: reached}
    return Result({PRICE_FEATURES.full_name: done})


def _text(moment: datetime | None) -> str:
    return moment.isoformat() if moment else "nowhere yet"


def _scale_known(slice_: Slice, rows: pa.Table) -> dict[str, list[CheckOutcome]]:
    """Share of rows with a scale by hour; young homes are red until they have twelve hours of bars."""
    hours = rows.column("hour").to_pylist()
    known = rows.column("s").is_valid().to_pylist()
    found: dict[str, list[CheckOutcome]] = {}
    for hour in slice_.hours():
        mine = [k for h, k in zip(hours, known, strict=True) if h == hour]
        share = sum(mine) / len(mine) if mine else 0.0
        found[hour_key(hour)] = [
            CheckOutcome(
                SCALE_KNOWN,
                share >= SCALE_SHARE,
                f"{share:.0%} of {len(mine)} rows have a scale; it needs 12 hours of closed bars before the slot",
                "warn",
                {"share": share, "rows": len(mine)},
            )
        ]
    return found
