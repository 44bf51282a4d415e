"""Fixtures with a home that is filled the way the demo fills one, for any test of the suite (a pytest plugin).

`filled_home` (session) is built once: a replay of three coins, polled every five minutes through the stand-in and
Kafka, refreshed by range runs of the job `refresh` on the home's real Dagster instance. `small_home` (module) is a copy
of it that a test module may change. All copies share the topics, so what a test publishes arrives in `next_hour()`.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from crypto_assets.cli.instance import open_instance
from crypto_assets.cli.runs import run_job
from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.contracts.slices import DAY, HOUR, Slice, contiguous, day_key, floor_day, floor_hour, hour_key
from crypto_assets.contracts.tables import TABLES
from crypto_assets.definitions import build_definitions
from crypto_assets.home import Home, open_home
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from crypto_assets.engine.base import Engine
    from crypto_assets_tests.kafka_fixtures import RunningBroker

VOLATILE = {
    *("bronze_ingested_at", "scored_at", "latency_s", "inference_ms", "made_at", "decided_at", "refreshed_at", "age_s"),
    *("batch_id", "seq"),
    *CHAIN_COLUMNS,
}
"""Columns that say when or by which write, not what."""

POLL_PHASE = timedelta(seconds=59, milliseconds=500)
POLL_EVERY = timedelta(minutes=5)


@dataclass
class SmallHome:
    """A filled home with its open Dagster instance.

    Args:
        settings: Settings that any process of the home would use.
        home: The bound home.
        instance: Its Dagster instance.
        defs: Its definitions.
        event_hour: Hour H that late records of the tests belong to.
        hours: Materialized hours in order: H..H+2 and H+25..H+29.
    """

    settings: Settings
    home: Home
    instance: dg.DagsterInstance
    defs: dg.Definitions
    event_hour: datetime
    hours: list[str] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        from crypto_assets.engine.engines import make_engine

        return make_engine(self.settings)

    @property
    def repository(self) -> dg.RepositoryDefinition:
        return self.defs.get_repository_def()

    @property
    def graph(self) -> Any:
        return self.defs.resolve_asset_graph()

    @property
    def days(self) -> list[str]:
        """Both days whose bars and accuracy are materialized; H lies in the first."""
        return [day_key(self.event_hour), day_key(self.event_hour + DAY)]

    def hour(self, after: int) -> str:
        """Key of the hour so many hours after H."""
        return hour_key(self.event_hour + after * HOUR)

    def next_hour(self) -> datetime:
        """An hour in which nothing has arrived yet, by any module of the session: H+30 or later, and in the past."""
        from crypto_assets.log.kafka.client import client_config
        from crypto_assets.log.kafka.offsets import newest_timestamp_ms

        newest = newest_timestamp_ms(client_config(self.settings), self.settings.prices_topic)
        after = floor_hour(datetime.fromtimestamp(newest / 1000, UTC)) + HOUR
        found = max(self.event_hour + 30 * HOUR, after)
        assert found + HOUR < datetime.now(UTC)
        return found

    def run(self, job: str, keys: Sequence[str]) -> None:
        """Run a job over a contiguous range in this process; every step must succeed."""
        failed: list[str] = []
        run_job(self.defs, self.instance, job, keys, failed, {})
        assert failed == [], "\n".join(failed)

    def run_partitions(self, partitions: Mapping[dg.AssetKey, Sequence[str]]) -> None:
        """Materialize partitions of assets in the order given, one range run a contiguous piece, as a backfill does."""
        for key, wanted in partitions.items():
            for _, piece in contiguous(wanted, "hour" if ":" in wanted[0] else "day"):
                self.run(key.to_user_string(), piece)

    def rows(self, table: str) -> list[tuple]:
        """All rows of a table without what says when or by which write, sorted."""
        names = [c for c in TABLES[table].column_names if c not in VOLATILE]
        found = self.engine.store.read_arrow(table, columns=names)
        return sorted(zip(*(found.column(n).to_pylist() for n in names), strict=True), key=repr)

    def everything(self) -> dict[str, list[tuple]]:
        """Rows of every table by name."""
        return {name: self.rows(name) for name in TABLES}

    def hours_of(self, table: str, rows: Sequence[tuple]) -> set[str]:
        """Hourly keys of rows that `rows` returned."""
        names = [c for c in TABLES[table].column_names if c not in VOLATILE]
        column = TABLES[table].time_column
        assert column is not None
        at = names.index(column)
        return {hour_key(row[at]) for row in rows}

    def send_late(self, event: datetime, arrival: datetime, price: str, coin: str = "bitcoin") -> None:
        """Publish one price record as a producer would, with its event long before its arrival."""
        from crypto_assets.log.kafka.client import client_config
        from crypto_assets.log.kafka.publisher import Publisher
        from crypto_assets_tests.builders import message, published

        with Publisher(
            client_config(self.settings),
            prices_topic=self.settings.prices_topic,
            polls_topic=self.settings.polls_topic,
            source=self.settings.source,
            virtual=True,
        ) as publisher:
            assert published(
                publisher,
                [message(coin, event, price)],
                poll_id=f"late-{uuid.uuid4().hex[:8]}",
                cadence_s=300,
                arrival=arrival,
            )


@contextmanager
def opened(settings: Settings, event_hour: datetime, hours: Sequence[str]) -> Iterator[SmallHome]:
    """A home of these settings with its instance; the process's DAGSTER_HOME is put back afterwards."""
    before = os.environ.get("DAGSTER_HOME")
    home = open_home(settings)
    try:
        with open_instance(home) as instance:
            yield SmallHome(settings, home, instance, build_definitions(settings), event_hour, list(hours))
    finally:
        os.environ.pop("DAGSTER_HOME", None)
        if before is not None:
            os.environ["DAGSTER_HOME"] = before


