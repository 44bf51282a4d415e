"""Leaderboard of coins by their change over 24 hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crypto_assets.contracts.tables import LEADERBOARD

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def leaderboard_24h(bars_5m: DataFrame) -> DataFrame:
    """The board as of each coin's newest bar.

    The price 24 h ago is the close of the bar that ended 24 h before the newest one's end, or up to 10 min earlier;
    without such a bar the change is null. Nulls rank last; ties by coin id.

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
    age_s = (F.unix_micros("newest_end") - F.unix_micros("window_end")) / F.lit(1_000_000)
    with_age = bars_5m.select("coin_id", "window_end", "close", "high", "low").join(newest, ["coin_id"])
    with_age = with_age.withColumn("age_s", age_s)
    near = (F.col("age_s") >= 86_400) & (F.col("age_s") <= 86_400 + 600)
    within = F.col("age_s") < 86_400
    board = with_age.groupBy("coin_id", "symbol", "price_usd", "volume_24h_usd", "newest_end").agg(
        F.min_by(F.when(near, F.col("close")), F.when(near, F.col("age_s"))).alias("price_24h_ago_usd"),
        F.max(F.when(within, F.col("high"))).alias("high_24h"),
        F.min(F.when(within, F.col("low"))).alias("low_24h"),
    )
    change = F.col("price_usd").cast("double") / F.col("price_24h_ago_usd").cast("double") - 1
    board = board.withColumn("change_24h", F.round(change, 12)).withColumnRenamed("newest_end", "window_end")
    # One row per coin, so a single partition is intended.
    order = Window.partitionBy(F.lit(1)).orderBy(F.col("change_24h").desc_nulls_last(), F.col("coin_id"))
    board = board.withColumn("rank", F.row_number().over(order))
    return board.select(*(F.col(c.name).cast(c.type).alias(c.name) for c in LEADERBOARD.columns))
