"""Plans and submits backfills of whole days.

Belongs here: the plan (pure) and its submission to an instance. Does not belong here: printing it (`cli.backfill`).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

import dagster as dg

from crypto_assets.assets.card import Step, steps
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import Slice, floor_day, hour_keys, key_slice
from crypto_assets.dagster_private import AssetGraphSubset, AssetKeyPartitionKey, BaseAssetGraph, PartitionBackfill
from crypto_assets.errors import UsageError
from crypto_assets.source_facts import with_history

Origin = Literal["log", "history"]
DAYS_PER_CALL = 90
"""Longest range with hourly points (docs.coingecko.com, Coin Historical Chart Data within Time Range)."""


def _assets(wanted: Callable[[Step], bool]) -> tuple[str, ...]:
    return tuple(asset for step in steps() if wanted(step) for asset in step.assets)


def from_log() -> tuple[str, ...]:
    """Hourly assets rebuilt from Kafka and Bronze; the forecast ledger is insert-only."""
    return _assets(
        lambda s: (
            s.moved_by == "refresh"
            and s.grain == "hour"
            and all(isinstance(made, Table) and made.write != "merge" for made in s.makes)
        )
    )


def daily() -> tuple[str, ...]:
    """Daily assets that are rebuilt; models are not retrained."""
    return _assets(lambda s: s.restated and s.grain == "day")


@dataclass(frozen=True)
class Plan:
    """Partitions, cost and caveats of a backfill of whole days."""

    days: tuple[str, ...]
    origin: Origin
    hourly: tuple[str, ...]
    daily: tuple[str, ...]
    hours: int
    calls: int
    credits: int
    notes: tuple[str, ...]

    @property
    def partitions(self) -> int:
        """Number of partitions over all assets."""
        return len(self.hourly) * self.hours + len(self.daily) * len(self.days)


def plan(first: date, last: date, origin: Origin, *, now: datetime, start: date, coins: int, history: bool) -> Plan:
    """Plan a backfill of the UTC days first..last.

    Args:
        first: First day.
        last: Last day, inclusive.
        origin: `log` rebuilds from Kafka and Bronze; `history` fetches market_chart/range first.
        now: Present time (UTC).
        start: First day that has partitions.
        coins: Number of active coins.
        history: Whether the home's source has a past that can be fetched.

    Raises:
        ValueError: Names every day that cannot be filled, and why.
    """
    problems = []
    if last < first:
        problems.append(f"{first}..{last} is empty: write the earlier day first")
    if first < start:
        problems.append(
            f"{first} lies before the first partition, {start}, which a home keeps for ever; for older days begin a "
            f"new home with CRYPTO_ASSETS_PARTITIONS_START={first} and CRYPTO_ASSETS_HOME=<new folder>"
        )
    if last >= floor_day(now).date():
        problems.append(f"{last} has not ended; only whole days that have ended can be backfilled")
    if origin == "history" and not history:
        problems.append(f"only a home with CRYPTO_ASSETS_SOURCE={with_history()} has history to fetch; use --from log")
    if problems:
        raise UsageError("; ".join(problems))
    days = tuple(str(first + timedelta(days=i)) for i in range((last - first).days + 1))
    notes = ["models are not retrained and forecasts are not rewritten"]
    calls = 0
    hourly, days_of = from_log(), daily()
    if origin == "history":
        hourly = _assets(lambda s: s.restated and s.grain == "hour")
        days_of = ("bronze/market_history", *daily())
        calls = coins * math.ceil(len(days) / DAYS_PER_CALL)
        notes.append("points every hour: fills bars_1h and bars_1d; 5-minute bars, features and anomalies stay empty")
    else:
        notes.append(
            "days whose records Kafka has dropped and Bronze never read stay empty: see `crypto-assets status`"
        )
    return Plan(days, origin, hourly, days_of, 24 * len(days), calls, calls, tuple(notes))


def subset(graph: BaseAssetGraph, chosen: Plan) -> AssetGraphSubset:
    """The plan's partitions as a Dagster subset."""
    span = Slice(key_slice(chosen.days[0], "day").start, key_slice(chosen.days[-1], "day").end)
    pairs = {
        AssetKeyPartitionKey(dg.AssetKey(asset.split("/")), key) for asset in chosen.hourly for key in hour_keys(span)
    } | {AssetKeyPartitionKey(dg.AssetKey(asset.split("/")), key) for asset in chosen.daily for key in chosen.days}
    return AssetGraphSubset.from_asset_partition_set(pairs, graph)


def submit(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, chosen: Plan, *, now: datetime, tags: dict[str, str]
) -> str:
    """Submit the backfill to the instance; the daemon started by `up` or `ui` runs it.

    Returns:
        The backfill's id.
    """
    backfill_id = uuid.uuid4().hex[:8]
    instance.add_backfill(
        PartitionBackfill.from_asset_graph_subset(
            backfill_id=backfill_id,
            backfill_timestamp=now.timestamp(),
            asset_graph_subset=subset(graph, chosen),
            tags=tags,
            dynamic_partitions_store=instance,
            title=f"backfill {_span(chosen.days)} from {chosen.origin}",
            description=None,
            run_config=None,
        )
    )
    return backfill_id


def parse_days(text: str) -> tuple[date, date]:
    """Parse `2024-05-01` or `2024-05-01..2024-05-07` into first and last day.

    Raises:
        ValueError: The text is neither.
    """
    first, dots, last = text.partition("..")
    try:
        return date.fromisoformat(first), date.fromisoformat(last if dots else first)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a day (2024-05-01) or a range of days (2024-05-01..2024-05-07)") from error


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]}..{days[-1]}"
