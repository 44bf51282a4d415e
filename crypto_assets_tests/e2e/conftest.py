"""What the tests of launching share: a workspace, and a replay home with records in Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crypto_assets.contracts.slices import DAY, HOUR, Slice, floor_day, hour_key
from crypto_assets_tests.databricks_standin import Workspace
from crypto_assets_tests.e2e.launched_home import staged
from crypto_assets_tests.home_fixtures import moments, settings_of

if TYPE_CHECKING:
    from crypto_assets.settings import Settings
    from crypto_assets_tests.databricks_standin.jvms import Jvms


@pytest.fixture
def workspace(tmp_path: Path, jvms: Jvms) -> Iterator[Workspace]:
    """A workspace with the staging volume; at its end nothing is staged, and nothing unknown was asked of it."""
    with Workspace(tmp_path / "workspace", jvms=jvms) as found:
        found.volumes_api.create("crypto_analytics.ops.staging")
        yield found
        assert found.unknown == []
        assert found.defects == []
        assert staged(found) == []


@pytest.fixture
def publish(tmp_path: Path, kafka_broker) -> Callable[[int], tuple[Settings, list[str]]]:
    """Make a replay home with so many hours in Kafka, and give its settings and the hours' keys."""
    from crypto_assets.home import open_home
    from crypto_assets.producer.loop import open_producer

    def publish(hours: int) -> tuple[Settings, list[str]]:
        day = floor_day(datetime.now(UTC)) - 2 * DAY
        span = Slice(day + 2 * HOUR, day + (2 + hours) * HOUR)
        settings = settings_of(tmp_path / "home", kafka_broker, partitions_start=day.date())
        open_home(settings)
        with open_producer(settings, anchor=day.date()) as producer:
            producer.catch_up(moments(span))
        return settings, [hour_key(h) for h in span.hours()]

    return publish
