"""Kafka to Parquet by Bytewax: the Kafka connector in batches, and a sink that writes each batch as a row group."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from bench.peers.job import Order, perform

BATCH = 10_000
SCHEMA = pa.schema([("key", pa.binary()), ("value", pa.binary()), ("partition", pa.int32()), ("offset", pa.int64())])


class ParquetPartition(StatelessSinkPartition[Any]):
    """A file."""

    def __init__(self, path: str) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA)

    def write_batch(self, items: list[Any]) -> None:
        """Write messages as a row group."""
        columns = ([getattr(m, name) for m in items] for name in SCHEMA.names)
        self._writer.write_batch(
            pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
        )

    def close(self) -> None:
        """Write the file's footer."""
        self._writer.close()


class ParquetSink(DynamicSink[Any]):
    """A file per worker."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def build(self, step_id: str, worker_index: int, worker_count: int) -> ParquetPartition:  # noqa: ARG002
        """The worker's file."""
        return ParquetPartition(f"{self._folder}/{worker_index}.parquet")


def bronze(order: Order) -> None:
    """All records with key, value and position."""
    flow = Dataflow("bronze")
    records = kafka.input("read", flow, brokers=[order.servers], topics=[order.topic], tail=False, batch_size=BATCH)
    op.output("write", records.oks, ParquetSink(str(order.folder("bronze"))))
    cli_main(flow, workers_per_process=order.cores)


if __name__ == "__main__":
    perform(bronze=bronze)
