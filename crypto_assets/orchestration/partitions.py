"""Dagster partitions and partition mappings of every asset.

Belongs here: partition definitions built from the start date, and the look-backs that assets declare. Keys' arithmetic
is in `contracts.slices`. Hourly partitions from 2024-01-01 reach Dagster's limit of 100,000 keys in 2035.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import dagster as dg

import crypto_assets.dagster_notices  # noqa: F401  (before the mappings below, which are beta)
from crypto_assets.contracts.slices import DAY_FORMAT, HOUR_FORMAT
from crypto_assets.errors import UsageError

LIMIT = 100_000
"""Keys of one asset that Dagster's UI and backfill daemon handle (documented bound)."""


@dataclass(frozen=True)
class Partitions:
    """HOURLY includes the running hour; DAILY only days that have ended."""

    hourly: dg.HourlyPartitionsDefinition
    daily: dg.DailyPartitionsDefinition

    @classmethod
    def since(cls, start: date) -> Partitions:
        """Partitions from `start` (a UTC day) on.

        Raises:
            ValueError: Hourly keys would pass `LIMIT` within a year of now; said with the setting that moves it.
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


def look_back(hours_or_days: int) -> dg.TimeWindowPartitionMapping:
    """A partition reads its own window and so many before it."""
    return dg.TimeWindowPartitionMapping(
        start_offset=-hours_or_days, end_offset=0, allow_nonexistent_upstream_partitions=True
    )


FEATURES_LOOK_BACK = look_back(26)
"""features[H] reads bars_5m of [H - 26 h, H + 1 h)."""

ANOMALY_MODEL_LOOK_BACK = look_back(34)
"""anomaly_model[D] fits on 7 days and calibrates on 28 days of out-of-sample scores after them, D the last."""

PRICE_MODEL_LOOK_BACK = look_back(55)
"""price_model[D] needs 42 usable days and looks for them in 56, D the last."""

SERVING_MODEL = dg.TimeWindowPartitionMapping(
    start_offset=-24, end_offset=-24, allow_nonexistent_upstream_partitions=True
)
"""Scoring hour H uses a model trained before the start of H's day: model[D] serves from D + 1 00:00.

The mapping counts hours: H - 24 h lies in the day before, which is the newest model that may serve H."""

DAY_IF_THERE = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
"""An hour reads the day that holds it, where that day has a partition already (the running day has none)."""
