"""Housekeeping of an engine's tables, one after the other; a failure does not stop the rest.

Belongs here: the list of parts and their results as text. Does not belong here: compaction itself
(`DeltaStore.maintain`), and other housekeeping (`orchestration.maintenance`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import DAY, HOUR, floor_hour
from crypto_assets.contracts.tables import LATEST_PRICES, TABLES
from crypto_assets.engine.base import Engine, Result, StepInputs, TableResult
from crypto_assets.storage.store import DeltaStore

DRY_RUN = "dry_run"
Part = tuple[str, Callable[[], str]]
Row = dict[str, Any]


def work(engine: Engine, partition_keys: Sequence[Any], inputs: StepInputs, *, mode: Sequence[str] = ()) -> Result:
    """Maintain every existing table of the engine's store.

    Args:
        engine: Engine whose store is maintained.
        partition_keys: Not used: tables are maintained as a whole.
        inputs: `now`.
        mode: With `DRY_RUN` in it nothing is changed.

    Returns:
        One row of `tidy` per table as its metadata; no partition is materialized.
    """
    del partition_keys
    rows = tidy(table_parts(engine.store, inputs.now, dry_run=DRY_RUN in mode))
    return Result({row["part"]: TableResult(metadata=row) for row in rows})


def table_parts(store: DeltaStore, now: datetime, *, dry_run: bool) -> list[Part]:
    """Build a part for every existing table.

    Retention counts back from the newest quote where that is earlier than `now`: a clock that is days ahead, or a home
    that was stopped or restored, costs no rows.

    Args:
        store: Tables.
        now: Present time (UTC). Hours before the start of the previous one are closed.
        dry_run: Change nothing.
    """
    newest = cache(lambda: _newest_quote(store))

    def part(table: Table) -> str:
        as_of, note = (now, "") if table.retention_days is None else _counted_from(newest(), now)
        done = store.maintain(table.full_name, as_of=as_of, closed_before=floor_hour(now) - HOUR, dry_run=dry_run)
        return _counts(done) + note

    return [(name, lambda table=table: part(table)) for name, table in TABLES.items() if store.exists(name)]


def _newest_quote(store: DeltaStore) -> datetime | None:
    """Event time of the newest quote, by the clock of the source; None without one."""
    if not store.exists(LATEST_PRICES.full_name):
        return None
    times = store.read_arrow(LATEST_PRICES.full_name, columns=["last_updated_at"]).column(0).to_pylist()
    return max(times, default=None)


def _counted_from(newest: datetime | None, now: datetime) -> tuple[datetime | None, str]:
    """Time from which retention counts back, and what to say if it is far from the present."""
    if newest is None:
        return None, "; nothing expires before there is a quote in gold.latest_prices"
    if now - newest <= DAY:
        return min(newest, now), ""
    behind = f"{(now - newest) / DAY:,.1f} days before this machine's clock"
    return newest, f"; retention counts from the newest quote, {newest:%Y-%m-%d %H:%M}Z, {behind}"


def tidy(parts: Iterable[Part], progress: Callable[[str], None] = lambda _name: None) -> list[Row]:
    """Run every part; a failed one gets a row with its error.

    Args:
        parts: Names and functions that return a result.
        progress: Called with the name before each part.

    Returns:
        Rows of `part`, `result`, `failed`, `seconds`, in the order done.
    """
    rows = []
    for name, do in parts:
        progress(name)
        began = time.monotonic()
        failed = False
        try:
            result = do()
        except Exception as error:  # noqa: BLE001 - reported in its row; the other parts must still be done
            result, failed = f"{type(error).__name__}: {error}", True
        rows.append({"part": name, "result": result, "failed": failed, "seconds": round(time.monotonic() - began, 2)})
    return rows


def _counts(done: Mapping[str, object]) -> str:
    """Format a table's maintenance counts; zeros are left out."""
    left_out = {"exists", "version", "bytes", "log_files_before", "log_files_after"}
    texts = [
        f"{value:,} {name.replace('_', ' ')}"
        for name, value in done.items()
        if name not in left_out and isinstance(value, int) and value
    ]
    if isinstance(size := done.get("bytes"), int):
        texts.append(f"{size / 1e6:,.1f} MB")
    before, after = done.get("log_files_before"), done.get("log_files_after")
    if before is not None and after is not None:
        texts.append(f"log files {before} → {after}")
    return ", ".join(texts) or "nothing to do"
