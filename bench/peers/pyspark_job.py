"""Bronze to Silver to bars by PySpark on a local master, from Parquet to Parquet; its start is not counted."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from bench.peers.job import FIELDS, HEADERS, NUMBERS, Order, perform

CORES = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cores"]


def session() -> SparkSession:
    """Spark with as many threads as cores, and settings for one machine."""
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        sys.exit("Error: Spark needs Java: install a JDK 17 or later, or set JAVA_HOME")
    found = (
        SparkSession.builder.master(f"local[{CORES}]")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", 2 * CORES)
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    found.sparkContext.setLogLevel("ERROR")
    found.range(1).count()
    return found


def _strings(names: tuple[str, ...]) -> StructType:
    return StructType([StructField(name, StringType()) for name in names])


def silver(order: Order) -> None:
    """Typed quotes, the first of every coin and time."""
    first = Window.partitionBy("coin_id", "last_updated_at").orderBy("available_at", "topic_id", "partition", "offset")
    rows = (
        SPARK.read.parquet(*order.bronze)
        .where("kind = 'record'")
        .select(
            F.from_json("raw_json", _strings(FIELDS)).alias("v"),
            F.from_json("headers", _strings(HEADERS)).alias("h"),
            F.col("kafka_timestamp").alias("available_at"),
            *("topic_id", "partition", "offset"),
        )
        .select(
            "v.coin_id",
            F.upper("v.symbol").alias("symbol"),
            "v.name",
            *(F.expr(f"try_cast(v.{n} AS DECIMAL(38,18))").alias(n) for n in NUMBERS),
            "h.source",
            "h.poll_id",
            F.expr("try_cast(h.cadence_s AS DOUBLE)").alias("cadence_s"),
            F.expr("try_cast(v.last_updated_at AS TIMESTAMP)").alias("last_updated_at"),
            F.expr("try_cast(v.ingestion_timestamp AS TIMESTAMP)").alias("ingestion_timestamp"),
            *("available_at", "topic_id", "partition", "offset"),
        )
        .where(f"price_usd > 0 AND last_updated_at >= '{order.start}' AND last_updated_at < '{order.end}'")
        .withColumn("rank", F.row_number().over(first))
        .where("rank = 1")
        .drop("rank")
        .withColumn("hour", F.date_trunc("hour", "last_updated_at"))
    )
    rows.write.mode("append").parquet(str(order.folder("silver")))


def bars(order: Order) -> None:
    """OHLC, mean and deviation of five minutes."""
    at, price = "last_updated_at", "price_usd"
    rows = (
        SPARK.read.parquet(str(order.folder("silver")))
        .groupBy("coin_id", F.window(at, "5 minutes").getField("start").alias("window_start"))
        .agg(
            F.min_by(price, at).alias("open"),
            F.max(price).alias("high"),
            F.min(price).alias("low"),
            F.max_by(price, at).alias("close"),
            F.avg(price).alias("price_avg"),
            F.stddev_samp(F.col(price).cast("double")).alias("price_vol"),
            F.max_by("volume_24h_usd", at).alias("volume_24h_usd"),
            F.max_by("market_cap_usd", at).alias("market_cap_usd"),
            F.max_by("cadence_s", at).alias("cadence_s"),
            F.count("*").alias("sample_count"),
            F.min(at).alias("first_event_at"),
            F.max(at).alias("last_event_at"),
            F.max("available_at").alias("available_at"),
        )
    )
    rows.write.mode("append").parquet(str(order.folder("bars")))


if __name__ == "__main__":
    SPARK = session()
    perform(silver=silver, bars=bars)
