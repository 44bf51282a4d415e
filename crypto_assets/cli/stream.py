"""`stream`: micro-batches from the log to Gold, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime

from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.produce import seconds
from crypto_assets.cli.signals import stop_requested
from crypto_assets.cli.up import running_broker
from crypto_assets.engine.base import StepFailed
from crypto_assets.errors import UsageError
from crypto_assets.home import open_home
from crypto_assets.log.kafka.topic import require_topics
from crypto_assets.settings import Settings
from crypto_assets.storage.base import AuditFailed, StorageError, WriteConflict
from crypto_assets.streaming.loop import Progress
from crypto_assets.streaming.run import refuse_unfit, stream

SHORTEST_S = 0.1
TELL_S = 5.0
"""Seconds between two lines of progress."""
IDLE_S = 60.0
"""Seconds between two lines while nothing arrives."""


def run(settings: Settings, *, available_now: bool, interval_s: float, run_for: str | None, as_json: bool) -> int:
    """Stream; 0 when it ended as asked.

    Raises:
        ValueError: `run_for` is no duration, or the interval is too short.
        StepFailed: No stream can run with these settings, or the log cannot be read.
    """
    limit = seconds(run_for) if run_for else None
    if interval_s < SHORTEST_S:
        raise UsageError(f"--interval {interval_s} is too short: at least {SHORTEST_S} seconds")
    refuse_unfit(settings, available_now=available_now)
    home = open_home(settings)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requested())
        stack.enter_context(home.lock("stream", doing="stream"))
        servers = stack.enter_context(running_broker(settings))
        if not as_json:
            output.say(settings.source_facts.banner, style="bold")
            output.say(
                f"home {home.path}, kafka {servers}, topic {settings.prices_topic}, target {settings.target}; "
                "Ctrl-C ends it after the running micro-batch"
            )
        if not settings.kafka_bootstrap_servers:  # so that a stream may be started before any producer
            require_topics(settings, datetime.now(UTC))
        # A cluster has no Dagster instance; the driver reads the tables.
        instance = None if settings.is_remote else stack.enter_context(open_instance(home))
        try:
            summary = stream(
                settings,
                instance,
                stop,
                available_now=available_now,
                interval_s=interval_s,
                for_s=limit,
                on_batch=(lambda _progress: None) if as_json else Lines(),
            )
        except (AuditFailed, StorageError, WriteConflict) as error:
            raise StepFailed(f"{error}. What was committed before stays; start the stream again to go on") from error
    if as_json:
        output.as_json(summary.to_record())
    else:
        output.say(summary.text)
    return 0


class Lines:
    """A line every few seconds: how many records a second, how many wait, how old what Gold shows is.

    Args:
        say: Prints a line.
        clock: Monotonic seconds.
        now: Present time (UTC).
    """

    def __init__(
        self,
        say: Callable[[str], None] = output.say,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._say, self._clock, self._now = say, clock, now
        self._at, self._records = clock(), 0

    def __call__(self, progress: Progress) -> None:
        """Print where the stream stands, if it is time to."""
        passed, more = self._clock() - self._at, progress.records - self._records
        first = more and not self._records
        if passed < (TELL_S if more else IDLE_S) and not first:
            return
        if progress.covered_until is None:
            reached = "nothing has been read yet"
        else:
            age = (self._now() - progress.covered_until).total_seconds()
            reached = f"Gold reaches {progress.covered_until:%Y-%m-%d %H:%M:%S}Z, {age:,.1f} s ago"
        self._say(f"{more / passed:,.0f} records/s, {progress.waiting:,} waiting; {reached}")
        self._at, self._records = self._clock(), progress.records
