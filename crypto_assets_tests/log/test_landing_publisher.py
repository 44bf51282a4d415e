"""What the producer leaves in the folders, and what it says when it cannot."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crypto_assets.contracts.slices import HOUR
from crypto_assets.log.errors import PublishFailed
from crypto_assets.log.files.folder import content, hours, list_hour
from crypto_assets.log.files.publisher import LandingPublisher
from crypto_assets_tests.assets.log_tools import MINUTE, TEN
from crypto_assets_tests.builders import message, published


def publisher(root: Path, *, virtual: bool = True) -> LandingPublisher:
    return LandingPublisher(root, prices_topic="prices", polls_topic="polls", source="replay", virtual=virtual)


def test_a_flush_leaves_one_whole_file_an_hour_and_nothing_else(tmp_path: Path) -> None:
    landing = publisher(tmp_path)
    for at in (TEN + MINUTE, TEN + 2 * MINUTE, TEN + HOUR):
        landing.enqueue_prices([message("bitcoin", at)], poll_id="p", cadence_s=60, arrival=at)
    assert hours(tmp_path / "prices") == [], "nothing is there before the flush"
    assert landing.flush() == 3
    assert hours(tmp_path / "prices") == [TEN, TEN + HOUR]
    first = list_hour(tmp_path / "prices", TEN)
    assert (len(first.files), first.parts, first.others) == (1, (), ())
    found = content(first.files[0])
    assert found is not None
    assert (found.lines, found.whole) == (2, True)
    record = json.loads(first.files[0].path.read_text(encoding="utf-8").splitlines()[0])
    assert json.loads(record["value"]) == message("bitcoin", TEN + MINUTE)
    assert record["headers"] == {"cadence_s": "60", "poll_id": "p", "schema_version": "1", "source": "replay"}


def test_the_same_records_sent_again_are_the_same_file(tmp_path: Path) -> None:
    for _ in range(2):
        with publisher(tmp_path) as landing:
            published(landing, [message("bitcoin", TEN)], poll_id="p", cadence_s=60, arrival=TEN)
    assert len(list_hour(tmp_path / "prices", TEN).files) == 1


def test_a_live_record_is_stamped_when_it_lands(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    with publisher(tmp_path, virtual=False) as landing:
        published(landing, [message("bitcoin", TEN)], poll_id="p", cadence_s=60)
    after = datetime.now(UTC)
    path = next((tmp_path / "prices").rglob("*.jsonl"))
    stamped = datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["timestamp"])
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= stamped <= after
    assert hours(tmp_path / "prices") == [stamped.replace(minute=0, second=0, microsecond=0)]


def test_a_folder_that_cannot_be_written_is_a_failed_publication(tmp_path: Path) -> None:
    (tmp_path / "prices").write_text("a file where the folder should be", encoding="utf-8")
    with publisher(tmp_path) as landing:
        landing.enqueue_prices([message("bitcoin", TEN)], poll_id="p", cadence_s=60, arrival=TEN)
        with pytest.raises(PublishFailed, match="CRYPTO_ASSETS_LANDING") as failed:
            landing.flush()
        assert "1 messages of prices" in str(failed.value)
        assert landing.flush() == 0


def test_an_invalid_message_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with publisher(tmp_path) as landing, pytest.raises(PublishFailed, match="price_usd"):
        published(landing, [message("bitcoin", TEN, "1e5")], poll_id="p", cadence_s=60, arrival=TEN)
    assert hours(tmp_path / "prices") == []
