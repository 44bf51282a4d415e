"""Recomputes bars of touched windows and the newest quotes without rereading whole hours.

Belongs here: which windows must be recomputed, and merging them into the stored ones. Does not belong here: how a bar
is computed (`transforms.bars`), and when (`streaming.loop`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.assets import bars as bars_step
from crypto_assets.assets import latest as latest_step
from crypto_assets.assets.log_slices.coverage import Coverage
from crypto_assets.assets.publishing import publish, publish_whole
from crypto_assets.contracts.arrow import arrow_schema, compute, conform
from crypto_assets.contracts.slices import HOUR, Slice, floor_hour, hour_key
from crypto_assets.contracts.tables import LATEST_PRICES, SILVER_PRICES, TABLES
from crypto_assets.engine.base import Engine, StepInputs, TableResult
from crypto_assets.storage.store import DeltaStore
from crypto_assets.transforms.bars import GRACE_S, SECONDS, bars
from crypto_assets.transforms.latest import latest_prices

if TYPE_CHECKING:
    import pyarrow as pa

COVERED = "covered_offsets"
"""Commit metadata of bars: JSON of the end offsets, by Kafka partition, that its rows reflect."""
COVERED_TOPIC = "covered_topic"
"""Commit metadata of bars: the topic incarnation of those offsets."""

QUOTED = [c for c in LATEST_PRICES.column_names if c not in latest_step.VOLATILE]
"""Columns of Silver that the newest quotes need."""

Span = tuple[datetime, datetime]
"""Event times [first, end)."""


@dataclass
class RecentRows:
    """Caches the Gold rows this process wrote last; another version of the table invalidates them."""

    rows: dict[str, tuple[Slice | None, int, pa.Table]] = field(default_factory=dict)

    def read(self, store: DeltaStore, table: str, slice_: Slice | None) -> pa.Table:
        """Stored rows of a slice (None: of the whole table)."""
        known = self.rows.get(table)
        if known is not None and known[0] == slice_ and known[1] == store.version(table):
            return known[2]
        return store.read_arrow(table, slice_)

    def wrote(self, table: str, slice_: Slice | None, version: object, rows: pa.Table) -> None:
        """Cache a slice's rows at a table version."""
        if isinstance(version, int):
            self.rows[table] = (slice_, version, rows)


def by_hour(spans: Sequence[Span]) -> dict[datetime, Span]:
    """Spans cut at hours, and joined within each hour."""
    found: dict[datetime, Span] = {}
    for first, end in spans:
        hour = floor_hour(first)
        while hour < end:
            low, high = max(first, hour), min(end, hour + HOUR)
            before = found.get(hour, (low, high))
            found[hour] = (min(before[0], low), max(before[1], high))
            hour += HOUR
    return found


