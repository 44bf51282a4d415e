"""Verdict on racing writers, computed by none of the code that they run: DuckDB over the files that the log lists.

Belongs here: doubled, lost and foreign records, broken chains, stale overwrites, commits by who made them. Does not
belong here: the race itself (`bench.races`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.verify import delta

if TYPE_CHECKING:
    import duckdb

BRONZE, SILVER = "bronze.raw_prices", "silver.prices"


@dataclass
class Verdict:
    """Counts of what is wrong, with a few examples, and of what was stored.

    Args:
        stored: Records in Bronze.
        wrong: How many, by what it is: all must be 0.
        examples: Some of each.
    """

    stored: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, what: str, found: Collection[Any]) -> None:
        """Count things that must not be."""
        self.wrong[what] = len(found)
        if found:
            self.examples[what] = sorted(found, key=repr)[:5]


def commits(lake: Path, table: str) -> list[dict[str, Any]]:
    """What the commits of a table say of themselves, oldest first: fields of delta-rs, user metadata of Spark."""
    schema, name = table.split(".")
    found = []
    for file in sorted((lake / schema / name / "_delta_log").glob("[0-9]*[0-9].json")):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        info = next((line["commitInfo"] for line in lines if "commitInfo" in line), {})
        try:
            own = json.loads(info.get("userMetadata") or "{}")
        except json.JSONDecodeError:
            own = {}
        found.append({**info, **own})
    return found


def judge(lake: Path, forecasts_lake: Path, forecasts: str, records: Collection[str], slots: int) -> Verdict:
    """Judge the tables.

    Args:
        lake: Root of Bronze and Silver.
        forecasts_lake: Root of the forecasts.
        forecasts: Their table.
        records: Keys of all records that the log confirmed, each of one record.
        slots: Slots of which a finished insert had a forecast: from the first on, without a hole.
    """
    verdict, connection = Verdict(), delta.fresh_connection()
    try:
        _bronze(verdict, connection, lake, records)
        _forecasts(verdict, connection, forecasts_lake, forecasts, slots)
    finally:
        connection.close()
    _silver(verdict, lake)
    return verdict


def _view(connection: duckdb.DuckDBPyConnection, lake: Path, table: str) -> None:
    schema, name = table.split(".")
    snapshot = delta.read_snapshot(lake / schema / name)
    assert snapshot is not None, f"{table} was never written"
    delta.create_view(connection, table, lake / schema / name, snapshot)


def _bronze(verdict: Verdict, connection: duckdb.DuckDBPyConnection, lake: Path, records: Collection[str]) -> None:
    _view(connection, lake, BRONZE)

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return connection.execute(sql).fetchall()

    keys = Counter(r[0] for r in rows(f"SELECT message_key FROM \"{BRONZE}\" WHERE kind = 'record'"))
    verdict.stored = sum(keys.values())
    verdict.add(
        "doubled offsets",
        rows(f'SELECT topic_id, "partition", "offset" FROM "{BRONZE}" GROUP BY ALL HAVING count(*) > 1'),
    )
    verdict.add("doubled records", [k for k, n in keys.items() if n > 1])
    wanted = set(records)
    verdict.add("lost records", wanted - keys.keys())
    verdict.add("records that were never produced", keys.keys() - wanted)
    # The ranges of a partition follow each other from 0, over all hours and both kinds of writers.
    breaks, end = [], {}
    order = f'SELECT DISTINCT "partition", range_start, range_end FROM "{BRONZE}" ORDER BY 1, 2, 3'
    for partition, start, stop in rows(order):
        if start != end.get(partition, 0):
            breaks.append((partition, end.get(partition, 0), start))
        end[partition] = stop
    verdict.add("broken chains of ranges", breaks)
    # Of an hour the sequence numbers are 1, 2, 3, ..., each of one batch, and later ones cover later offsets.
    batches = rows(f'SELECT DISTINCT arrival_hour, seq, batch_id FROM "{BRONZE}" ORDER BY 1, 2')
    last: dict[Any, int] = {}
    gaps = []
    for hour, seq, _ in batches:
        if seq != last.get(hour, 0) + 1:
            gaps.append((hour, last.get(hour, 0), seq))
        last[hour] = seq
    verdict.add("broken chains of sequence numbers", gaps)
    backwards = f"""
        SELECT one.arrival_hour, one.seq, other.seq
        FROM (SELECT DISTINCT arrival_hour, "partition", seq, range_start FROM "{BRONZE}") AS one
        JOIN (SELECT DISTINCT arrival_hour, "partition", seq, range_start FROM "{BRONZE}") AS other
        ON one.arrival_hour = other.arrival_hour AND one."partition" = other."partition"
        AND one.seq < other.seq AND one.range_start >= other.range_start"""
    verdict.add("batches out of order", rows(backwards))


def _forecasts(verdict: Verdict, connection: duckdb.DuckDBPyConnection, lake: Path, table: str, slots: int) -> None:
    if not slots:
        return
    _view(connection, lake, table)
    stored = [r[0] for r in connection.execute(f'SELECT window_end FROM "{table}"').fetchall()]
    verdict.add("doubled forecasts", [k for k, n in Counter(stored).items() if n > 1])
    first = min(stored)
    have = {round((t - first).total_seconds() / 300) for t in stored}
    verdict.add("lost forecasts", set(range(max(slots, max(have) + 1))) - have)


def _silver(verdict: Verdict, lake: Path) -> None:
    """A write that read older Bronze than an earlier write of the same slice has overwritten newer rows."""
    newest: dict[tuple[str, str], int] = {}
    stale = []
    for version, commit in enumerate(commits(lake, SILVER)):
        if "read_versions" not in commit:
            continue
        read = json.loads(commit["read_versions"]).get(BRONZE, -1)
        slice_ = (commit["slice_start"], commit["slice_end"])
        if read < newest.get(slice_, -1):
            stale.append((version, *slice_, read, newest[slice_]))
        newest[slice_] = max(read, newest.get(slice_, -1))
    verdict.add("stale slices", stale)
