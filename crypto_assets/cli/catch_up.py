"""What `up` does before automation starts: topics, today's recording up to now, and the first runs of every asset."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

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
    from crypto_assets.producer.loop import open_producer

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
    """Make what today's hours so far, and yesterday, lack, so that the board is right when the UI opens."""
    from crypto_assets.cli.runs import Scheduled
    from crypto_assets.wiring import build_definitions

    with open_instance(home) as instance:
        made = instance.get_materialized_partitions(dg.AssetKey(["silver", "prices"]))
        defs = build_definitions(settings)
        done = Scheduled(defs, instance, settings, _said).run(
            hours_wanted(settings, made, now), days_wanted(made, now), now
        )
    output.say(done.text)
    for line in done.failed:
        output.fail(line)


@contextmanager
def _said(text: str) -> Iterator[None]:
    output.say(f"{text} ...", style="dim")
    yield


def hours_wanted(settings: Settings, made: Set[str], now: datetime) -> list[str]:
    """Hours of today up to now: of a recording all, of a live home those since the first that was ever made.

    Args:
        settings: Settings of the home.
        made: Hours of Silver that were ever made.
        now: Present time (UTC).
    """
    hours = hour_keys(Slice(floor_day(now), floor_hour(now) + HOUR))
    if not settings.is_live:
        return hours
    first = min(made, default=hours[-1])
    return [h for h in hours if h >= first]


def days_wanted(made: Set[str], now: datetime) -> list[str]:
    """Yesterday, if any of its hours was made: a home that begins today has no day to close.

    Args:
        made: Hours of Silver that were ever made.
        now: Present time (UTC).
    """
    yesterday = day_key(floor_day(now) - DAY)
    return [yesterday] if any(hour.startswith(yesterday) for hour in made) else []
