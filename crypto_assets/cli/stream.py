"""`stream`: micro-batches from the log to Gold, until Ctrl-C."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crypto_assets.cli import output
from crypto_assets.cli.processes import stop_requested
from crypto_assets.cli.produce import seconds

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

SHORTEST_S = 0.1


def run(settings: Settings, *, available_now: bool, interval_s: float, run_for: str | None, as_json: bool) -> int:
    """Stream; 0 when it ended as asked.

    Raises:
        ValueError: `run_for` is no duration, or the interval is too short.
    """
    from crypto_assets.cli.instance import open_instance
    from crypto_assets.cli.up import running_broker
    from crypto_assets.compute.inputs import BANNERS
    from crypto_assets.home import open_home
    from crypto_assets.streaming.run import refuse_unfit, stream

    limit = seconds(run_for) if run_for else None
    if interval_s < SHORTEST_S:
        raise ValueError(f"--interval {interval_s} is too short: at least {SHORTEST_S} seconds")
    refuse_unfit(settings)
    home = open_home(settings)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requested())
        stack.enter_context(home.lock("stream", doing="stream"))
        servers = stack.enter_context(running_broker(settings))
        if not as_json:
            output.say(BANNERS[settings.source], style="bold")
            output.say(f"home {home.path}, kafka {servers}; Ctrl-C ends it after the running micro-batch")
        _own_topics(settings)
        # A cluster has no Dagster instance; its tables tell the driver what they hold.
        instance = None if settings.is_remote else stack.enter_context(open_instance(home))
        summary = stream(settings, instance, stop, available_now=available_now, interval_s=interval_s, for_s=limit)
    if as_json:
        output.as_json(summary.to_record())
    else:
        output.say(summary.text)
    return 0


def _own_topics(settings: Settings) -> None:
    """Topics of the embedded broker, so that a stream may be started before any producer."""
    from crypto_assets.kafka.topic import require_topics

    if not settings.kafka_bootstrap_servers:
        require_topics(settings, datetime.now(UTC))
