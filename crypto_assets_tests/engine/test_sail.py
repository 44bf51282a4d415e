"""The laptop's engine: lazy, shared, quiet, and gone without a trace."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from crypto_assets.contracts.arrow import arrow_schema, empty_rows, spark_schema
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import StepFailed
from crypto_assets.engine.sail import STAGE_ABOVE_BYTES, SailEngine
from crypto_assets.settings import environment
from crypto_assets.storage.base import OffsetRange

RUN = """
import sys
from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.storage.rows import METRICS, FIVE, NOW, hour, metrics
engine = SailEngine(sys.argv[1])
engine.store.replace_slice(METRICS, hour(), lambda: engine.frame(metrics(FIVE, [1, 2])), now=NOW)
assert engine.store.read(METRICS).count() == 2
assert engine.store.read_arrow(METRICS).num_rows == 2
{end}
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("named", [("http_proxy",), ("https_proxy", "grpc_proxy", "ALL_PROXY", "no_grpc_proxy")])
def test_the_engine_is_reached_whatever_proxies_the_environment_names(named, tmp_path):
    proxies = {n: "other.example" if n.startswith("no") else "http://127.0.0.1:9" for n in named}
    kept = {n: v for n, v in environment().items() if not n.lower().endswith("_proxy")}
    code = (
        "import sys; from crypto_assets.engine.sail import SailEngine\n"
        "print(SailEngine(sys.argv[1]).spark.range(3).count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**kept, **proxies},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "3", done.stderr[-2000:]


def test_making_an_engine_imports_and_starts_nothing():
    code = (
        "import sys; from crypto_assets.engine.sail import SailEngine; e = SailEngine('/nowhere', None)\n"
        "heavy = {'pyspark', 'pysail', 'deltalake', 'pyarrow', 'pandas', 'confluent_kafka'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert not e.started"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(10))
def test_a_process_that_wrote_and_read_ends_cleanly_and_quietly(tmp_path, attempt):
    done = run(RUN.format(end=""), str(tmp_path / "lake"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == ""


def test_a_process_that_fails_ends_with_its_own_error_alone(tmp_path):
    done = run(RUN.format(end="raise SystemExit(7)"), str(tmp_path / "lake"))
    assert (done.returncode, done.stderr) == (7, "")


def test_engines_of_one_process_share_the_session(engine, tmp_path, spark):
    other = SailEngine(str(tmp_path / "other"))
    assert other.spark is engine.spark is spark
    assert other.store is not engine.store


def test_the_session_is_in_utc(spark):
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    text = spark.sql("SELECT CAST(timestamp '2024-01-01T05:00:00Z' AS string) AS t").toArrow()
    assert text.column("t").to_pylist() == ["2024-01-01 05:00:00"]


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_contract_passes_through_a_frame_unchanged(engine, name):
    frame = engine.frame(empty_rows(TABLES[name]))
    assert frame.schema == spark_schema(TABLES[name])
    assert frame.toArrow().schema == arrow_schema(TABLES[name])


def test_rows_beyond_one_grpc_message_become_a_frame(engine):
    count = 450_000
    at = datetime(2024, 1, 1, 5, 0, 0, 1, tzinfo=UTC)
    rows = pa.table(
        {
            "n": pa.array(range(count), pa.int64()),
            "text": pa.array(["x" * 330] * count),
            "at": pa.array([at] * count, pa.timestamp("us", "UTC")),
        }
    )
    assert rows.nbytes > 128 * 1024 * 1024 > STAGE_ABOVE_BYTES
    frame = engine.frame(rows)
    assert frame.count() == count
    first = frame.where("n = 449999").toArrow()
    assert first.schema.types == rows.schema.types
    assert first.to_pylist() == [{"n": count - 1, "text": "x" * 330, "at": at}]


def test_an_engine_without_kafka_settings_says_so(engine):
    with pytest.raises(StepFailed, match="cannot read the log: this engine was made without Kafka settings"):
        list(engine.read_log("t", [OffsetRange(0, 0, 1)]))


def test_an_idle_session_is_not_forgotten(engine):
    """Sail reads its idle limit from the environment only, when it is imported."""
    assert engine.spark.sql("select 1").toArrow().num_rows == 1
    assert int(environment()["SAIL_SPARK__SESSION_TIMEOUT_SECS"]) >= 24 * 3600
