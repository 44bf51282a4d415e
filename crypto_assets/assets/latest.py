"""`gold.latest_prices`: the newest quote of every coin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.assets.card import Reads, Step
from crypto_assets.assets.log_slices.coverage import Coverage, coverage
from crypto_assets.assets.publishing import publish_whole
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_hour
from crypto_assets.contracts.tables import LATEST_PRICES, RAW_PRICES
from crypto_assets.engine.base import Engine, Result, StepInputs
from crypto_assets.storage.staging import loaded
from crypto_assets.transforms.latest import latest_prices

if TYPE_CHECKING:
    import pyarrow as pa

LOOKS = (2 * HOUR, 2 * DAY, 365 * DAY)
"""Search spans for a coin's newest quote: nearly always the first finds them all."""

VOLATILE = ("refreshed_at", "covered_until", "covered_offsets", "age_s")


@Step("gold_latest_prices", [LATEST_PRICES], reads=[Reads("silver/prices")], moved_by="refresh", role="transform")
def work(engine: Engine, _keys: Sequence[Any], inputs: StepInputs) -> Result:
    """Make `gold.latest_prices` show the newest quote of every active coin.

    Coverage is read before Silver, so that the table never claims offsets that its prices do not reflect. A refresh
    that read an older state than the stored one keeps the stored row: the table does not go backwards.
    """
    covered = coverage(engine)
    rows = _newest(engine, inputs, covered)
    done = publish_whole(engine, LATEST_PRICES, inputs, rows, volatile=VOLATILE)
    if rows.num_rows:
        newest = max(rows.select(["refreshed_at", "covered_offsets"]).to_pylist(), key=lambda r: r["refreshed_at"])
        until = max(rows.column("covered_until").to_pylist())
        done.metadata |= {"covered_offsets": newest["covered_offsets"], "covered_until": until}
    return Result({LATEST_PRICES.full_name: done})


def _newest(engine: Engine, inputs: StepInputs, covered: Coverage) -> pa.Table:
    import pyarrow as pa

    schema = arrow_schema(LATEST_PRICES)
    if covered.until is None:
        return schema.empty_table()
    wanted = {c.coin_id for c in inputs.coins.active_at(inputs.now)}
    stored = engine.store.read_arrow(LATEST_PRICES.full_name).to_pylist()
    offsets = _with_silent_partitions(engine, covered, stored)
    found: dict[str, dict[str, Any]] = {}
    end = floor_hour(covered.until + timedelta(minutes=5)) + HOUR
    for look in LOOKS:
        slice_ = Slice(max(floor_hour(end - look), inputs.partitions_start - DAY), end)
        silver = engine.store.read("silver.prices", slice_)
        frame = latest_prices(silver, covered.until, json.dumps(offsets, sort_keys=True), inputs.now)
        rows = loaded(frame).to_pylist()
        found |= {r["coin_id"]: r for r in rows if r["coin_id"] in wanted and r["coin_id"] not in found}
        if wanted <= set(found) or slice_.start <= inputs.partitions_start:
            break
    for old in stored:
        mine = found.get(old["coin_id"])
        if mine is not None and old["last_updated_at"] > mine["last_updated_at"]:
            found[old["coin_id"]] = old
    return pa.Table.from_pylist([found[c] for c in sorted(found)], schema=schema)


def _with_silent_partitions(engine: Engine, covered: Coverage, stored: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """End offsets, with those of partitions without recent records carried over from the stored rows.

    Nothing is carried over from another incarnation of the topic, where offsets restarted.
    """
    newest = max(stored, key=lambda r: r["refreshed_at"], default=None)
    before = {int(p): int(end) for p, end in json.loads(newest["covered_offsets"]).items()} if newest else {}
    if newest is None or before.keys() <= covered.offsets.keys():
        return dict(covered.offsets)
    until = newest["covered_until"]
    # The record at those offsets identifies their incarnation; it never lies in an hour before its own.
    where = (
        f"arrival_hour >= '{floor_hour(until):%Y-%m-%dT%H:%M:%SZ}' "
        f"AND kafka_timestamp = '{until:%Y-%m-%dT%H:%M:%S.%fZ}'"
    )
    reached = engine.store.read_arrow(RAW_PRICES.full_name, columns=["topic_id"], where=where)
    same = covered.topic_id in reached.column("topic_id").to_pylist()
    return (before if same else {}) | covered.offsets
