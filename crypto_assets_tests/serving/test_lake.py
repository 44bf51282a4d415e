"""SQL over a home: it sees the pinned versions of the contracts' tables, in UTC, and reaches nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.sail import SailEngine
from crypto_assets.home import HomeError
from crypto_assets.serving.lake import Lake, NoAnswer, open_lake
from crypto_assets.serving.query import QueryError
from crypto_assets.settings import Settings
from crypto_assets.source_facts import COINGECKO
from crypto_assets.storage.base import StorageError
from crypto_assets_tests.serving.home import END, SLOT, row, write

pytestmark = pytest.mark.engine("local")


@pytest.fixture
def secret(served: Settings) -> Path:
    """A file of the home outside of the lake."""
    path = served.home / "state" / "secret.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("password\nhunter2\n")
    return path


@pytest.mark.parametrize("name", ["gold.bars_5m", "ops.polls", "gold.latest_prices", "gold.anomalies"])
def test_a_view_has_every_row_of_the_table_in_the_contracts_types(name: str, lake: Lake, served: Settings):
    found = lake.rows(f"SELECT * FROM {name}")
    stored = SailEngine(served.lake).store.read_arrow(name)
    assert found.columns == TABLES[name].column_names
    key = itemgetter(*TABLES[name].key)
    assert sorted(found.records(), key=key) == sorted(stored.to_pylist(), key=key)
    assert len(found.values) > 0


def test_names_need_no_schema_and_ignore_case(lake: Lake):
    assert (
        lake.rows("SELECT count(*) AS n FROM Bars_5M").records()
        == lake.rows("SELECT count(*) AS n FROM GOLD.bars_5m").records()
    )


def test_a_lake_shows_the_versions_of_its_opening(tmp_path: Path):
    first, second = (row("gold.latest_prices", coin_id=c, price_usd=Decimal(p)) for c, p in (("a", 1), ("b", 2)))
    write(tmp_path, "gold.latest_prices", [first])
    with Lake(str(tmp_path), COINGECKO) as before:
        write(tmp_path, "gold.latest_prices", [second])
        with Lake(str(tmp_path), COINGECKO) as after:
            coins = "SELECT coin_id FROM gold.latest_prices ORDER BY 1"
            assert before.rows(coins).records() == [{"coin_id": "a"}]
            assert after.rows(coins).records() == [{"coin_id": "a"}, {"coin_id": "b"}]
            assert (before.versions["gold.latest_prices"], after.versions["gold.latest_prices"]) == (0, 1)


def test_rows_of_removed_files_are_not_seen(tmp_path: Path):
    write(tmp_path, "gold.latest_prices", [row("gold.latest_prices", coin_id="a", price_usd=Decimal(1))])
    DeltaTable(tmp_path / "gold" / "latest_prices").delete()
    with Lake(str(tmp_path), COINGECKO) as lake:
        assert len(lake.rows("SELECT * FROM latest_prices").values) == 0


def test_a_column_that_the_contract_gained_later_is_null_in_older_rows(tmp_path: Path):
    kept = [c for c in TABLES["gold.leaderboard_24h"].column_names if c != "price_24h_ago_at"]
    old = pa.Table.from_pylist([row("gold.leaderboard_24h", coin_id="a")], schema=None).select(kept)
    from deltalake import write_deltalake

    from crypto_assets.contracts.arrow import arrow_schema

    write_deltalake(tmp_path / "gold" / "leaderboard_24h", old.cast(arrow_schema(TABLES["gold.leaderboard_24h"], kept)))
    with Lake(str(tmp_path), COINGECKO) as lake:
        found = lake.rows("SELECT coin_id, price_24h_ago_at FROM gold.leaderboard_24h")
        assert found.records() == [{"coin_id": "a", "price_24h_ago_at": None}]


def test_a_table_that_is_not_written_is_empty_and_named(lake: Lake):
    sql = "SELECT * FROM silver.prices JOIN gold.bars_5m USING (coin_id)"
    assert len(lake.rows(sql).values) == 0
    assert lake.not_written(sql) == ["silver.prices"]
    assert lake.rows("SELECT * FROM silver.prices").columns == TABLES["silver.prices"].column_names


def test_values_are_put_in_for_markers_and_nowhere_else(lake: Lake):
    found = lake.rows(
        """SELECT :text AS text, ':text' AS quoted, CAST(:n AS BIGINT) AS n, :at AS at_, '12:30' AS clock, :none AS none
        -- :text
        """,
        {"text": "it's '; DROP TABLE x; --", "n": 3, "at": END, "none": None},
    )
    assert found.records() == [
        {"text": "it's '; DROP TABLE x; --", "quoted": ":text", "n": 3, "at_": END, "clock": "12:30", "none": None}
    ]
    assert lake.rows("SELECT :x * 1 AS x", {"x": 0.1}).records() == [{"x": 0.1}]


def test_values_that_no_table_has_are_readable_too(lake: Lake):
    (found,) = lake.rows(
        "SELECT INTERVAL 26 HOURS AS i, INTERVAL 1 MONTH AS m, TIMESTAMP_NS '2024-05-01 00:00:00.123456789' AS n"
    ).records()
    assert found == {
        "i": "26:00:00",
        "m": "1 month",
        "n": datetime(2024, 5, 1, microsecond=123456, tzinfo=UTC),
    }


def test_a_limit_ends_an_endless_query(lake: Lake):
    assert len(lake.rows("SELECT * FROM range(1000000000000)", limit=3000).values) == 3000
    assert len(lake.rows("SELECT 1 AS a", limit=5).values) == 1


# --- what SQL cannot do -------------------------------------------------------------------------------------------

ATTACKS = [
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_parquet('{lake}/gold/bars_5m/*/*.parquet')",
    "SELECT * FROM '{lake}/gold/bars_5m/*/*.parquet'",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM glob('{home}/**')",
    "SELECT * FROM parquet_metadata('{lake}/x.parquet')",
    "SELECT * FROM read_duckdb('{secret}')",
    "SELECT * FROM delta_scan('{lake}/gold/bars_5m')",
    "SELECT * FROM sqlite_scan('{home}/dagster/runs.db', 'runs')",
    "SELECT * FROM read_parquet('https://example.org/x.parquet')",
    "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
    "SELECT * FROM query_table('gold.bars_5m')",
    "SELECT * FROM query_table(['duckdb_settings'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_views",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_settings",
    "SELECT * FROM system.main.duckdb_settings",
    "SELECT * FROM memory.gold.bars_5m",
    "SELECT * FROM enable_logging(storage = 'file', storage_config = {{'path': '{home}/log'}})",
    "SELECT * FROM enable_profiling()",
    "SELECT * FROM pragma_version()",
    "SELECT * FROM secret",
    "SELECT * FROM lake",
    "WITH x AS (SELECT * FROM read_text('{secret}')) SELECT * FROM x",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "SELECT * FROM gold.bars_5m WHERE EXISTS (FROM glob('/*'))",
    "SELECT 1 UNION ALL SELECT size FROM read_text('{secret}')",
    "DESCRIBE SELECT * FROM read_csv('{secret}')",
    "SUMMARIZE SELECT * FROM read_csv('{secret}')",
    "SELECT getenv('HOME')",
    "SELECT current_setting('secret_directory')",
    "SELECT getvariable('x')",
    "SELECT write_log('x')",
    "SELECT sleep_ms(100000)",
    "COPY gold.bars_5m TO '{home}/out.parquet'",
    "COPY (SELECT 1) TO '{lake}/gold/bars_5m/out.parquet'",
    "EXPORT DATABASE '{home}/out'",
    "ATTACH '{home}/x.db'",
    "ATTACH '{home}/dagster/runs.db' (TYPE sqlite)",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW gold.v AS SELECT 1",
    "CREATE SECRET s (TYPE s3)",
    "INSERT INTO gold.bars_5m SELECT * FROM gold.bars_5m",
    "DELETE FROM gold.bars_5m",
    "DROP VIEW gold.bars_5m",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "USE memory",
    "CHECKPOINT",
    "EXPLAIN ANALYZE SELECT 1",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{home}/out.csv'",
    "BEGIN",
    "",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_but_a_select_over_the_lakes_tables_runs(attack: str, lake: Lake, served: Settings, secret: Path):
    before = sorted(p for p in served.home.rglob("*"))
    places = {"secret": secret, "lake": served.lake, "home": served.home}
    with pytest.raises(QueryError) as refused:
        lake.rows(attack.format(**{name: str(path).replace("'", "''") for name, path in places.items()}))
    assert "hunter2" not in str(refused.value)
    assert sorted(p for p in served.home.rglob("*")) == before
    assert lake.rows("SELECT count(*) AS n FROM gold.latest_prices").records() == [{"n": 3}]


FILES = [a for a in ATTACKS if a.startswith("SELECT * FROM read_") and "{secret}" in a] + [
    "SELECT * FROM glob('{home}/**')",
    "SELECT * FROM sniff_csv('{secret}')",
    "COPY (SELECT 1) TO '{home}/out.csv'",
    "ATTACH '{home}/x.db'",
    "INSTALL httpfs",
    "SET allowed_directories = ['/']",
    "SELECT * FROM delta_scan('{home}')",
    "SELECT * FROM read_parquet('https://example.org/x.parquet')",
]


@pytest.mark.parametrize("attack", FILES)
def test_duckdb_itself_is_locked_should_the_parser_ever_let_something_pass(
    attack: str, lake: Lake, served: Settings, secret: Path
):
    import duckdb

    before = sorted(p for p in served.home.rglob("*"))
    text = attack.format(**{n: str(p).replace("'", "''") for n, p in (("secret", secret), ("home", served.home))})
    with pytest.raises(duckdb.Error) as refused:
        lake._connection.execute(text).fetchall()
    assert "hunter2" not in str(refused.value)
    assert sorted(p for p in served.home.rglob("*")) == before


def test_a_query_that_takes_too_long_is_stopped_and_the_lake_goes_on(lake: Lake):
    with pytest.raises(NoAnswer, match=r"took longer than 0.2 s and was stopped: .*--timeout"):
        lake.rows("SELECT count(*) FROM range(1000000000000) a WHERE a.range % 7 = 3", timeout_s=0.2)
    assert lake.rows("SELECT 1 AS a").records() == [{"a": 1}]


def test_a_query_that_needs_too_much_memory_is_stopped_and_the_lake_goes_on(served: Settings):
    with open_lake(served, memory_limit="64MB") as small:
        with pytest.raises(NoAnswer, match="needs more memory than it may use"):
            small.rows("SELECT count(*) FROM (SELECT DISTINCT range FROM range(100000000))")
        assert small.rows("SELECT 1 AS a").records() == [{"a": 1}]


# --- errors name what exists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM gold.bars_6m", "there is no table gold.bars_6m; there are bronze.raw_prices, .*query --tables"),
        ("SELECT prize FROM gold.dim_coin", '"prize" not found.*gold.dim_coin has coin_key, coin_id, symbol'),
        ("SELEC 1", 'the SQL cannot be read: syntax error at or near "SELEC"'),
        ("SELECT * FROM bars_5m WHERE coin_id = :coin", "cannot be read: .*; :coin has no value, give it with --set"),
        ("DROP TABLE gold.bars_5m", "only SELECT, DESCRIBE and SUMMARIZE can be run here"),
        ("SELECT CAST('x' AS INT)", "Could not convert string 'x' to INT32"),
        ("SELECT nosuch(1)", "nosuch does not exist"),
        ("SELECT 1 AS a, 2 AS a, 3 AS b", "several columns of the result are called a: rename them with AS"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line_with_the_fix(sql: str, message: str, lake: Lake):
    with pytest.raises(QueryError, match=message) as refused:
        lake.rows(sql).records()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("harm", ["removed", "cut", "without its log"])
def test_a_damaged_table_is_named_with_the_command_that_repairs_it(harm: str, served: Settings, tmp_path: Path):
    shutil.copytree(Path(served.lake) / "gold", tmp_path / "gold")
    table = tmp_path / "gold" / "latest_prices"
    file = next(iter(sorted(table.glob("*.parquet"))))
    if harm == "removed":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        shutil.rmtree(table / "_delta_log")
    with Lake(str(tmp_path), COINGECKO) as lake:
        with pytest.raises(StorageError, match=r"gold.latest_prices.*crypto-assets maintain --repair"):
            lake.rows("SELECT sum(price_usd) AS n FROM gold.latest_prices")
        assert lake.rows("SELECT count(*) AS n FROM gold.anomalies").records() == [{"n": 1080}]


def test_without_a_home_nothing_is_opened_or_made(tmp_path: Path):
    with pytest.raises(HomeError, match="there is no home at"):
        open_lake(Settings(home_path=tmp_path / "none"))
    assert not list(tmp_path.iterdir())


def test_tables_in_a_workspace_are_queried_there(served: Settings):
    with pytest.raises(QueryError, match="query them in the workspace"):
        open_lake(Settings(home_path=served.home, source="replay", lake_uri="s3://bucket/lake"))


# --- time, threads, imports ---------------------------------------------------------------------------------------


def test_the_present_of_a_virtual_home_is_its_newest_event(lake: Lake, served: Settings, tmp_path: Path):
    clock = datetime(2026, 1, 1, tzinfo=UTC)
    assert lake.now(clock) == lake.newest_event() == END - timedelta(seconds=1)
    with Lake(served.lake, COINGECKO) as live, Lake(str(tmp_path), lake.source) as empty:
        assert live.now(clock) == clock
        assert (empty.newest_event(), empty.now(clock)) == (None, clock)


def test_threads_take_turns(lake: Lake):
    found: list[int] = []

    def ask() -> None:
        found.append(lake.rows("SELECT count(*) AS n FROM gold.anomalies").values[0][0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3 * 360] * 8


HEAVY = (
    *("dagster", "pyspark", "mlflow", "pandas", "pysail", "sklearn", "confluent_kafka", "matplotlib"),
    *("numpy", "psutil", "pyarrow", "rich.progress"),
)
OF_STATUS = ("dagster", "psutil")


@pytest.mark.parametrize(
    "command",
    [["prices"], ["query", "--name", "price_line", "--set", "hours=2"], ["alerts"], ["--help"], ["status"]],
    ids=" ".join,
)
def test_the_commands_load_nothing_heavy(command: list[str], served: Settings):
    heavy = [name for name in HEAVY if command != ["status"] or name not in OF_STATUS]
    if command != ["--help"]:
        command = [*command, "--home", str(served.home)]
    code = f"""
import atexit, gc, sys
atexit.register(lambda: print("objects left to the collector as the process ends:", gc.get_freeze_count() == 0))
from crypto_assets.cli.main import app
try:
    app({command!r})
except SystemExit as end:
    assert end.code in (0, 1), end.code
print("loaded:", [m for m in {heavy!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    ending = "loaded: []\nobjects left to the collector as the process ends: False\n"
    assert done.stdout.endswith(ending), done.stdout[-500:] + done.stderr


def test_a_copied_home_is_read_where_it_lies(served: Settings, tmp_path: Path):
    shutil.copytree(served.home, tmp_path / "copy")
    with open_lake(Settings(source="replay", home_path=tmp_path / "copy")) as lake:
        found = lake.rows(
            "SELECT max(window_end) AS newest FROM gold.bars_5m WHERE window_end <= :at", {"at": END - SLOT}
        )
        assert found.records() == [{"newest": END - SLOT}]
