"""The declarative pipeline: `spark-pipelines` over a real log gives the tables that the assets give.

The log holds a night of the recording (a piece of two days), and after it records of every kind that Silver has to
refuse or to leave out: repeated, late, wrong, not JSON, not text. History replies fill hours in which nothing was
polled. The pipeline runs once for the whole file, in a process of its own.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import yaml
from pydantic import SecretStr

from crypto_assets.assets import bars, bronze, dims, latest, silver
from crypto_assets.cli.lake_difference import compare
from crypto_assets.contracts.arrow import arrow_schema, empty_rows
from crypto_assets.contracts.messages import QUARANTINE_REASONS
from crypto_assets.contracts.model import Table
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, floor_day, hour_keys
from crypto_assets.contracts.tables import BARS_5M, MARKET_HISTORY, RAW_PRICES, SILVER_PRICES, TABLES
from crypto_assets.databricks.pipeline import bronze as pipeline_bronze
from crypto_assets.databricks.pipeline import configuration, local
from crypto_assets.databricks.pipeline.datasets import DATASETS, dataset_name, declare
from crypto_assets.databricks.pipeline.expectations import FAIL, KEEP, UNIQUE_KEY, expectations, violations
from crypto_assets.engine.base import StepInputs
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import StepInputBuilder
from crypto_assets.home import HomeError, open_home
from crypto_assets.producer.loop import open_producer
from crypto_assets.settings import Settings
from crypto_assets_tests import short_lived_jvm
from crypto_assets_tests.builders import history_rows, message, rfc3339, silver_rows
from crypto_assets_tests.e2e.commands import clean_environment
from crypto_assets_tests.home_fixtures import moments, settings_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from crypto_assets_tests.kafka_fixtures import RunningBroker

pytestmark = [
    pytest.mark.engine("local"),  # the assets' side; the pipeline brings its own Spark
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).resolve().parents[2]
CLOCKED = {"gold.latest_prices": {"refreshed_at"}}
"""Columns that say when a table was made."""
HEADERS = {"schema_version": "1", "source": "replay", "cadence_s": "300", "poll_id": "by-hand"}


@dataclass(frozen=True)
class Made:
    """Two lakes of one log: of the assets, and of the pipeline with the report of its run."""

    settings: Settings
    inputs: StepInputs
    assets: Path
    pipeline: Path
    report: Mapping[str, Any]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Rows of the assets' table."""
        return make_engine(self.settings).store.read_arrow(table).to_pylist()


def night(day: datetime) -> Slice:
    return Slice(day + 22 * HOUR, day + 26 * HOUR)


def odd_records(day: datetime) -> list[tuple[Mapping[str, Any] | bytes | None, dict[str, str]]]:
    """Values and headers that arrive after the night, in this order."""
    end = night(day).end
    good = message("bitcoin", end + 1 * HOUR / 2, "7000.000000000000000001")
    return [
        (good, HEADERS),
        (good, HEADERS),  # delivered twice
        ({**good, "price_usd": "9999"}, HEADERS),  # the same quote, told otherwise later
        (message("ethereum", end - 3 * HOUR / 2, "400.5"), HEADERS),  # an hour that was over
        (message("ethereum", end + HOUR / 2, "4.005e2"), HEADERS),
        (message("litecoin", end + HOUR / 2, "120", market_cap_usd=None, symbol="ltc"), HEADERS),
        (b"\xff\xfe\x00", HEADERS),
        (b"{not json", HEADERS),
        (None, HEADERS),
        (message(event=end), {**HEADERS, "schema_version": "2"}),
        (message(event=end), {}),
        (message(event=end, symbol=...), HEADERS),
        (message(event=end, price="many"), HEADERS),
        (message(event=end, price="-1"), HEADERS),
        (message(event="yesterday"), HEADERS),
        (message(event=end + DAY), HEADERS),
        (message("no-such-coin", end), HEADERS),
        (message(event=day - HOUR), HEADERS),
        ({**message(event="yesterday", price="0"), "coin_id": "no-such-coin"}, {**HEADERS, "note": 'a "quoted" ü\n'}),
        (b'{"last_updated_at":"2020-01-01T00:00:00Z","last_updated_at":"2021-01-01T00:00:00Z"}', HEADERS),
    ]


