"""Triggers micro-batches: by Spark's Structured Streaming, or by polling the log every few seconds.

On Spark, a query `readStream.format("kafka")` drives it by `foreachBatch`, with the triggers available-now and
processing time. The function ignores the query's rows: a micro-batch reads the offsets that Bronze lacks by explicit
ranges. So exactly-once rests solely on the ranges that Bronze commits hold; the query's rows would be right only while
its checkpoint agrees with the table, which a restored table, a second stream, a batch run between two micro-batches or
a lost checkpoint all end. The query contributes Spark's triggers, progress and listeners, and no work while nothing
arrives (its frame is never read, so nothing is read twice). A checkpoint that is ahead or behind is harmless.

Without a JVM in this process (embedded engine, or Spark Connect, where `foreachBatch` would run remotely) the ends of
the log are polled every interval.

Does not belong here: what a micro-batch does (`streaming.loop`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crypto_assets.streaming.loop import Loop

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

IDLE_S = 5.0
"""Seconds without records after which postponed work is done and hours are settled."""


def by_polling(loop: Loop, stop: threading.Event, *, interval_s: float) -> None:
    """Poll the log every interval until stopped.

    Args:
        loop: The stream.
        stop: Ends it after the running micro-batch.
        interval_s: Seconds from the start of one micro-batch to the next.
    """
    while not stop.is_set():
        began = time.monotonic()
        loop.step()
        stop.wait(max(0.0, interval_s - (time.monotonic() - began)))


def by_query(
    loop: Loop,
    stop: threading.Event,
    spark: SparkSession,
    source: Mapping[str, str],
    topic: str,
    checkpoint: str,
    *,
    available_now: bool,
    interval_s: float,
) -> None:
    """Run micro-batches from a Structured Streaming query.

    Args:
        loop: The stream.
        stop: Ends it after the running micro-batch.
        spark: A classic session.
        source: Options of Spark's Kafka source.
        topic: The topic.
        checkpoint: Folder of the query's checkpoint.
        available_now: Use the trigger of this name, which runs one micro-batch and ends.
        interval_s: Trigger interval.

    Raises:
        Exception: A micro-batch's own exception.
    """
    errors: list[BaseException] = []
    over = threading.Event()

    def on_batch(_frame: Any, _number: int) -> None:
        if stop.is_set() or over.is_set():
            return
        try:
            loop.step()
        except BaseException as error:
            errors.append(error)
            raise

    # The query need not see the whole log: it reads nothing.
    options = {**source, "subscribe": topic, "startingOffsets": "earliest", "failOnDataLoss": "false"}
    writer = spark.readStream.format("kafka").options(**options).load().writeStream.foreachBatch(on_batch)
    writer = writer.queryName("crypto-assets-stream").option("checkpointLocation", checkpoint)
    every = f"{max(1, round(interval_s * 1000))} milliseconds"
    writer = writer.trigger(availableNow=True) if available_now else writer.trigger(processingTime=every)
    query = writer.start()
    polled = time.monotonic()
    try:
        while query.isActive and not stop.wait(0.1):
            if not available_now and time.monotonic() - polled > IDLE_S:
                with loop.lock:
                    if query.isActive and not query.status["isTriggerActive"]:
                        loop.step()
                polled = time.monotonic()
    except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
        errors.append(error)
    finally:
        over.set()
        with loop.lock:  # never within a write
            query.stop()
    if errors:
        raise errors[0]
    if (failure := query.exception()) is not None:
        raise failure
