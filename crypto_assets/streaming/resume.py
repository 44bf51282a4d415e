"""Where a starting stream continues: from the newest commits, or by whole hours where they do not suffice.

A killed stream may have left records in Bronze that Silver lacks, and rows in Silver that Gold lacks. Commits record
what they cover, so only those rows are read: a restart costs what was missed, not what is stored.

Belongs here: reading that. Does not belong here: what is done about it (`streaming.loop`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from crypto_assets.assets.log_slices.coverage import Coverage, coverage
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.slices import HOUR, Slice, floor_hour
from crypto_assets.contracts.tables import LATEST_PRICES, RAW_PRICES, SILVER_PRICES
from crypto_assets.engine.base import Engine
from crypto_assets.storage.base import Commit
from crypto_assets.storage.ranges import batches_of, incarnation
from crypto_assets.streaming.gold import COVERED, COVERED_TOPIC, QUOTED

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column

RECENT = 60
"""Number of a table's newest commits that are read."""


def reached(engine: Engine) -> Coverage:
    """How far Bronze reaches: from its newest commits if they are of its newest hour, else from its rows.

    Kafka partitions that they do not name are absent, like those without records for long.
    """
    version = engine.store.version(RAW_PRICES.full_name)
    if version is None:
        return Coverage(None, None, {})
    newest = max(engine.store.slices(RAW_PRICES.full_name, version=version), default=None)
    commits = [c for c in _recent(engine, RAW_PRICES.full_name, version) if _covers(c, newest)]
    if not commits:
        return coverage(engine)
    topic_id = _topic_id(commits[-1])
    ends: dict[int, int] = {}
    for commit in commits:
        if _topic_id(commit) == topic_id:
            for partition, _, end in json.loads(commit.metadata["covers"]):
                ends[partition] = max(end, ends.get(partition, 0))
    until = max(datetime.fromisoformat(c.metadata["max_kafka_timestamp"]) for c in commits)
    return Coverage(until, topic_id, ends)


def _covers(commit: Commit, hour: datetime | None) -> bool:
    named = commit.metadata
    if hour is None or not batches_of(named) or not all(n in named for n in ("covers", "max_kafka_timestamp")):
        return False
    return named["slice_end"] == (hour + HOUR).isoformat()


def _topic_id(commit: Commit) -> str:
    return incarnation(batches_of(commit.metadata)[-1][0])


def _recent(engine: Engine, table: str, version: int) -> list[Commit]:
    return engine.store.commits_after(table, max(-1, version - RECENT), RECENT + 1)


def unreflected(engine: Engine, tables: Sequence[str], covered: Coverage, coins: Sequence[str]) -> pa.Table | None:
    """Rows of Silver that Gold may lack, with the columns that the newest quotes need.

    Args:
        engine: Engine whose tables are read.
        tables: Tables of bars; `gold.latest_prices` is read too.
        covered: How far Bronze reaches.
        coins: Coins of which Gold must have a newest quote.

    Returns:
        The rows; None when unknown: no recent stream of this incarnation of the topic, or a coin has no quote.
    """
    if covered.until is None:
        return None
    reflected = [_reflected(engine, table, covered.topic_id) for table in tables]
    quotes = engine.store.read_arrow(LATEST_PRICES.full_name, columns=["coin_id", "covered_offsets"]).to_pylist()
    if not quotes or not set(coins) <= {q["coin_id"] for q in quotes} or None in reflected:
        return None
    reflected += [_ends(q["covered_offsets"]) for q in quotes]
    ends = {p: min((r or {}).get(p, 0) for r in reflected) for p in covered.offsets}
    hour = floor_hour(covered.until)
    rows = engine.store.read(SILVER_PRICES.full_name, Slice(hour - 2 * HOUR, hour + 2 * HOUR))
    found = rows.where(_beyond(ends, covered.topic_id)).select(*QUOTED).toArrow()
    return found.cast(arrow_schema(SILVER_PRICES, QUOTED))


def _reflected(engine: Engine, table: str, topic_id: str | None) -> Mapping[int, int] | None:
    """End offsets that a table of bars reflects, by the newest commit that records them."""
    version = engine.store.version(table)
    for commit in reversed(_recent(engine, table, version) if version is not None else []):
        if COVERED in commit.metadata:
            return _ends(commit.metadata[COVERED]) if commit.metadata.get(COVERED_TOPIC) == topic_id else None
    return None


def _ends(text: str) -> dict[int, int]:
    return {int(p): end for p, end in json.loads(text).items()}


def _beyond(ends: Mapping[int, int], topic_id: str | None) -> Column:
    """Whether a row's record lies at or after the end of its Kafka partition, or in an unlisted one."""
    from pyspark.sql import functions as F

    known = [(F.col("partition") == p) & (F.col("offset") >= end) for p, end in ends.items()]
    others = ~F.col("partition").isin(*ends) if ends else F.lit(True)
    return (F.col("topic_id") != F.lit(topic_id)) | reduce(or_, known, others)
