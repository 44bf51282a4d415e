"""A stream from its settings to its end: engine, reports, what wakes it, summary.

Does not belong here: printing and signals (`cli.stream`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from crypto_assets.compute.base import StepFailed
from crypto_assets.settings import Settings
from crypto_assets.streaming import wake
from crypto_assets.streaming.loop import Loop, Summary
from crypto_assets.streaming.reports import Reports

if TYPE_CHECKING:
    import dagster as dg

INTERVAL_S = 2.0


def refuse_unfit(settings: Settings) -> None:
    """Refuse settings under which no stream runs here.

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


def stream(
    settings: Settings,
    instance: dg.DagsterInstance | None,
    stop: threading.Event,
    *,
    available_now: bool = False,
    interval_s: float = INTERVAL_S,
    for_s: float | None = None,
) -> Summary:
    """Run until told to stop.

    Args:
        settings: Settings of the home.
        instance: Where materializations are reported; None = nowhere.
        stop: Ends the stream after the running micro-batch.
        available_now: Stop when everything that the log holds is in Gold.
        interval_s: Seconds between micro-batches.
        for_s: Stop after so many seconds.

    Raises:
        StepFailed: No stream can run with these settings, or the log cannot be read on from where Bronze ends.
        AuditFailed: A blocking rule failed; that micro-batch's Silver or Gold was not committed.
    """
    from crypto_assets.compute.engines import make_engine
    from crypto_assets.compute.inputs import BANNERS

    refuse_unfit(settings)
    engine = make_engine(settings)
    loop = Loop(settings, engine, Reports(instance, BANNERS[settings.source]))
    if has_queries(settings):
        from crypto_assets.kafka.client import client_config
        from crypto_assets.kafka.spark_source import source_options

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
            for_s=for_s,
        )
    else:
        wake.by_looking(loop, stop, available_now=available_now, interval_s=interval_s, for_s=for_s)
    loop.finish()
    return loop.summary


def has_queries(settings: Settings) -> bool:
    """Whether the engine has Structured Streaming whose functions run in this process."""
    return settings.is_remote or (settings.target == "spark" and not settings.spark_remote)


def checkpoint_folder(settings: Settings) -> str:
    """Where the query keeps its checkpoint: a volume on Databricks, else below the home."""
    if settings.is_remote:
        return f"/Volumes/{settings.catalog}/ops/checkpoints/stream/{settings.prices_topic}"
    return str(settings.home / "state" / "stream" / settings.prices_topic)
