"""`gold.latest_prices`: what a board shows first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.compute.base import Engine, Result, StepInputs
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_hour
from crypto_assets.contracts.tables import LATEST_PRICES
from crypto_assets.steps.base import publish_whole
from crypto_assets.steps.bronze_coverage import coverage
from crypto_assets.transforms.latest import latest_prices

if TYPE_CHECKING:
    import pyarrow as pa

LOOKS = (2 * HOUR, 2 * DAY, 365 * DAY)
"""How far back a coin's newest quote is searched: nearly always the first look finds them all."""

VOLATILE = ("refreshed_at", "covered_until", "covered_offsets", "age_s")


def work(engine: Engine, partition_keys: Sequence[Any], inputs: StepInputs) -> Result:
    """Make `gold.latest_prices` show the newest quote of every active coin.

    Coverage is read before Silver, so that the table never claims offsets that its prices do not reflect. A refresh
    that read an older state than the stored one keeps the stored row: the table does not go backwards.
    """
    del partition_keys
    covered = coverage(engine)
    rows = _newest(engine, inputs, covered)
    return Result({LATEST_PRICES.full_name: publish_whole(engine, LATEST_PRICES, inputs, rows, volatile=VOLATILE)})


def _newest(engine: Engine, inputs: StepInputs, covered: Any) -> pa.Table:
    import pyarrow as pa

    from crypto_assets.contracts.arrow import arrow_schema

    schema = arrow_schema(LATEST_PRICES)
    if covered.until is None:
        return schema.empty_table()
    wanted = {
        c["coin_id"] for c in inputs.coins if c["active_to"] is None or c["active_to"] > inputs.now.isoformat()
    }
    found: dict[str, dict[str, Any]] = {}
    end = floor_hour(covered.until + timedelta(minutes=5)) + HOUR
    for look in LOOKS:
        slice_ = Slice(max(floor_hour(end - look), inputs.partitions_start - DAY), end)
        silver = engine.store.read("silver.prices", slice_)
        rows = latest_prices(silver, covered.until, json.dumps(covered.offsets), inputs.now).toArrow().to_pylist()
        found |= {r["coin_id"]: r for r in rows if r["coin_id"] in wanted and r["coin_id"] not in found}
        if wanted <= set(found) or slice_.start <= inputs.partitions_start:
            break
    for old in engine.store.read_arrow(LATEST_PRICES.full_name).to_pylist():
        mine = found.get(old["coin_id"])
        if mine is not None and old["last_updated_at"] > mine["last_updated_at"]:
            found[old["coin_id"]] = old
    return pa.Table.from_pylist([found[c] for c in sorted(found)], schema=schema)
