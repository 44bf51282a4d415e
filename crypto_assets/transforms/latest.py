"""The newest quote of every coin."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from crypto_assets.contracts.tables import LATEST_PRICES, SILVER_PRICES

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def latest_prices(
    silver: DataFrame, covered_until: datetime | Column, covered_offsets: str | Column, now: datetime | Column
) -> DataFrame:
    """Newest row of each coin by event time, as rows of `gold.latest_prices`.

    The last three may be columns that are one value for all rows.

    Args:
        silver: Rows of `silver.prices`.
        covered_until: Highest broker timestamp that the log covers.
        covered_offsets: JSON object of end offsets by Kafka partition.
        now: Time of the refresh.
    """
    from pyspark.sql import functions as F

    kept = [name for name in LATEST_PRICES.column_names if name in SILVER_PRICES.column_names and name != "coin_id"]
    newest = silver.groupBy("coin_id").agg(F.max_by(F.struct(*kept), "last_updated_at").alias("q"))
    frame = newest.select("coin_id", *(F.col(f"q.{n}").alias(n) for n in kept)).withColumns(
        {
            "covered_until": F.lit(covered_until),
            "covered_offsets": F.lit(covered_offsets),
            "refreshed_at": F.lit(now),
        }
    )
    age = (F.unix_micros("covered_until") - F.unix_micros("last_updated_at")) / F.lit(1e6)
    frame = frame.withColumn("age_s", age)
    return frame.select(*(F.col(c.name).cast(c.type).alias(c.name) for c in LATEST_PRICES.columns))
