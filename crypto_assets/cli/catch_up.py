"""What `up` does before automation starts: topics, today's recording up to now, and the first runs of every asset."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crypto_assets.cli import output
from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.signals import stop_if_asked
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, floor_hour, hour_keys

if TYPE_CHECKING:
    from crypto_assets.home import Home
    from crypto_assets.settings import Settings


def run(settings: Settings, home: Home) -> None:
    """Bring a home to the present.

    A live home only gets its topics and, at first, empty partitions of the running hour; a replay or simulator home
    also gets what lies between its last virtual poll (or midnight) and now.
    """
    from crypto_assets.kafka.producer import open_producer

    now = datetime.now(UTC)
    with open_producer(settings) as producer:
        if settings.is_live:
            tick = producer.tick(now)
            output.say(tick.text)
        else:
            moments = _missing_moments(producer.last_poll_at, now)
            with output.progress(f"catching up: {len(moments):,} polls", len(moments)) as advance:
                output.say(producer.catch_up(moments, advance).text)
    stop_if_asked()
    _first_runs(settings, home, now)


def _missing_moments(last_poll_at: datetime | None, now: datetime) -> list[datetime]:
    from crypto_assets.cli.demo import poll_moments

    start = floor_day(now)
    if last_poll_at is not None and last_poll_at > start:
        start = last_poll_at
    return [m for m in poll_moments(start, now) if last_poll_at is None or m > last_poll_at]


def _first_runs(settings: Settings, home: Home, now: datetime) -> None:
    """Materialize today's hours so far, so that the board is right when the UI opens."""
    import dagster as dg

    from crypto_assets.cli.runs import run_job
    from crypto_assets.wiring import build_definitions

    defs = build_definitions(settings)
    failed: list[str] = []
    seconds: dict[str, float] = {}
    with open_instance(home) as instance:
        first = floor_hour(now) if settings.is_live else floor_day(now)
        hours = hour_keys(Slice(first, floor_hour(now) + HOUR))
        with output.progress(f"materializing {len(hours)} hours", 2) as advance:
            run_job(defs, instance, "refresh", hours, failed, seconds)
            advance()
            run_job(defs, instance, "gold/leaderboard_24h", [], failed, seconds)
            advance()
        if instance.get_latest_materialization_event(dg.AssetKey(["gold", "dim_coin"])) is None:
            yesterday = day_key(floor_day(now) - DAY)
            if yesterday >= home.partitions_start.isoformat():
                run_job(defs, instance, "daily", [yesterday], failed, seconds)
    for line in failed:
        output.fail(line)
