"""A day of the real recording through Kafka and through landed files gives the same Silver and Gold.

Columns that say where a record lay, when it was written or by which write differ (`PLACE`); every other column of
every table is compared.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crypto_assets.assets import bars, bronze, latest, silver
from crypto_assets.contracts.messages import HEADER_SENT_AT
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, hour_keys
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import Result, StepInputs
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.log.files.folder import hour_folder
from crypto_assets.producer.loop import open_producer
from crypto_assets.settings import Settings
from crypto_assets_tests.home_fixtures import moments, settings_of

if TYPE_CHECKING:
    from crypto_assets_tests.kafka_fixtures import RunningBroker

pytestmark = pytest.mark.slow

PLACE = {
    *("topic", "topic_id", "partition", "offset", "range_start", "range_end", "seq", "batch_id"),
    *("bronze_ingested_at", "covered_offsets", "refreshed_at", "age_s"),
}
CLOCKED = {"latency_ms", "age_s"}
"""Columns of polls that the producer measures anew at every run."""
COMPARED = (
    *("bronze.raw_prices", "ops.polls", "silver.prices", "silver.quarantine"),
    *("gold.bars_1m", "gold.bars_5m", "gold.bars_1h", "gold.bars_1d", "gold.latest_prices"),
)


@dataclass
class Lake:
    """A home's day: settings, engine, what the last pass of Bronze reported."""

    settings: Settings
    day: datetime

    def __post_init__(self) -> None:
        self.engine = make_engine(self.settings)
        self.builder = StepInputBuilder(self.settings)
        self.hours = hour_keys(Slice(self.day, self.day + DAY))

    def inputs(self, reads_log: str | None = None) -> StepInputs:
        now = datetime.now(UTC)
        return self.builder.build(now=now, run_id="test-run", keys=self.hours, reads_log=reads_log)

    def pass_through(self) -> Result:
        """Every step of the day; the result of Bronze."""
        first = bronze.work(self.engine, self.hours, self.inputs("prices"))
        bronze.work_polls(self.engine, self.hours, self.inputs("polls"))
        for work in (silver.work, silver.work_quarantine, bars.work):
            work(self.engine, self.hours, self.inputs())
        bars.work_day(self.engine, [day_key(self.day)], self.inputs())
        latest.work(self.engine, [None], self.inputs())
        return first

    def rows(self, table: str) -> list[dict[str, Any]]:
        names = [c for c in TABLES[table].column_names if c not in PLACE | (CLOCKED if table == "ops.polls" else set())]
        rows = self.engine.store.read_arrow(table, columns=names).to_pylist()
        if table == "bronze.raw_prices":  # files carry no time of sending, or the same records sent again would differ
            for row in rows:
                row["headers"] = {k: v for k, v in json.loads(row["headers"]).items() if k != HEADER_SENT_AT}
        if table == "ops.polls":
            for row in rows:
                row["raw_json"] = {k: v for k, v in json.loads(row["raw_json"]).items() if k not in CLOCKED}
        return sorted(rows, key=repr)


@pytest.fixture(scope="module")
def lakes(kafka_broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Lake]:
    """The same day, polled every five minutes, through Kafka and through landed files."""
    day = floor_day(datetime.now(UTC)) - 3 * DAY
    kafka = settings_of(tmp_path_factory.mktemp("kafka") / "home", kafka_broker, partitions_start=day.date())
    names = {"kafka_topic": kafka.prices_topic, "kafka_polls_topic": kafka.polls_topic}
    landing = Settings(
        **{"_env_file": None, "source": "replay", "transport": "landing", "partitions_start": day.date(), **names},
        home_path=tmp_path_factory.mktemp("landing") / "home",
        kafka_bootstrap_servers="127.0.0.1:1",  # whoever asked a broker would fail
    )  # type: ignore[call-arg]
    found = []
    for settings in (kafka, landing):
        with open_producer(settings, anchor=day.date()) as producer:
            summary = producer.catch_up(moments(Slice(day, day + DAY)))
        assert summary.sent > 500
        found.append(Lake(settings, day))
        found[-1].pass_through()
    return found[0], found[1]


@pytest.mark.parametrize("table", COMPARED)
def test_every_column_that_says_what_is_the_same(lakes: tuple[Lake, Lake], table: str) -> None:
    kafka, landing = (lake.rows(table) for lake in lakes)
    assert landing == kafka
    assert kafka if table != "silver.quarantine" else not kafka


