"""Kafka to Parquet by Quix Streams: its file sink, a file per checkpoint."""

from __future__ import annotations

import os
import uuid

from quixstreams import Application
from quixstreams.sinks.community.file.formats import ParquetFormat
from quixstreams.sinks.community.file.local import LocalFileSink

from bench.peers.job import Order, perform

CHECKPOINT = 50_000


def bronze(order: Order) -> None:
    """All records with key, value and time."""
    application = Application(
        broker_address=order.servers,
        consumer_group=f"bench-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        commit_every=CHECKPOINT,
        commit_interval=60.0,
        loglevel="ERROR",
    )
    topic = application.topic(order.topic, key_deserializer="bytes", value_deserializer="bytes")
    records = application.dataframe(topic).apply(lambda value: {"value": value})
    os.chdir(order.folder("bronze"))  # the sink takes no path with a hyphen
    records.sink(LocalFileSink(directory="records", format=ParquetFormat()))
    application.run(count=order.records, collect=False)


if __name__ == "__main__":
    perform(bronze=bronze)