def refresh_bars(
    engine: Engine,
    name: str,
    touched: Mapping[datetime, Span | None],
    inputs: StepInputs,
    covered: Coverage,
    recent: RecentRows,
) -> TableResult:
    """Recompute the windows of hours that samples touched, and those that have meanwhile closed.

    A bar's closing depends on how far Bronze reaches, so windows stored as open are recomputed once they can close. All
    others are kept as stored.

    Args:
        engine: Engine whose store is read and written.
        name: One of the hourly tables of bars.
        touched: Event times of new samples by hour; None = only windows that may have closed.
        inputs: Step inputs.
        covered: Minimum offsets that Silver reflects.
        recent: Cache of rows written last.

    Raises:
        AuditFailed: A blocking rule failed; nothing of that slice was committed.
    """
    as_of = covered.until
    assert as_of is not None
    width = bars_step.HOURLY[name]
    contract, length = TABLES[name], timedelta(seconds=SECONDS[width])
    built: list[tuple[Slice, pa.Table]] = []

    def build(slice_: Slice) -> pa.Table:
        import pyarrow as pa
        from pyspark.sql import functions as F

        stored = recent.read(engine.store, name, slice_)
        starts, ends, closed = (stored.column(n).to_pylist() for n in ("window_start", "window_end", "is_closed"))
        due = timedelta(seconds=GRACE_S)
        stale = [s for s, e, c in zip(starts, ends, closed, strict=True) if not c and e + due <= as_of]
        for hour in slice_.hours():
            span = touched.get(hour)
            if span is not None:
                first, end = span
                stale += [_floor(first, length), _floor(end - timedelta(microseconds=1), length)]
        if not stale:
            built[:] = [(slice_, stored)]
            return stored
        low, high = min(stale), max(stale) + length
        event = F.col("last_updated_at")
        samples = engine.store.read(SILVER_PRICES.full_name, slice_)
        samples = samples.where((event >= F.lit(low)) & (event < F.lit(high)))
        made = conform(contract, bars(samples, width, as_of).toArrow())
        kept = stored.filter(pa.array([not low <= s < high for s in starts], pa.bool_()))
        built[:] = [(slice_, pa.concat_tables([kept, made]))]
        return built[0][1]

    done = publish(
        engine,
        contract,
        [hour_key(h) for h in touched],
        inputs,
        build,
        input_retention_days=SILVER_PRICES.retention_days,
        why_empty="Silver holds no sample of this partition",
        commit_metadata={COVERED: _json(covered), COVERED_TOPIC: str(covered.topic_id)},
    )
    for slice_, rows in built:  # of the newest slice alone, which was written last
        recent.wrote(name, slice_, done.metadata["delta_version_after"], rows)
    return done


def _floor(moment: datetime, length: timedelta) -> datetime:
    hour = floor_hour(moment)
    return hour + (moment - hour) // length * length


def refresh_latest(
    engine: Engine,
    rows: pa.Table,
    inputs: StepInputs,
    covered: Coverage,
    recent: RecentRows,
) -> TableResult:
    """Update `gold.latest_prices` with new rows of Silver.

    Args:
        engine: Engine whose store is read and written.
        rows: Rows of Silver, new since the table was last written.
        inputs: Step inputs.
        covered: Minimum offsets that Silver reflects.
        recent: Cache of rows written last.
    """
    import pyarrow as pa

    assert covered.until is not None
    stored = recent.read(engine.store, LATEST_PRICES.full_name, None)
    names = QUOTED
    wanted = {c.coin_id for c in inputs.coins.active_at(inputs.now)}
    newest: dict[str, dict[str, Any]] = {}
    for row in [*stored.select(names).to_pylist(), *_newest(rows.select(names)).to_pylist()]:
        best = newest.get(row["coin_id"])
        if row["coin_id"] in wanted and (best is None or row["last_updated_at"] > best["last_updated_at"]):
            newest[row["coin_id"]] = row
    schema = arrow_schema(SILVER_PRICES, names)
    quotes = pa.Table.from_pylist([newest[c] for c in sorted(newest)], schema=schema)
    frame = latest_prices(engine.frame(quotes), covered.until, _json(covered), inputs.now)
    made = conform(LATEST_PRICES, frame.toArrow())
    done = publish_whole(engine, LATEST_PRICES, inputs, made, volatile=latest_step.VOLATILE)
    if done.partitions[None].metadata["written"]:
        recent.wrote(LATEST_PRICES.full_name, None, done.metadata["delta_version_after"], made)
    return done


def _json(covered: Coverage) -> str:
    return json.dumps({str(p): end for p, end in sorted(covered.offsets.items())})


def _newest(rows: pa.Table) -> pa.Table:
    """The row with the latest event of each coin."""
    import pyarrow as pa

    order = compute().sort_indices(rows, sort_keys=[("last_updated_at", "descending")])
    first: dict[str, int] = {}
    for row, coin_id in zip(order.to_pylist(), rows.column("coin_id").take(order).to_pylist(), strict=True):
        first.setdefault(coin_id, row)
    return rows.take(pa.array(sorted(first.values()), pa.int64()))
