"""How far in time the lake reaches: the clock by which windows are closed.

Belongs here: `covered_until`. Does not belong here: offsets and ranges (`steps.bronze`).
"""

from __future__ import annotations

from datetime import datetime

from crypto_assets.compute.base import Engine
from crypto_assets.contracts.slices import HOUR


def covered_until(engine: Engine, as_of: datetime | None = None) -> datetime | None:
    """Highest broker timestamp that Bronze covers, at most `as_of` (UTC).

    In a lake that holds only history it is the newest time of fetching. None = nothing has been read yet.
    """
    found = _newest_record(engine) or _newest_reply(engine)
    if found is None or as_of is None:
        return found
    return min(found, as_of)


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
