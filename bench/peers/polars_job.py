"""Bronze to Silver to bars by Polars, lazily, from Parquet to Parquet."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from bench.peers.job import FIELDS, HEADERS, NUMBERS, Order, perform

POSITION = ("available_at", "topic_id", "partition", "offset")


def silver(order: Order) -> None:
    """Typed quotes, the first of every coin and time."""
    value, headers = pl.col("value").struct, pl.col("header").struct
    start, end = (datetime.fromisoformat(moment) for moment in (order.start, order.end))
    moment = {"format": "%Y-%m-%dT%H:%M:%S%.fZ", "time_unit": "us", "strict": False}
    rows = (
        pl.scan_parquet(order.bronze, hive_partitioning=False)
        .filter(pl.col("kind") == "record")
        .select(
            pl.col("raw_json").str.json_decode(pl.Struct(dict.fromkeys(FIELDS, pl.String))).alias("value"),
            pl.col("headers").str.json_decode(pl.Struct(dict.fromkeys(HEADERS, pl.String))).alias("header"),
            pl.col("kafka_timestamp").alias("available_at"),
            *POSITION[1:],
        )
        .select(
            value.field("coin_id"),
            value.field("symbol").str.to_uppercase(),
            value.field("name"),
            *(value.field(n).cast(pl.Decimal(38, 18), strict=False) for n in NUMBERS),
            headers.field("source"),
            headers.field("poll_id"),
            headers.field("cadence_s").cast(pl.Float64, strict=False),
            value.field("last_updated_at").str.to_datetime(**moment),
            value.field("ingestion_timestamp").str.to_datetime(**moment),
            *POSITION,
        )
        .filter((pl.col("price_usd") > 0) & pl.col("last_updated_at").is_between(start, end, closed="left"))
        .sort(POSITION)
        .unique(["coin_id", "last_updated_at"], keep="first", maintain_order=True)
        .with_columns(pl.col("last_updated_at").dt.truncate("1h").alias("hour"))
    )
    rows.sink_parquet(order.folder("silver") / "rows.parquet")


def bars(order: Order) -> None:
    """OHLC, mean and deviation of five minutes."""
    price = pl.col("price_usd")
    rows = (
        pl.scan_parquet(order.folder("silver") / "rows.parquet")
        .sort("coin_id", "last_updated_at")
        .group_by("coin_id", pl.col("last_updated_at").dt.truncate("5m").alias("window_start"))
        .agg(
            price.first().alias("open"),
            price.max().alias("high"),
            price.min().alias("low"),
            price.last().alias("close"),
            price.cast(pl.Float64).mean().alias("price_avg"),
            price.cast(pl.Float64).std().alias("price_vol"),
            pl.col("volume_24h_usd").last(),
            pl.col("market_cap_usd").last(),
            pl.col("cadence_s").last(),
            pl.len().alias("sample_count"),
            pl.col("last_updated_at").first().alias("first_event_at"),
            pl.col("last_updated_at").last().alias("last_event_at"),
            pl.col("available_at").max(),
        )
    )
    rows.sink_parquet(order.folder("bars") / "rows.parquet")


if __name__ == "__main__":
    perform(silver=silver, bars=bars)