def test_coordinates_of_silver_lead_to_the_landed_file(lakes: tuple[Lake, Lake]) -> None:
    landing = lakes[1]
    quote = landing.engine.store.read_arrow("silver.prices").to_pylist()[-1]
    where = f"topic_id = '{quote['topic_id']}' AND \"offset\" = {quote['offset']}"
    record = landing.engine.store.read_arrow("bronze.raw_prices", where=where).to_pylist()[0]
    sha256 = record["topic"].split("/")[-1]
    files = list((landing.settings.landing / landing.settings.prices_topic).rglob(f"*-{sha256[:16]}.jsonl"))
    assert len(files) == 1
    values = [json.loads(line)["value"] for line in files[0].read_text(encoding="utf-8").splitlines()]
    assert record["raw_json"] in values


def test_disturbed_deliveries_give_the_same_silver_and_gold(lakes: tuple[Lake, Lake], tmp_path: Path) -> None:
    """Copies, new names, files cut and merged anew, a part file left over, a field added: nothing lost or doubled."""
    good = lakes[1]
    settings = good.settings.model_copy(update={"home_path": tmp_path / "home", "landing_path": tmp_path / "in"})
    shutil.copytree(good.settings.landing, settings.landing)
    for topic in (settings.prices_topic, settings.polls_topic):
        for at in Slice(good.day, good.day + DAY).hours():
            _disturb(hour_folder(settings.landing / topic, at), at.hour)
    with_field = _add_a_field(hour_folder(settings.landing / settings.prices_topic, good.day + 7 * HOUR))
    disturbed = Lake(settings, good.day)
    disturbed.pass_through()
    for table in COMPARED:
        if table == "bronze.raw_prices":
            now, before = disturbed.rows(table), good.rows(table)
            assert len(now) == len(before)
            assert [r["raw_json"] for r in now if r["raw_json"] not in {b["raw_json"] for b in before}] == [with_field]
        else:
            assert disturbed.rows(table) == good.rows(table), table
    result = disturbed.pass_through().tables["bronze.raw_prices"]
    assert result.metadata["run_rows_appended"] == 0


def _disturb(folder: Path, kind: int) -> None:
    files = sorted(folder.glob("*.jsonl"))
    first = files[0]
    if kind % 4 == 0:
        shutil.copy(first, folder / "copy.jsonl")
    elif kind % 4 == 1:
        first.rename(folder / f"{uuid.uuid4().hex}.jsonl")
    elif kind % 4 == 2:
        lines = [line for f in files for line in f.read_bytes().splitlines(keepends=True)]
        for f in files:
            f.unlink()
        for n in range(3):
            (folder / f"cut-{n}.jsonl").write_bytes(b"".join(lines[n::3]))
    else:
        (folder / "left.jsonl.part").write_bytes(first.read_bytes()[:100])
        (folder / "half.jsonl").write_bytes(first.read_bytes()[:-1])


def _add_a_field(folder: Path) -> str:
    """Put one more field into one message; its new text."""
    path = sorted(folder.glob("*.jsonl"))[0]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    envelope = json.loads(lines[0])
    envelope["value"] = envelope["value"][:-1] + ',"added":{"deep":[1,2]}}'
    path.write_text(json.dumps(envelope) + "\n" + "".join(lines[1:]), encoding="utf-8")
    return envelope["value"]


def test_what_is_sent_again_after_a_crash_is_the_same_file(lakes: tuple[Lake, Lake], tmp_path: Path) -> None:
    """The producer saves its state after landing: a crash in between makes it poll and land the same once more."""
    day = lakes[1].day
    settings = lakes[1].settings.model_copy(update={"home_path": tmp_path / "home", "landing_path": None})
    polls = moments(Slice(day, day + HOUR))
    for _ in range(2):
        with open_producer(settings, anchor=day.date()) as producer:
            producer.catch_up(polls)
        (settings.home / "state" / "producer.json").unlink()
    lake = Lake(settings, day)
    lake.hours = hour_keys(Slice(day, day + HOUR))
    lake.pass_through()
    sent = lake.rows("bronze.raw_prices")
    assert sent == [r for r in lakes[0].rows("bronze.raw_prices") if r["arrival_hour"] == day]
    assert timedelta(0) <= min(r["kafka_timestamp"] for r in sent) - day < HOUR