def publish_odd(broker: RunningBroker, topic: str, day: datetime) -> None:
    from confluent_kafka import Producer

    failed: list[str] = []
    producer = Producer({**broker.config, "acks": "all"})
    start = night(day).end + timedelta(minutes=35)
    for number, (value, headers) in enumerate(odd_records(day)):
        producer.produce(
            topic,
            key=b"\xfe" if number % 7 == 3 else f"key-{number}".encode(),
            value=json.dumps(value).encode() if isinstance(value, Mapping) else value,
            partition=number % 3,
            headers=[(k, v.encode()) for k, v in headers.items()],
            timestamp=int((start + timedelta(minutes=2 * number)).timestamp() * 1000),
            on_delivery=lambda error, _m: failed.append(str(error)) if error else None,
        )
    assert producer.flush(30) == 0
    assert failed == []


def replies(day: datetime) -> pa.Table:
    """History of two coins: before anything was polled, and across slots that have samples."""

    def points(first: datetime, count: int) -> dict[str, list[list[Any]]]:
        at = [int((first + i * timedelta(minutes=5)).timestamp() * 1000) for i in range(count)]
        return {
            "prices": [[t, 6000 + i / 8] for i, t in enumerate(at)],
            "market_caps": [[t, 1e11] for t in at[:-1]],
            "total_volumes": [[t, 5e9 + t % 1000] for t in at],
        }

    return history_rows(
        [
            ("bitcoin", day, "5m", points(day + 21 * HOUR, 36)),
            ("ethereum", day, "1h", points(day + 3 * HOUR, 3)),
        ],
        fetched_at=day + 30 * HOUR,
    )


def by_the_assets(settings: Settings, day: datetime) -> StepInputs:
    """Every step over both days; the inputs of the last one."""
    engine, builder = make_engine(settings), StepInputBuilder(settings)
    hours, days = hour_keys(Slice(day, day + 2 * DAY)), [day_key(day), day_key(day + DAY)]

    def inputs(reads_log: str | None = None) -> StepInputs:
        return builder.build(now=datetime.now(UTC), run_id="test-run", keys=hours, reads_log=reads_log)

    of_day = Slice(day, day + DAY)
    engine.store.replace_slice(
        MARKET_HISTORY.full_name, of_day, lambda: replies(day), audit=lambda _rows: None, now=datetime.now(UTC)
    )
    bronze.work(engine, hours, inputs("prices"))
    for work in (silver.work, silver.work_quarantine, bars.work):
        work(engine, hours, inputs())
    bars.work_day(engine, days, inputs())
    dims.work_dim_coin(engine, [None], inputs())
    latest.work(engine, [None], inputs())
    return inputs()


