"""Dagster partitions and partition mappings of every asset.

Belongs here: partition definitions built from the start date, and mappings for the reads that cards declare. Does not
belong here: key arithmetic (`contracts.slices`). Hourly partitions from 2024-01-01 reach Dagster's limit of 100,000
keys in 2035.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import dagster as dg

import crypto_assets.dagster_notices  # noqa: F401  (before the mappings below, which are beta)
from crypto_assets.assets.card import Reads
from crypto_assets.contracts.slices import DAY_FORMAT, HOUR_FORMAT
from crypto_assets.errors import UsageError

LIMIT = 100_000
"""Keys of one asset that Dagster's UI and backfill daemon handle (documented bound)."""


@dataclass(frozen=True)
class Partitions:
    """Partition definitions: hourly ones include the running hour, daily ones only days that have ended."""

    hourly: dg.HourlyPartitionsDefinition
    daily: dg.DailyPartitionsDefinition

    @classmethod
    def since(cls, start: date) -> Partitions:
        """Build partitions that start at `start` (a UTC day).

        Raises:
            ValueError: Hourly keys would pass `LIMIT` within a year of now; names the setting that moves it.
        """
        hourly = dg.HourlyPartitionsDefinition(
            start_date=start.strftime(HOUR_FORMAT.replace("%H:%M", "00:00")), end_offset=1, timezone="UTC"
        )
        if hourly.get_num_partitions() > LIMIT - 24 * 366:
            raise UsageError(
                f"hourly partitions since {start} will pass {LIMIT:,} within a year; choose a later first day with "
                "CRYPTO_ASSETS_PARTITIONS_START in a new home"
            )
        return cls(hourly, dg.DailyPartitionsDefinition(start_date=start.strftime(DAY_FORMAT), timezone="UTC"))

    def of(self, grain: str | None) -> dg.TimeWindowPartitionsDefinition | None:
        """The definition for a contract's grain."""
        return {"hour": self.hourly, "day": self.daily, None: None}[grain]


def mapping(reads: Reads) -> dg.PartitionMapping | None:
    """Dagster's mapping for a card's read; None = the default, partition by partition."""
    if reads.day_before:
        # An hour's mapping counts hours: H - 24 h lies in the day before, whose model is the newest that may serve H.
        return dg.TimeWindowPartitionMapping(
            start_offset=-24, end_offset=-24, allow_nonexistent_upstream_partitions=True
        )
    if reads.back or reads.if_there:
        return dg.TimeWindowPartitionMapping(start_offset=-reads.back, allow_nonexistent_upstream_partitions=True)
    return None
