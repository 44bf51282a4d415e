"""Preparation by `up` before automation starts: topics, today's recording so far, and the first runs of every asset.

`python -m crypto_assets.cli.catch_up` brings the home that the environment names to the present, as a child of `up`:
engine and Dagster take 0.4 GB that `up` itself would keep as long as it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg

from crypto_assets.cli import output
from crypto_assets.cli.demo import poll_moments
from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.runs import Scheduled
from crypto_assets.cli.signals import stop_if_asked, stop_requested
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, floor_hour, hour_keys, key_slice
from crypto_assets.faults import reported
from crypto_assets.home import Home, existing_home, in_force
from crypto_assets.producer.loop import open_producer
from crypto_assets.settings import Settings, load_settings, prepare_embedded_engine
from crypto_assets.wiring import build_definitions

MOST_DAYS = 2
"""Days before today of which an outage is caught up; what lies further back is a backfill's."""


def run(settings: Settings, home: Home, now: datetime) -> None:
    """Bring a home to the present.

    Every hour since the newest one that was made is made, for an outage of at most `MOST_DAYS`. A live home that begins
    gets its topics and an empty partition of the running hour. A replay or simulator home is also polled for the time
    since its last poll (at first, since midnight).

    Args:
        settings: Settings of the home.
        home: The home, whose broker runs.
        now: Present time (UTC).
    """
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
    if last_poll_at is None:
        return poll_moments(floor_day(now), now)
    start = max(last_poll_at, floor_day(now) - MOST_DAYS * DAY)
    return [m for m in poll_moments(start, now) if m > last_poll_at]


def _first_runs(settings: Settings, home: Home, now: datetime) -> None:
    """Make what the hours so far, and the days that have ended, lack, so that the board is right when the UI opens."""
    with open_instance(home) as instance:
        made = instance.get_materialized_partitions(dg.AssetKey(["silver", "prices"]))
        defs = build_definitions(settings)
        hours = hours_wanted(settings, made, now)
        done = Scheduled(defs, instance, settings, _said).run(hours, days_wanted(hours, made, now), now)
    output.say(done.text)
    for line in done.failed:
        output.fail(line)


@contextmanager
def _said(text: str) -> Iterator[None]:
    output.say(f"{text} ...", style="dim")
    yield


def hours_wanted(settings: Settings, made: Set[str], now: datetime) -> list[str]:
    """Hours up to now, contiguous: of a recording all of today, of a live home those since its first.

    After an outage they begin with the newest hour that was made before it, at most `MOST_DAYS` before today.

    Args:
        settings: Settings of the home.
        made: Hours of Silver that were ever made.
        now: Present time (UTC).
    """
    today, running = floor_day(now), floor_hour(now)
    known = sorted(key_slice(hour, "hour").start for hour in made)
    first = max(today, min([*known, running])) if settings.is_live else today
    if known:
        first = min(first, max(known[-1], today - MOST_DAYS * DAY))
    return hour_keys(Slice(first, running + HOUR))


def days_wanted(hours: Sequence[str], made: Set[str], now: datetime) -> list[str]:
    """Days that have ended and of which an hour is wanted, and yesterday if any of its hours was made.

    Args:
        hours: Hours that are wanted.
        made: Hours of Silver that were ever made.
        now: Present time (UTC).
    """
    yesterday = day_key(floor_day(now) - DAY)
    ended = {hour[: len(yesterday)] for hour in hours} - {day_key(now)}
    return sorted(ended | {yesterday for hour in made if hour.startswith(yesterday)})


def main() -> None:
    """Catch up as a child of `up`, which reports a signal to the terminal."""
    prepare_embedded_engine()
    known: list[Settings] = []
    with reported(lambda: known[0] if known else None, output.fail), _stopped():
        known.append(load_settings())
        settings = known[0] = in_force(known[0])
        run(settings, existing_home(settings), datetime.now(UTC))


@contextmanager
def _stopped() -> Iterator[None]:
    """End with exit code 128 + signal, without a word, on a signal."""
    with stop_requested(interrupt=True, announce=False) as asked:
        try:
            yield
        except BaseException as error:
            if not asked.caused(error):
                raise
            raise SystemExit(128 + asked.number) from None


if __name__ == "__main__":
    main()
