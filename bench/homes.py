"""Temporary simulator homes with a real broker, filled the way the pipeline fills them.

Belongs here: opening such a home, polling virtual minutes, running jobs in this process. Does not belong here: timing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, hour_key, hour_keys
from crypto_assets.log.kafka.broker import EmbeddedBroker
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

    from crypto_assets.home import Home
    from crypto_assets.producer.loop import Producer

MINUTE = timedelta(minutes=1)


@contextmanager
def temporary_home(partitions_start: date, **changed: Any) -> Iterator[tuple[Settings, EmbeddedBroker]]:
    """A simulator home in a temporary folder with its embedded broker; both are gone afterwards.

    Args:
        partitions_start: First day with partitions.
        changed: Settings that differ.
    """
    with tempfile.TemporaryDirectory(prefix="crypto-assets-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        broker = EmbeddedBroker(home)
        try:
            broker.start(timeout_s=120)
            plain = {
                "source": "simulator",
                "home_path": home,
                "kafka_bootstrap_servers": broker.bootstrap_servers,
                "partitions_start": partitions_start,
            }
            yield Settings(_env_file=None, **{**plain, **changed}), broker  # type: ignore[call-arg]
        finally:
            broker.stop()


@dataclass
class Pipeline:
    """A home whose past has been polled, with its Dagster instance.

    Args:
        settings: Settings of the home.
        home: The bound home.
        instance: Its instance: SQLite, as packaged.
        producer: Its producer.
        defs: Its definitions.
        span: Whole hours that have been polled once a minute.
        next_poll: Virtual time of the next poll: just after the span.
    """

    settings: Settings
    home: Home
    instance: dg.DagsterInstance
    producer: Producer
    defs: dg.Definitions
    span: Slice
    next_poll: datetime

    def poll(self) -> list[str]:
        """Poll once, a virtual minute after the poll before; the hourly keys that a refresh would now ask for."""
        from crypto_assets.orchestration.running_window import running_window

        moment, self.next_poll = self.next_poll, self.next_poll + MINUTE
        summary = self.producer.catch_up([moment])
        assert summary.sent, f"the poll at {moment} brought nothing: {summary.text}"
        return running_window(moment)

    def run(self, job: str, keys: Sequence[str]) -> None:
        """Run a job over a range of partitions in this process; every step must succeed."""
        from crypto_assets.cli.runs import run_job

        failed: list[str] = []
        run_job(self.defs, self.instance, job, keys, failed, {})
        if failed:
            raise AssertionError("; ".join(failed))


@contextmanager
def polled_home(hours: int) -> Iterator[Pipeline]:
    """A home that polled ten simulated coins once a minute for so many hours, up to the day before yesterday's end.

    It stands in the past so that no run of the bench crosses an hour while it is timed; nothing is materialized yet.
    """
    from crypto_assets.cli.demo import poll_moments
    from crypto_assets.cli.instance import open_instance
    from crypto_assets.definitions import build_definitions
    from crypto_assets.home import open_home
    from crypto_assets.producer.loop import open_producer

    end = floor_day(datetime.now(UTC)) - DAY
    span = Slice(end - hours * HOUR, end)
    with temporary_home(floor_day(span.start).date()) as (settings, _):
        home = open_home(settings)
        with open_instance(home) as instance, open_producer(settings) as producer:
            producer.catch_up(poll_moments(span.start, span.end))
            # The running hour is entered at its 10th minute: in the first five the hour before is asked for too.
            yield Pipeline(
                settings, home, instance, producer, build_definitions(settings), span, end + timedelta(minutes=10.5)
            )


def prepared(pipeline: Pipeline) -> None:
    """Materialize everything polled so far, and the days that hold it, so that what follows is an ordinary refresh."""
    pipeline.run("refresh", hour_keys(pipeline.span))
    last = floor_day(pipeline.span.end) - DAY
    first = max(floor_day(pipeline.span.start), last - 7 * DAY)
    pipeline.run("daily", [day_key(first + i * DAY) for i in range((last - first).days + 1)])


def running_hour(pipeline: Pipeline) -> str:
    """Key of the hour after the span."""
    return hour_key(pipeline.span.end)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