def settings_of(path: Path, broker: RunningBroker, **changed: Any) -> Settings:
    """Settings of a replay home on the session's broker with topics of its own."""
    name = uuid.uuid4().hex[:8]
    plain = {
        "source": "replay",
        "home_path": path,
        "kafka_bootstrap_servers": broker.bootstrap_servers,
        "kafka_topic": f"prices-{name}",
        "kafka_polls_topic": f"polls-{name}",
    }
    return Settings(_env_file=None, **{**plain, **changed})  # type: ignore[call-arg]


def moments(span: Slice) -> list[datetime]:
    """A poll every five minutes, half a second after the recording's quote of that minute."""
    first = span.start + POLL_EVERY - timedelta(minutes=1) + POLL_PHASE
    return [first + i * POLL_EVERY for i in range(int((span.end - span.start) / POLL_EVERY))]


@pytest.fixture(scope="session")
def filled_home(
    kafka_broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, datetime, list[str]]:
    """Settings, event hour and hours of the home that `small_home` copies. Its days lie before today."""
    from crypto_assets.producer.loop import open_producer

    day = floor_day(datetime.now(UTC)) - 4 * DAY
    event_hour = day + 20 * HOUR
    spans = [Slice(event_hour, event_hour + 3 * HOUR), Slice(event_hour + 25 * HOUR, event_hour + 30 * HOUR)]
    settings = settings_of(
        tmp_path_factory.mktemp("filled") / "home", kafka_broker, partitions_start=(day - 120 * DAY).date()
    )
    keys = [hour_key(h) for s in spans for h in s.hours()]
    with opened(settings, event_hour, keys) as home:
        with open_producer(settings, anchor=day.date()) as producer:
            producer.catch_up([m for s in spans for m in moments(s)])
        # All records first: the last slot of a span is closed only when later records are there.
        for job in ("bronze/raw_prices", "refresh"):
            for span in spans:
                home.run(job, [hour_key(h) for h in span.hours()])
        for asset in ("gold/bars_1d", "gold/prediction_accuracy", "gold/volatility_accuracy"):
            home.run(asset, home.days)
    return settings, event_hour, keys


@pytest.fixture(scope="module")
def small_home(
    filled_home: tuple[Settings, datetime, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SmallHome]:
    """A copy of the filled home for one test module."""
    settings, event_hour, keys = filled_home
    path = tmp_path_factory.mktemp("small") / "home"
    shutil.copytree(settings.home, path)
    with opened(settings.model_copy(update={"home_path": path}), event_hour, keys) as home:
        yield home
