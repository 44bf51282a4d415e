"""Bars: OHLC of polled samples by window, a function of Silver alone.

Belongs here: the one transform behind `gold.bars_1m`, `bars_5m`, `bars_1h` and `bars_1d`. Does not belong here: returns
or anything that needs another window (`transforms.features`), reading or writing tables.

Aggregates are exact, so that results depend neither on the order of rows nor on the number of threads: sums are of
decimals, and doubles appear only in what is computed from finished sums.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from crypto_assets.contracts.tables import TABLES
from crypto_assets.transforms.parse import day_of, hour_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

Width = Literal["1m", "5m", "1h", "1d"]

SECONDS: dict[str, int] = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86400}
GRANULARITIES = ("tick", "5m", "1h", "1d")
"""Kinds of samples, finest first."""

FEEDS: dict[str, tuple[str, ...]] = {
    "1m": ("tick", "5m"),
    "5m": ("tick", "5m"),
    "1h": ("tick", "5m", "1h"),
    "1d": GRANULARITIES,
}
"""Samples used by each width: a point is unknown in windows finer than its spacing, except 5-minute points, which count
as ordinary samples."""

GRACE_S = 60
"""Seconds after its end at which a window counts as closed: the allowed clock skew of records."""

COMPLETE_TENTHS = 8
"""Tenths of its expected samples from which a window is complete."""

_FINISHED = ("high", "low", "price_avg", "sample_count", "first_event_at", "last_event_at", "available_at", "_rank")
"""Aggregates of the first pass over a window's samples."""

_SQUARES = "decimal(38,27)"
"""Type of squared relative deviations: a sum over n samples is at most n squared, so 300,000 samples fit, and a
deviation of 3e-14 of the mean still counts."""


def bars(silver: DataFrame, width: Width, as_of: datetime | Column | None) -> DataFrame:
    """Bars of one width, one row per coin and window that has a sample.

    open, high, low, close are the first, highest, lowest and last sample by last_updated_at; volume and capitalisation
    those of the last sample, null when it has none. price_avg is the mean, price_vol the sample standard deviation (n -
    1), both in USD. expected_count is the window's length by the cadence of its last sample, at least 1; it is null
    when the window holds history or that cadence is unknown. A window of polled samples with unknown cadence is never
    complete; one with history is complete once closed.

    Args:
        silver: Rows of `silver.prices` that cover the windows completely.
        width: Width of the windows; they begin at multiples of it since 1970-01-01T00:00Z.
        as_of: Highest broker timestamp that Bronze covers (UTC), or a column that is one value for all rows; None =
            nothing is known to be closed.

    Returns:
        Columns and types of `gold.bars_<width>`.
    """
    from pyspark.sql import functions as F

    key = ["coin_id", "window_start"]
    second = F.unix_seconds(F.col("last_updated_at"))
    start = F.timestamp_seconds(second - F.pmod(second, F.lit(SECONDS[width])))
    samples = silver.where(F.col("granularity").isin(*FEEDS[width])).withColumn("window_start", start)
    windows = samples.groupBy(*key).agg(
        F.max("price_usd").alias("high"),
        F.min("price_usd").alias("low"),
        (F.sum("price_usd").cast("double") / F.count("*")).alias("price_avg"),
        F.count("*").alias("sample_count"),
        F.min("last_updated_at").alias("first_event_at"),
        F.max("last_updated_at").alias("last_event_at"),
        F.max("available_at").alias("available_at"),
        F.max(_rank()).alias("_rank"),
    )
    # A second pass: deviations use the final mean, and it is cheaper than min_by and max_by on many windows. Windows
    # stand first, since Sail holds the first side of a join in memory.
    seen = windows.join(
        samples.select(*key, "last_updated_at", "price_usd", "volume_24h_usd", "market_cap_usd", "symbol", "cadence_s"),
        key,
    )
    is_first = F.col("last_updated_at") == F.col("first_event_at")
    is_last = F.col("last_updated_at") == F.col("last_event_at")
    deviation = F.col("price_usd").cast("double") / F.col("price_avg") - 1
    finished = seen.groupBy(*key).agg(
        *[F.max(n).alias(n) for n in _FINISHED],  # one value a window
        F.max(F.when(is_first, F.col("price_usd"))).alias("open"),
        F.max(F.when(is_last, F.col("price_usd"))).alias("close"),
        *[F.max(F.when(is_last, F.col(n))).alias(n) for n in ("volume_24h_usd", "market_cap_usd", "symbol")],
        F.max(F.when(is_last, F.col("cadence_s"))).alias("_cadence"),
        F.sum((deviation * deviation).cast(_SQUARES)).alias("_squares"),
    )
    return _judged(finished, width, as_of).select(*TABLES[f"gold.bars_{width}"].column_names)


def _judged(windows: DataFrame, width: str, as_of: datetime | Column | None) -> DataFrame:
    """Columns derived from a window's finished aggregates."""
    from pyspark.sql import functions as F

    start, several = F.col("window_start"), F.col("sample_count") > 1
    end = F.timestamp_seconds(F.unix_seconds(start) + F.lit(SECONDS[width]))
    closes = F.timestamp_seconds(F.unix_seconds(start) + F.lit(SECONDS[width] + GRACE_S))
    is_closed = F.lit(False) if as_of is None else closes <= F.lit(as_of)
    has_history = F.col("_rank") > 0
    expected = F.greatest(
        F.round(F.lit(float(SECONDS[width])) / F.col("_cadence")).cast("bigint"), F.lit(1).cast("bigint")
    )
    known = F.when(~has_history & F.col("_cadence").isNotNull(), expected)
    enough = F.coalesce(F.col("sample_count") * 10 >= known * COMPLETE_TENTHS, F.lit(False))
    variance = F.col("_squares").cast("double") / (F.col("sample_count") - 1)
    ratio = F.col("high").cast("double") / F.col("low").cast("double")
    return windows.withColumns(
        {
            "window_end": end,
            "price_vol": F.when(several, F.col("price_avg") * F.sqrt(variance)),
            "range": F.when(several, ratio - 1),
            "expected_count": known,
            "granularity": _name_of_rank(),
            "is_closed": is_closed,
            "is_complete": is_closed & (has_history | enough),
            "day": day_of(start),
            "day_start" if width == "1d" else "hour": start if width == "1d" else hour_of(start),
        }
    )


def _rank() -> Column:
    """0 for a polled sample; the coarser, the higher."""
    from pyspark.sql import functions as F

    rank = F.lit(0)
    for number, name in enumerate(GRANULARITIES):
        rank = F.when(F.col("granularity") == name, F.lit(number)).otherwise(rank)
    return rank


def _name_of_rank() -> Column:
    from pyspark.sql import functions as F

    name = F.lit(GRANULARITIES[0])
    for number, text in enumerate(GRANULARITIES):
        name = F.when(F.col("_rank") == number, F.lit(text)).otherwise(name)
    return name
