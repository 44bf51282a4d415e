"""How far the lake reaches: in time (the clock that closes windows) and in offsets.

Does not belong here: reading the log itself (`assets.bronze`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.contracts.arrow import compute
from crypto_assets.contracts.clock import SKEW
from crypto_assets.contracts.messages import CLOCK_SKEW_LIMIT_S
from crypto_assets.contracts.slices import HOUR, floor_hour
from crypto_assets.engine.base import Engine

if TYPE_CHECKING:
    import pyarrow as pa


def covered_until(engine: Engine, as_of: datetime | None = None) -> datetime | None:
    """Highest broker timestamp that Bronze covers, at most `as_of` (UTC).

    For a lake that holds only history, the newest time of fetching. None = nothing has been read yet.
    """
    found = _newest_record(engine) or _newest_reply(engine)
    if found is None or as_of is None:
        return found
    return min(found, as_of)


@dataclass(frozen=True)
class Coverage:
    """How far Bronze reaches.

    Args:
        until: Highest broker timestamp (UTC); None = nothing has been read yet.
        topic_id: Incarnation of the topic that the newest record came from; None = no record.
        offsets: End offset read of that incarnation by partition; partitions without a record since the hour before the
            newest one are absent.
    """

    until: datetime | None
    topic_id: str | None
    offsets: dict[int, int]


def coverage(engine: Engine) -> Coverage:
    """Present coverage, read from Bronze's newest two arrival hours."""
    table = "bronze.raw_prices"
    until = covered_until(engine)
    version = engine.store.version(table)
    if version is None or until is None:
        return Coverage(until, None, {})
    where = f"arrival_hour >= '{floor_hour(until) - HOUR:%Y-%m-%dT%H:%M:%SZ}'"
    columns = ["topic_id", "partition", "range_end", "kafka_timestamp", "bronze_ingested_at"]
    rows = engine.store.read_arrow(table, columns=columns, where=where, version=version)
    rows = rows.set_column(3, "kafka_timestamp", plausible_times(rows))
    ends = rows.group_by(columns[:2]).aggregate([(name, "max") for name in columns[2:]]).to_pylist()
    stamped = [r for r in ends if r["kafka_timestamp_max"] is not None]
    if not stamped:
        return Coverage(until, None, {})
    # A topic re-created within the hour leaves both incarnations in it.
    topic_id = max(stamped, key=lambda r: (r["kafka_timestamp_max"], r["bronze_ingested_at_max"]))["topic_id"]
    return Coverage(until, topic_id, {r["partition"]: r["range_end_max"] for r in ends if r["topic_id"] == topic_id})


def _newest_record(engine: Engine) -> datetime | None:
    """Newest record's time from the newest arrival hours: a record never lies in an hour before its timestamp."""
    table = "bronze.raw_prices"
    version = engine.store.version(table)
    hours = [] if version is None else engine.store.slices(table, version=version)
    if not hours:
        return None
    where = f"arrival_hour >= '{hours[-1] - HOUR:%Y-%m-%dT%H:%M:%SZ}' AND kind = 'record'"
    rows = engine.store.read_arrow(
        table, columns=["kafka_timestamp", "bronze_ingested_at"], where=where, version=version
    )
    found = compute().max(plausible_times(rows)).as_py()
    if found is None:  # the newest hours hold only gaps, or records stamped ahead
        from pyspark.sql import functions as F

        frame = engine.store.read(table, version=version)
        stamped = F.col("kafka_timestamp") <= F.col("bronze_ingested_at") + F.expr(
            f"INTERVAL {CLOCK_SKEW_LIMIT_S} SECONDS"
        )
        found = frame.where(stamped).agg(F.max("kafka_timestamp").alias("t")).toArrow().column("t")[0].as_py()
    return found


def plausible_times(rows: pa.Table) -> pa.ChunkedArray:
    """Broker times of rows; null where a row was stored before its stated arrival: a clock was ahead.

    The answer never changes later, so covered times never run ahead of the records behind them.
    """
    pc = compute()
    stamped = rows.column("kafka_timestamp")
    return pc.if_else(pc.less_equal(stamped, pc.add(rows.column("bronze_ingested_at"), SKEW)), stamped, None)


def _newest_reply(engine: Engine) -> datetime | None:
    from pyspark.sql import functions as F

    frame = engine.store.read("bronze.market_history")
    return frame.agg(F.max("fetched_at").alias("t")).toArrow().column("t")[0].as_py()