@pytest.fixture(scope="module")
def made(kafka_broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same log through the assets and, in one run of `spark-pipelines`, through the pipeline."""
    day = floor_day(datetime.now(UTC)) - 4 * DAY
    settings = settings_of(tmp_path_factory.mktemp("assets") / "home", kafka_broker, partitions_start=day.date())
    with open_producer(settings, anchor=day.date()) as producer:
        assert producer.catch_up(moments(night(day))).sent > 100
    publish_odd(kafka_broker, settings.prices_topic, day)
    inputs = by_the_assets(settings, day)
    folder = tmp_path_factory.mktemp("pipeline")
    report = run_locally(settings, folder / "run")
    lake = folder / "lake"
    for table in DATASETS:
        (lake / table.schema).mkdir(parents=True, exist_ok=True)
        schema, name = dataset_name(table).split(".")
        (lake / table.schema / table.name).symlink_to(folder / "run" / "warehouse" / f"{schema}.db" / name)
    return Made(settings, inputs, Path(settings.lake), lake, report)


def run_locally(settings: Settings, folder: Path) -> dict[str, Any]:
    """Run the pipeline as a person does, in a process of its own."""
    environment = {
        **clean_environment(),
        "CRYPTO_ASSETS_HOME": str(settings.home),
        "CRYPTO_ASSETS_SOURCE": settings.source,
        "KAFKA_BOOTSTRAP_SERVERS": str(settings.kafka_bootstrap_servers),
        "KAFKA_TOPIC": settings.prices_topic,
        "JDK_JAVA_OPTIONS": short_lived_jvm.OPTIONS,
    }
    command = [sys.executable, "-m", "crypto_assets.databricks.pipeline.local", str(folder)]
    done = subprocess.run(
        command, env=environment, cwd=folder.parent, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout)


# --- the same tables --------------------------------------------------------------------------------------------------


@pytest.mark.acceptance
@pytest.mark.kafka
@pytest.mark.parametrize("table", DATASETS, ids=lambda t: t.full_name)
def test_the_pipeline_gives_the_table_that_the_assets_give(made: Made, table: Table) -> None:
    (found,) = compare(made.assets, made.pipeline, {table.full_name: table})
    assert found.rows[0] > 0
    assert found.rows[0] == found.rows[1]
    assert found.only == (0, 0), found.examples
    assert set(found.cells) <= CLOCKED.get(table.full_name, set()), found.examples
    assert made.report[dataset_name(table)]["rows"] == found.rows[0]


@pytest.mark.acceptance
@pytest.mark.kafka
def test_the_log_held_what_makes_the_comparison_worth_something(made: Made) -> None:
    refused = made.rows("silver.quarantine")
    assert {reason for row in refused for reason in row["reasons"]} == set(QUARANTINE_REASONS)
    records, quotes = made.rows("bronze.raw_prices"), made.rows("silver.prices")
    live = [q for q in quotes if q["granularity"] == "tick"]
    assert len(records) > len(live) + len(refused)  # some repeat a quote
    assert {q["granularity"] for q in quotes} == {"tick", "5m", "1h"}
    assert {b["is_closed"] for b in made.rows("gold.bars_1d")} == {True, False}  # the first day is over
    assert len({b["day"] for b in made.rows("gold.bars_1d")}) == 2


@pytest.mark.acceptance
@pytest.mark.kafka
def test_a_run_reports_violated_rules_and_no_blocking_one(made: Made) -> None:
    assert set(made.report) == {dataset_name(t) for t in DATASETS}
    for table in DATASETS:
        broken = made.report[dataset_name(table)]["violations"]
        assert set(broken) <= set(expectations(table)[KEEP])
    few = [b for b in made.rows("gold.bars_5m") if b["is_closed"] and not b["is_complete"]]
    assert made.report[dataset_name(BARS_5M)]["violations"].get("complete_windows", 0) == len(few)


# --- what is declared -------------------------------------------------------------------------------------------------


class Recorder:
    """Stands in for `pyspark.pipelines` of Databricks: keeps what is declared, with its expectations."""

    def __init__(self, *, knows_expectations: bool = True) -> None:
        self.kinds: dict[str, str] = {}
        self.queries: dict[str, Callable[[], Any]] = {}
        self.expected: dict[str, dict[str, dict[str, str]]] = {}
        if knows_expectations:
            self.expect_all_or_fail, self.expect_all = self._expecting(FAIL), self._expecting(KEEP)

    def table(self, **given: Any) -> Callable[..., None]:
        return self._dataset("table", given)

    def materialized_view(self, **given: Any) -> Callable[..., None]:
        return self._dataset("materialized_view", given)

    def _dataset(self, kind: str, given: dict[str, Any]) -> Callable[..., None]:
        def keep(query: Callable[[], Any]) -> None:
            self.kinds[given["name"]] = kind
            self.queries[given["name"]] = query
            self.expected[given["name"]] = dict(getattr(query, "expectations", {}))

        return keep

    @staticmethod
    def _expecting(how: str) -> Callable[[dict[str, str]], Callable[..., Callable[[], Any]]]:
        def with_conditions(conditions: dict[str, str]) -> Callable[..., Callable[[], Any]]:
            def decorate(query: Callable[[], Any]) -> Callable[[], Any]:
                def decorated() -> Any:
                    return query()

                decorated.expectations = {**getattr(query, "expectations", {}), how: conditions}  # type: ignore[attr-defined]
                return decorated

            return decorate

        return with_conditions


def declared(dp: Recorder, **told: str) -> Recorder:
    values = {"topic": "prices", "kafka_bootstrap_servers": "h:1", "partitions_start": "2024-01-01", **told}
    read = configuration.read(lambda key, default: values.get(key.removeprefix(configuration.PREFIX), default))
    declare(dp, None, read, None)  # type: ignore[arg-type]  # queries are not asked for
    return dp


def test_every_dataset_is_declared_and_every_rule_is_an_expectation() -> None:
    dp = declared(Recorder())
    assert dp.kinds == {
        dataset_name(t): "table" if t.full_name == RAW_PRICES.full_name else "materialized_view" for t in DATASETS
    }
    for table in DATASETS:
        found = dp.expected[dataset_name(table)]
        required = {f"{c.name}_not_null" for c in table.columns if not c.nullable}
        assert set(found[FAIL]) == required | {r.name for r in table.rules if r.blocking}
        assert set(found.get(KEEP, {})) == {r.name for r in table.rules if not r.blocking}
        assert all(r.sql in found[FAIL if r.blocking else KEEP][r.name] for r in table.rules)


def test_only_rules_on_the_ledger_of_writes_are_not_rendered() -> None:
    contracts = {t.full_name: TABLES[t.full_name] for t in DATASETS}
    left_out = {(n, r.name) for n, t in contracts.items() for r in t.rules} - {
        (t.full_name, r.name) for t in DATASETS for r in t.rules
    }
    assert left_out == {("bronze.raw_prices", "offsets_in_range"), ("bronze.raw_prices", "not_stamped_ahead")}
    for table in DATASETS:
        columns = contracts[table.full_name].columns
        lacking = [c.name for c in columns if c not in table.columns]
        assert lacking == (list(pipeline_bronze.LEDGER) if table.full_name == "bronze.raw_prices" else [])


def test_without_expectations_the_same_datasets_are_declared() -> None:
    plain = declared(Recorder(knows_expectations=False))
    assert plain.kinds == declared(Recorder()).kinds
    assert set(map(len, plain.expected.values())) == {0}


# --- rules as queries -------------------------------------------------------------------------------------------------


def count(spark: SparkSession, table: Table, rows: pa.Table) -> dict[str, int]:
    """Violations by rule, those that hold left out."""
    from crypto_assets.engine.sail import frame

    name = f"rules_of_{table.name}"
    frame(spark, rows).createOrReplaceTempView(name)
    found = spark.sql(violations(table, name)).toArrow().to_pylist()[0]
    spark.catalog.dropTempView(name)
    return {rule: n for rule, n in found.items() if n}


MOMENT = datetime(2024, 5, 1, 10, 0, 30, tzinfo=UTC)
GOOD = {"coin_id": "bitcoin", "last_updated_at": MOMENT, "price_usd": "100.5"}
BAD: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a price of zero": ({"price_usd": "0"}, {"price_positive"}),
    "later than its arrival": ({"available_at": MOMENT - timedelta(minutes=2)}, {"event_not_after_arrival"}),
    "in another hour": ({"hour": MOMENT.replace(hour=9, second=0)}, {"hour_matches_event"}),
    "a negative volume": ({"volume_24h_usd": -1}, {"volume_not_negative"}),
    "no source": ({"source": None}, {"source_not_null"}),
    "no hour, so no rule on it can hold": ({"hour": None}, {"hour_not_null", "hour_matches_event"}),
}


@pytest.mark.parametrize("case", BAD)
def test_a_query_finds_rows_that_break_a_rule(spark: SparkSession, case: str) -> None:
    changed, rules = BAD[case]
    schema = pa.schema([f.with_nullable(True) for f in arrow_schema(SILVER_PRICES)])
    good = silver_rows([GOOD, {**GOOD, "coin_id": "ethereum"}]).cast(schema)
    assert count(spark, SILVER_PRICES, good) == {}
    bad = good.to_pylist()[0] | {"coin_id": "litecoin"} | {k: _typed(k, v) for k, v in changed.items()}
    rows = pa.concat_tables([good, pa.Table.from_pylist([bad], schema=schema)])
    assert count(spark, SILVER_PRICES, rows) == dict.fromkeys(rules, 1)


def _typed(name: str, value: Any) -> Any:
    return Decimal(value) if SILVER_PRICES.column(name).type.startswith("decimal") else value


def test_a_query_finds_repeated_keys(spark: SparkSession) -> None:
    rows = silver_rows([GOOD, GOOD, {**GOOD, "coin_id": "ethereum"}])
    assert count(spark, SILVER_PRICES, rows) == {UNIQUE_KEY: 1}
    assert count(spark, SILVER_PRICES, empty_rows(SILVER_PRICES)) == {}


# --- configuration ----------------------------------------------------------------------------------------------------


def test_the_bundle_tells_the_pipeline_exactly_what_it_understands() -> None:
    (pipeline,) = yaml.safe_load((ROOT / "deploy/databricks.yml").read_text())["resources"]["pipelines"].values()
    ours = {k: v for k, v in pipeline["configuration"].items() if k.startswith(configuration.PREFIX)}
    assert {k.removeprefix(configuration.PREFIX) for k in ours} <= set(configuration.KEYS)
    filled = {k: v.replace("${var.partitions_start}", "2024-05-01") for k, v in ours.items()}
    read = configuration.read(filled.get)
    assert read.kafka["security.protocol"] == "SASL_SSL"
    assert read.password_at == ("crypto-assets", "kafka-sasl-password")
    assert read.history == "${var.catalog}.bronze.market_history"
    assert [c.coin_id for c in read.coins][:2] == ["bitcoin", "ethereum"]
    assert pipeline["configuration"]["spark.sql.session.timeZone"] == "UTC"


def test_every_problem_of_a_configuration_is_named_at_once(tmp_path: Path) -> None:
    coins = tmp_path / "coins.toml"
    coins.write_text("[[coin]]\nsymbol = 'X'\n")
    told = {
        "coins": str(coins), "partitions_start": "soon", "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_password_at": "nowhere",
    }  # fmt: skip
    with pytest.raises(configuration.ConfigurationError) as refused:
        configuration.read(lambda key, default: told.get(key.removeprefix(configuration.PREFIX), default))
    for key in ("topic", "kafka_bootstrap_servers", "coins", "partitions_start", "kafka_sasl_password_at",
                "kafka_sasl_username"):  # fmt: skip
        assert f"{configuration.PREFIX}{key}" in str(refused.value)
    told = {"source": "kraken"}
    with pytest.raises(configuration.ConfigurationError, match="'kraken' is not a source"):
        configuration.read(lambda key, default: told.get(key.removeprefix(configuration.PREFIX), default))


def test_a_local_run_refuses_what_it_cannot_do_before_anything_starts(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        home_path=tmp_path / "home",
        kafka_bootstrap_servers="127.0.0.1:1",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username="user",
        kafka_sasl_password=SecretStr("planted"),
    )
    with pytest.raises(HomeError, match="crypto-assets demo"):
        local.run(settings, tmp_path / "new")
    open_home(settings)
    with pytest.raises(configuration.ConfigurationError, match="KAFKA_SECURITY_PROTOCOL") as refused:
        local.run(settings, tmp_path / "new")
    assert "planted" not in str(refused.value)
    assert not (tmp_path / "new").exists()
    with pytest.raises(configuration.ConfigurationError, match="is not empty"):
        local.run(settings, settings.home)
    with pytest.raises(configuration.ConfigurationError, match="part of a checkout"):
        local.run(settings, tmp_path / "new", pipeline=tmp_path / "absent.py")


# --- on workers and drivers that have less ----------------------------------------------------------------------------

AS_THE_DRIVER_SENDS = """
import pickle
from datetime import UTC, datetime
from pyspark import cloudpickle
from crypto_assets.databricks.pipeline.bronze import row_maker, travel_by_value
travel_by_value()
make = row_maker("t", "id", datetime(2024, 1, 1, tzinfo=UTC))
cloudpickle.dump({"make": make, "batch": pickle.load(given)}, open(path, "wb"))
"""
ON_A_WORKER = """
import json, sys
sys.path.append({site!r})
import importlib.util
assert importlib.util.find_spec("crypto_assets") is None
import pyarrow as pa
from pyspark import cloudpickle
given = cloudpickle.load(open({path!r}, "rb"))
rows = [row for batch in given["make"](iter([given["batch"]])) for row in batch.to_pylist()]
hours = [[r[name] and r[name].hour for name in ("arrival_hour", "event_hour")] for r in rows]
print(json.dumps([[*found, r["headers"], r["raw_json"]] for found, r in zip(hours, rows)]))
"""


def test_rows_of_bronze_are_made_where_the_package_is_not_installed(tmp_path: Path) -> None:
    ten = datetime(2024, 5, 1, 10, 59, 59, tzinfo=UTC)
    value = json.dumps({"last_updated_at": rfc3339(ten)}).encode()
    header = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([0, 0], pa.int32()),
            pa.array([7, 8], pa.int64()),
            pa.array([ten, ten + timedelta(seconds=2)], pa.timestamp("us", "UTC")),
            pa.array([b"k", None], pa.binary()),
            pa.array([value, b"\xff"], pa.binary()),
            pa.array([[{"key": "b", "value": b"1"}, {"key": "a", "value": b"2"}], None], header),
        ],
        names=["partition", "offset", "timestamp", "key", "value", "headers"],
    )
    path = tmp_path / "given"
    code = f"given, path = sys.stdin.buffer, {str(path)!r}\n{AS_THE_DRIVER_SENDS}"
    subprocess.run([sys.executable, "-c", f"import sys\n{code}"], input=pickle.dumps(batch), check=True, timeout=60)
    code = ON_A_WORKER.format(site=str(Path(pa.__file__).parents[1]), path=str(path))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[10, 10, '{"a":"2","b":"1"}', value.decode()], [11, None, "{}", None]]


def test_the_driver_needs_only_spark_and_what_the_bundle_lists() -> None:
    """The datasets are declared in a process that refuses every other library."""
    (pipeline,) = yaml.safe_load((ROOT / "deploy/databricks.yml").read_text())["resources"]["pipelines"].values()
    listed = [d.split("==")[0].replace("-", "_") for d in pipeline["environment"]["dependencies"]]
    refused = ("dagster", "dagster_pyspark", "confluent_kafka", "deltalake", "duckdb", "pysail", "mlflow", "sklearn",
               "psutil", "typer", "rich", "requests", "jsonschema", "stamina", "structlog")  # fmt: skip
    assert not set(refused) & set(listed)
    code = (
        f"import sys\nfor name in {refused!r}: sys.modules[name] = None\n"
        "import crypto_assets.databricks.pipeline.datasets\n"
        "print(sorted(m for m in ('pydantic', 'pydantic_settings') if m in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert set(json.loads(done.stdout.replace("'", '"'))) <= set(listed)
