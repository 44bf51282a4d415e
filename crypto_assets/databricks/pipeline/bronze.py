"""The log as a stream of Bronze rows.

The pipeline's Bronze has the columns of `bronze.raw_prices` but for those by which the assets' writes are known again
(`LEDGER`): here the stream's checkpoint tracks the position. A record's arrival hour is that of its broker
timestamp, which is the same wherever timestamps do not go backwards within a partition, as they cannot with
LogAppendTime.

Belongs here: the stream and its rows. Does not belong here: how a row is made (`assets.log_slices.rows`), judging
records (`transforms.parse`), which datasets there are (`datasets`).
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crypto_assets.assets.log_slices.rows import PriceRows
from crypto_assets.contracts.arrow import compute, spark_schema
from crypto_assets.contracts.slices import HOUR, Slice
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.databricks.pipeline.configuration import Configuration
from crypto_assets.log.kafka.spark_source import log_columns, source_options
from crypto_assets.storage.base import LogBounds

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

LEDGER = ("range_start", "range_end", "seq", "batch_id", "bronze_ingested_at")
"""Columns that describe a write of the assets, and not a record."""

RECORDS = replace(
    RAW_PRICES,
    description="Every price record as it came from Kafka, with its coordinates.",
    columns=tuple(c for c in RAW_PRICES.columns if c.name not in LEDGER),
    rules=tuple(r for r in RAW_PRICES.rules if not any(name in r.sql for name in LEDGER)),
)
"""Contract of the pipeline's Bronze."""

Batches = Iterator["pa.RecordBatch"]


def records(spark: SparkSession, configuration: Configuration, read_secret: Callable[[str, str], str]) -> DataFrame:
    """All records of the topic, as a stream with the columns of `RECORDS`.

    Args:
        spark: The pipeline's session.
        configuration: The pipeline's configuration.
        read_secret: Reads a secret of the workspace by scope and key: the SASL password, if one is needed. Where there
            is a workspace, Kafka's classes have another prefix too.
    """
    travel_by_value()
    client = dict(configuration.kafka)
    if configuration.password_at is not None:
        client["sasl.password"] = read_secret(*configuration.password_at)
    stream = (
        spark.readStream.format("kafka")
        .options(**source_options(client, shaded=configuration.password_at is not None))
        .option("subscribe", configuration.topic)
        .option("startingOffsets", "earliest")
        .load()
        .select("partition", "offset", "timestamp", "key", "value", "headers")
    )
    make = row_maker(configuration.topic, configuration.topic_id, configuration.partitions_start)
    return stream.mapInArrow(make, spark_schema(RECORDS))


def row_maker(topic: str, topic_id: str, partitions_start: datetime) -> Callable[[Batches], Batches]:
    """A function from batches of Spark's Kafka source to batches of `RECORDS`.

    Args:
        topic: The topic.
        topic_id: Its incarnation.
        partitions_start: Start of the first partition (UTC).
    """
    maker, bounds = PriceRows(partitions_start), LogBounds(topic, topic_id, ())

    def rows(batches: Batches) -> Batches:
        import pyarrow as pa

        pc = compute()
        for batch in batches:
            chunk = log_columns(pa.Table.from_batches([batch]))
            hours = pc.floor_temporal(chunk.column("kafka_timestamp"), unit="hour")
            for hour in hours.unique().to_pylist():
                mine = chunk.filter(pc.equal(hours, pa.scalar(hour, hours.type)))
                made = maker.rows(RAW_PRICES, bounds, Slice(hour, hour + HOUR), (), mine, hour)
                yield from made.select(RECORDS.column_names).combine_chunks().to_batches()

    return rows


def travel_by_value() -> None:
    """Let functions of this package travel to workers with their code, from now on in this process.

    A pipeline's driver finds the package in a folder of the workspace; its workers need not. They have Python, PyArrow
    and NumPy, which is all that a row needs.
    """
    import sys

    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__.split(".")[0]])
    copyreg.pickle(type(lru_cache(_cached)), lambda cached: (_cached, (cached.__wrapped__, cached.cache_parameters())))


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """A function with a separate cache: a cached function is otherwise identified by its name alone."""
    return lru_cache(**parameters)(function)
