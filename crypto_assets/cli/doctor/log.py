"""Broker, topics, landing folders, and the clock as far as their records show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from crypto_assets.cli.doctor.finding import HTTP_TIMEOUT_S, SKEW_LIMIT_S, Finding, Level
from crypto_assets.log.errors import LogError, LogUnavailable
from crypto_assets.log.files import folder as landed
from crypto_assets.log.kafka import reading
from crypto_assets.log.kafka.client import client_config, unavailable
from crypto_assets.log.kafka.topic import admin_client, ensure_topics
from crypto_assets.settings import Settings


def kafka(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Broker, topics, and the broker's clock as far as records show it."""
    if settings.transport == "landing":
        yield from landing(settings, now)
        return
    try:
        config = client_config(settings)
        admin = admin_client(config)
        # Asks the broker and creates nothing; a missing topic is a separate finding below.
        listed = set(_topics(admin, config))
    except LogUnavailable as error:
        level: Level = "error" if settings.kafka_bootstrap_servers else "note"
        yield Finding("kafka", level, str(error), "crypto-assets broker start (crypto-assets up starts it too)")
        return
    yield Finding("kafka", "ok", f"broker answers at {config['bootstrap.servers']}")
    ours = (settings.prices_topic, settings.polls_topic)
    absent = [name for name in ours if name not in listed]
    if absent:
        yield Finding(
            "topics", "note", f"not there yet: {', '.join(absent)}", "crypto-assets broker start creates them"
        )
        return
    for status in ensure_topics(settings, now):
        for problem in status.problems:
            yield Finding("topics", "error", f"{status.topic}: {problem}", "the command is part of the finding")
        if not status.problems:
            yield Finding("topics", "ok", f"{status.topic}: {status.partitions} partitions, as exact hours need it")
    try:
        newest = reading.newest_timestamp_ms(settings, settings.prices_topic) / 1000
    except LogError as error:
        yield Finding("clock", "warn", f"the newest record cannot be asked: {error}", "crypto-assets broker status")
        return
    ahead = newest - now.timestamp()
    if newest > 0 and ahead > SKEW_LIMIT_S:
        yield Finding(
            "clock",
            "error",
            f"the newest record is stamped {ahead:,.0f} s in the future: the clocks of broker and this machine differ",
            "synchronise both clocks (NTP); hours are cut by the broker's clock",
        )


def landing(settings: Settings, now: datetime) -> Iterator[Finding]:
    """The folders of landed files, and in their newest hour what will not be read as it is.

    Neither the number of waiting files is checked here (`status` measures it), nor whether a cluster sees the
    same folder.
    """
    for topic in (settings.prices_topic, settings.polls_topic):
        place = settings.landing / topic
        if not place.is_dir():
            yield Finding(
                "landing", "note", f"{place} does not exist yet", "the producer makes it: crypto-assets produce --once"
            )
            continue
        known = landed.hours(place)
        if not known:
            yield Finding("landing", "note", f"{place} is empty", "crypto-assets produce --once")
            continue
        newest = landed.list_hour(place, known[-1])
        yield Finding("landing", "ok", f"{place}: {len(known):,} hours, newest {known[-1]:%Y-%m-%d %H}:00Z")
        cut = [f.path.name for f in newest.files if (found := landed.content(f)) is not None and not found.whole]
        if cut or newest.others:
            problems = [f"without a newline at the end: {', '.join(cut[:5])}"] if cut else []
            problems += [f"not named *.jsonl: {', '.join(newest.others[:5])}"] if newest.others else []
            yield Finding(
                "landing",
                "warn",
                f"{place}: files that are not read, {'; '.join(problems)}",
                "deliver whole *.jsonl files",
            )
        if (known[-1] - now).total_seconds() > SKEW_LIMIT_S:
            yield Finding(
                "clock",
                "error",
                f"{place} has a folder of an hour that has not begun: {known[-1]:%Y-%m-%d %H}:00Z",
                "synchronise the clocks (NTP) of the machine that writes files and this one",
            )


def _topics(admin: object, config: Mapping[str, object]) -> list[str]:
    from confluent_kafka import KafkaException

    try:
        return list(admin.list_topics(timeout=HTTP_TIMEOUT_S).topics)  # type: ignore[attr-defined]
    except KafkaException as error:
        raise unavailable(dict(config), "list the topics", error.args[0]) from error
