"""How far the lake reaches, in time (the clock by which windows are closed) and in offsets.

Does not belong here: reading the log itself (`steps.bronze`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from crypto_assets.compute.base import Engine
from crypto_assets.contracts.slices import HOUR, floor_hour


def covered_until(engine: Engine, as_of: datetime | None = None) -> datetime | None:
    """Highest broker timestamp that Bronze covers, at most `as_of` (UTC).

    In a lake that holds only history it is the newest time of fetching. None = nothing has been read yet.
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
        offsets: By partition, the end of what has been read of that incarnation. A partition that has had no record
            since the hour before the newest one is absent.
    """

    until: datetime | None
    topic_id: str | None
    offsets: dict[int, int]


def coverage(engine: Engine) -> Coverage:
    """How far Bronze reaches now, read from its newest two arrival hours."""
    table = "bronze.raw_prices"
    until = covered_until(engine)
    version = engine.store.version(table)
    if version is None or until is None:
        return Coverage(until, None, {})
    where = f"arrival_hour >= '{floor_hour(until) - HOUR:%Y-%m-%dT%H:%M:%SZ}'"
    columns = ["topic_id", "partition", "range_end", "kafka_timestamp", "bronze_ingested_at"]
    rows = engine.store.read_arrow(table, columns=columns, where=where, version=version)
    ends = rows.group_by(columns[:2]).aggregate([(name, "max") for name in columns[2:]]).to_pylist()
    stamped = [r for r in ends if r["kafka_timestamp_max"] is not None]
    if not stamped:
        return Coverage(until, None, {})
    # A topic re-created within the hour leaves both incarnations in it.
    topic_id = max(stamped, key=lambda r: (r["kafka_timestamp_max"], r["bronze_ingested_at_max"]))["topic_id"]
    return Coverage(until, topic_id, {r["partition"]: r["range_end_max"] for r in ends if r["topic_id"] == topic_id})


def _newest_record(engine: Engine) -> datetime | None:
    """Only the newest arrival hours are read: a record never lies in an hour before that of its timestamp."""
    from pyspark.sql import functions as F

    table = "bronze.raw_prices"
    version = engine.store.version(table)
    if version is None:
        return None
    frame = engine.store.read(table, version=version)
    newest = frame.agg(F.max("arrival_hour").alias("hour")).toArrow().column("hour")[0].as_py()
    if newest is None:
        return None
    where = f"arrival_hour >= '{newest - HOUR:%Y-%m-%dT%H:%M:%SZ}' AND kind = 'record'"
    stamps = engine.store.read_arrow(table, columns=["kafka_timestamp"], where=where, version=version)
    if not stamps.num_rows:  # the newest hours hold nothing but gaps
        return frame.agg(F.max("kafka_timestamp").alias("t")).toArrow().column("t")[0].as_py()
    return max(stamps.column(0).to_pylist())


def _newest_reply(engine: Engine) -> datetime | None:
    from pyspark.sql import functions as F

    frame = engine.store.read("bronze.market_history")
    return frame.agg(F.max("fetched_at").alias("t")).toArrow().column("t")[0].as_py()
