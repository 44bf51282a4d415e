"""Runs a stream from its settings: engine, reports, trigger, summary.

Does not belong here: printing and signals (`cli.stream`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from crypto_assets.engine.base import StepFailed
from crypto_assets.engine.engines import make_engine
from crypto_assets.log.errors import LogUnavailable
from crypto_assets.log.kafka.client import client_config
from crypto_assets.log.kafka.reading import end_offsets
from crypto_assets.log.kafka.spark_source import source_options
from crypto_assets.settings import Settings
from crypto_assets.streaming import wake
from crypto_assets.streaming.loop import Loop, Progress, Summary
from crypto_assets.streaming.reports import Reports

if TYPE_CHECKING:
    import dagster as dg

INTERVAL_S = 1.0
SERVERLESS = "databricks-serverless"


def refuse_unfit(settings: Settings, *, available_now: bool = False) -> None:
    """Refuse settings under which no stream can run here.

    Args:
        settings: Settings of the home.
        available_now: Whether the stream ends when it has caught up.

    Raises:
        StepFailed: Names the setting and what to do instead.
    """
    if settings.transport == "landing":
        raise StepFailed(
            "a stream reads Kafka, and CRYPTO_ASSETS_TRANSPORT is landing: landed files are picked up by the refresh "
            "job (crypto-assets up), or by Auto Loader on Databricks"
        )
    if settings.on_databricks and not settings.is_remote:
        raise StepFailed(
            f"CRYPTO_ASSETS_TARGET is {settings.target}: there the stream runs in the workspace, next to its tables. "
            "Deploy and start the bundle's job `stream`: databricks bundle deploy, databricks bundle run stream"
        )
    if settings.is_remote and settings.target == SERVERLESS and not available_now:
        raise StepFailed(
            "serverless compute runs no stream without end: give --available-now and schedule the job, or run the "
            "bundle's job `stream` on its cluster"
        )


def stream(
    settings: Settings,
    instance: dg.DagsterInstance | None,
    stop: threading.Event,
    *,
    available_now: bool = False,
    interval_s: float = INTERVAL_S,
    for_s: float | None = None,
    on_batch: Callable[[Progress], None] = lambda _progress: None,
) -> Summary:
    """Run until stopped.

    Args:
        settings: Settings of the home.
        instance: Where materializations are reported; None = not at all.
        stop: Ends the stream after the running micro-batch.
        available_now: Stop when everything that the log holds at the start is in Gold.
        interval_s: Seconds between micro-batches.
        for_s: Set `stop` after this many seconds.
        on_batch: Called after every micro-batch.

    Raises:
        StepFailed: No stream can run with these settings, or the log cannot be read on from where Bronze ends.
        AuditFailed: A blocking rule failed; that micro-batch's Silver or Gold was not committed.
    """
    refuse_unfit(settings, available_now=available_now)
    try:
        end_offsets(settings, settings.prices_topic)  # before an engine is started, which takes seconds
    except LogUnavailable as error:
        raise StepFailed(str(error)) from error
    engine = make_engine(settings)
    loop = Loop(settings, engine, Reports(instance, settings.source_facts.banner), on_batch=on_batch)
    if for_s is not None:
        timer = threading.Timer(for_s, stop.set)
        timer.daemon = True
        timer.start()
    if has_queries(settings):
        loop.step()  # before the query: errors are plainer here, and the cursor is known
        wake.by_query(
            loop,
            stop,
            engine.spark,
            source_options(client_config(settings), shaded=settings.kafka_shaded),
            settings.prices_topic,
            checkpoint_folder(settings),
            available_now=available_now,
            interval_s=interval_s,
        )
    elif not available_now:
        wake.by_polling(loop, stop, interval_s=interval_s)
    if available_now and not stop.is_set():
        loop.drain(stop)  # on Spark: the checkpoint's record of completed work
    loop.finish()
    return loop.summary


def has_queries(settings: Settings) -> bool:
    """Return whether the engine has Structured Streaming with functions that run in this process."""
    if settings.is_remote:
        return settings.target != SERVERLESS  # a session of serverless compute is Spark Connect
    return settings.target == "spark" and not settings.spark_remote


def checkpoint_folder(settings: Settings) -> str:
    """Folder of the query's checkpoint: a volume on Databricks, else below the home."""
    if settings.is_remote:
        return f"/Volumes/{settings.catalog}/ops/checkpoints/stream/{settings.prices_topic}"
    return str(settings.home / "state" / "stream" / settings.prices_topic)
