"""The pipeline's own metrics by arrival hour."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING

from crypto_assets.contracts.messages import HEADER_SENT_AT
from crypto_assets.contracts.tables import PIPELINE_METRICS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

UNITS = {
    "messages_produced": "messages",
    "processing_latency_ms_p50": "ms",
    "processing_latency_ms_p99": "ms",
    "dedup_rate": "ratio",
    "quarantine_rate": "ratio",
    "model_inference_latency_ms": "ms",
    "polls_ok_rate": "ratio",
}
COORDINATES = ["topic_id", "partition", "offset"]


def pipeline_metrics(
    hours: Sequence[datetime],
    *,
    bronze: DataFrame,
    silver: DataFrame,
    quarantine: DataFrame,
    polls: DataFrame,
    anomalies: DataFrame,
    virtual_time: bool,
) -> DataFrame:
    """Rows of `ops.pipeline_metrics`: every metric of every hour; null with measured_over 0 where nothing happened.

    Percentiles are exact (linear interpolation). Latency runs from a record's arrival at the broker to the Bronze
    write; where arrivals are virtual, from the time at which the producer sent it. Inference latency is the median of
    the scoring calls' times.

    Args:
        hours: Arrival hours (UTC).
        bronze: Rows of `bronze.raw_prices` of the hours.
        silver: Rows of `silver.prices` that the hours' records may have become.
        quarantine: Rows of `silver.quarantine` of the hours.
        polls: Rows of `ops.polls` of the hours.
        anomalies: Rows of `gold.anomalies` of the hours.
        virtual_time: Whether records carry a virtual arrival; latencies then need the header `sent_at`.
    """
    from pyspark.sql import functions as F

    sent_at = F.expr(f"try_cast(get_json_object(headers, '$.{HEADER_SENT_AT}') AS timestamp)")
    records = bronze.where(F.col("kind") == "record").withColumn(
        "came_at", sent_at if virtual_time else F.col("kafka_timestamp")
    )
    seen = (
        records.join(quarantine.select(*COORDINATES, F.lit(True).alias("bad")), COORDINATES, "left")
        .join(silver.select(*COORDINATES, F.lit(True).alias("kept")), COORDINATES, "left")
        .withColumn("latency", _ms("bronze_ingested_at", "came_at"))
    )
    valid, kept = F.count(F.when(F.col("bad").isNull(), 1)), F.count(F.when(F.col("kept"), 1))
    n = F.count(F.lit(1))
    by_hour = seen.groupBy(F.col("arrival_hour").alias("hour")).agg(
        n.alias("n"),
        valid.alias("valid"),
        (1 - kept / F.nullif(valid, F.lit(0))).alias("dedup_rate"),
        (F.count(F.when(F.col("bad"), 1)) / n).alias("quarantine_rate"),
        F.percentile("latency", 0.5).alias("p50"),
        F.percentile("latency", 0.99).alias("p99"),
        F.count("latency").alias("timed"),
    )
    polled = (
        polls.where(F.col("kind") == "record")
        .groupBy(F.col("arrival_hour").alias("hour"))
        .agg((F.count(F.when(F.col("outcome") == "ok", 1)) / n).alias("ok"), n.alias("n"))
    )
    scored = anomalies.groupBy("hour").agg(
        F.percentile("inference_ms", 0.5).alias("ms"), F.count("inference_ms").alias("n")
    )
    frames = [
        _metric(by_hour, "messages_produced", F.col("n"), F.col("n")),
        _metric(by_hour, "processing_latency_ms_p50", F.col("p50"), F.col("timed")),
        _metric(by_hour, "processing_latency_ms_p99", F.col("p99"), F.col("timed")),
        _metric(by_hour, "dedup_rate", F.col("dedup_rate"), F.col("valid")),
        _metric(by_hour, "quarantine_rate", F.col("quarantine_rate"), F.col("n")),
        _metric(polled, "polls_ok_rate", F.col("ok"), F.col("n")),
        _metric(scored, "model_inference_latency_ms", F.col("ms"), F.col("n")),
    ]
    measured = reduce(lambda a, b: a.unionByName(b), frames)
    grid = bronze.sparkSession.createDataFrame(
        [(h, name, unit) for h in hours for name, unit in UNITS.items()], "hour timestamp, metric string, unit string"
    )
    full = grid.join(measured, ["hour", "metric"], "left").withColumns(
        {
            "measured_over": F.coalesce(F.col("measured_over"), F.lit(0)),
            "day": F.to_date("hour"),
        }
    )
    full = full.withColumn("value", F.when(F.col("measured_over") > 0, F.round("value", 9)))
    return full.select(*(F.col(c.name).cast(c.type).alias(c.name) for c in PIPELINE_METRICS.columns))


def _metric(frame: DataFrame, name: str, value: Column, over: Column) -> DataFrame:
    from pyspark.sql import functions as F

    return frame.select(
        "hour",
        F.lit(name).alias("metric"),
        value.cast("double").alias("value"),
        over.cast("bigint").alias("measured_over"),
    )


def _ms(later: str, earlier: str) -> Column:
    from pyspark.sql import functions as F

    return (F.unix_micros(F.col(later)) - F.unix_micros(F.col(earlier))) / F.lit(1000.0)
