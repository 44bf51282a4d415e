"""Leaderboard of coins by their change over 24 hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crypto_assets.contracts.tables import LEADERBOARD

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

DAY_S = 86_400
NEAR_S = 600
"""How far from 24 h ago a price may lie."""


def leaderboard_24h(bars_5m: DataFrame) -> DataFrame:
    """The board as of each coin's newest bar.

    The price 24 h ago is the close of the bar that ended 24 h before the newest one's end, or up to 10 min earlier;
    where a hole in the data ends just then, the open of the first bar that starts up to 10 min later. Without either,
    the change is null. Nulls rank last; ties by coin id.

    Args:
        bars_5m: Rows of `gold.bars_5m` of at least 24 h and 15 min before the newest.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = bars_5m.groupBy("coin_id").agg(
        F.max_by(F.struct("symbol", "close", "volume_24h_usd", "window_end"), "window_end").alias("n")
    )
    newest = newest.select(
        "coin_id",
        "n.symbol",
        F.col("n.close").alias("price_usd"),
        "n.volume_24h_usd",
        F.col("n.window_end").alias("newest_end"),
    )
    bars = bars_5m.select(
        *("coin_id", "window_start", "window_end", "open", "close", "high", "low", "first_event_at", "last_event_at")
    ).join(newest, ["coin_id"])
    bars = bars.withColumns({"age_s": _age_s("window_end"), "start_age_s": _age_s("window_start")})
    before = F.col("age_s").between(DAY_S, DAY_S + NEAR_S)
    after = F.col("start_age_s").between(DAY_S - NEAR_S, DAY_S)
    within = F.col("age_s") < DAY_S
    board = bars.groupBy("coin_id", "symbol", "price_usd", "volume_24h_usd", "newest_end").agg(
        F.coalesce(_nearest("close", before, "age_s"), _nearest("open", after, "window_start")).alias(
            "price_24h_ago_usd"
        ),
        F.coalesce(_nearest("last_event_at", before, "age_s"), _nearest("first_event_at", after, "window_start")).alias(
            "price_24h_ago_at"
        ),
        F.max(F.when(within, F.col("high"))).alias("high_24h"),
        F.min(F.when(within, F.col("low"))).alias("low_24h"),
    )
    change = F.col("price_usd").cast("double") / F.col("price_24h_ago_usd").cast("double") - 1
    board = board.withColumn("change_24h", F.round(change, 12)).withColumnRenamed("newest_end", "window_end")
    # One row per coin, so a single partition is intended.
    order = Window.partitionBy(F.lit(1)).orderBy(F.col("change_24h").desc_nulls_last(), F.col("coin_id"))
    board = board.withColumn("rank", F.row_number().over(order))
    return board.select(*(F.col(c.name).cast(c.type).alias(c.name) for c in LEADERBOARD.columns))


def _age_s(moment: str) -> Column:
    """Seconds from a time to the end of the coin's newest bar."""
    from pyspark.sql import functions as F

    return (F.unix_micros("newest_end") - F.unix_micros(moment)) / F.lit(1_000_000)


def _nearest(value: str, where: Column, by: str) -> Column:
    """A column's value in the row that has the smallest `by` among those of a condition; null without any."""
    from pyspark.sql import functions as F

    return F.min_by(F.when(where, F.col(value)), F.when(where, F.col(by)))
