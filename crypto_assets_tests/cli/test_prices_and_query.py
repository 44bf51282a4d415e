"""`prices` and `query`: what they print of a home, on a terminal, as JSON and as CSV, and how they refuse."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from crypto_assets.cli.main import app
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets.source_facts import REPLAY
from crypto_assets_tests.cli.commands import one_line
from crypto_assets_tests.serving.home import END, row, served_home, write

pytestmark = pytest.mark.engine("local")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_home(tmp_path_factory.mktemp("read") / "home").home


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A home without tables."""
    return open_home(Settings(source="replay", home_path=tmp_path / "empty")).path


def run(home: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--home", str(home)])


def printed(home: Path, *words: str) -> str:
    done = run(home, *words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_prices_show_every_coin_with_marks_and_the_reason_of_what_is_unknown(home: Path):
    lines = printed(home, "prices").splitlines()
    assert lines[0] == REPLAY.banner
    assert lines[1].startswith("newest quote 2024-05-02 05:59:59 UTC; in a replay home that is the present")
    cells = {line.split()[0]: line.split() for line in lines[4:7]}
    assert cells["Bitcoin"][1:9] == ["100.50", "▼", "-0.50", "%", "▲", "+10.00", "%*", "0.000000019"]
    assert cells["Bitcoin"][9:] == ["1.00", "B", "0.0", "s"]
    assert cells["Ethereum"][5:8] == ["▲", "+2.25", "%"]
    assert cells["Litecoin"][1:6] == ["300.50", "-", "-", "-", "-"]
    assert lines[-3:] == [
        "* since 2024-05-01 06:05, from the bar nearest to 24 h ago: BTC",
        "- no bar within 10 min of 24 h ago: 24 h of LTC",
        "- not reported by replay: 1 h, volume, market cap of LTC",
    ]


def test_prices_as_json_are_exact_and_name_the_data(home: Path):
    found = json.loads(printed(home, "prices", "--json"), parse_float=str)
    assert (found["source"], found["banner"]) == ("replay", REPLAY.banner)
    assert found["now"] == found["newest_quote"] == "2024-05-02T05:59:59Z"
    btc, eth, ltc = found["coins"]
    assert (btc["price_usd"], btc["volume_24h_usd"], eth["change_24h_pct"]) == ("100.5", "0.000000019", "2.25")
    assert (ltc["market_cap_usd"], ltc["market_cap_null"]) == (None, "not reported by replay")


def test_a_live_home_says_how_old_its_quotes_are(tmp_path: Path):
    live = Settings(source="coingecko", home_path=tmp_path / "live")
    open_home(live)
    write(Path(live.lake), "gold.latest_prices", [row("gold.latest_prices", coin_id="bitcoin", last_updated_at=END)])
    lines = printed(live.home, "prices").splitlines()
    assert lines[0].startswith("LIVE CoinGecko")
    assert lines[1].startswith("newest quote 2024-05-02 06:00:00 UTC, ")
    assert lines[1].endswith(" d old")


@pytest.mark.parametrize("command", [["prices"], ["prices", "--json"]], ids=" ".join)
def test_without_a_quote_prices_say_how_to_get_one(command: list[str], empty: Path):
    done = run(empty, *command)
    assert done.exit_code == 1
    if "--json" in command:
        assert json.loads(done.stdout)["coins"] == []
    else:
        assert "no quote yet: gold.latest_prices is empty; begin with: crypto-assets demo" in done.stdout


def test_watching_prints_again_when_a_table_has_changed(home: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    from crypto_assets.cli import prices

    copy = home.parent / "watched"
    shutil.copytree(home, copy)
    waits: list[float] = []

    class Stop:
        """A signal that comes after the third wait; before the second one a coin is added."""

        def __enter__(self) -> Stop:
            return self

        def __exit__(self, *_: object) -> None: ...

        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            if len(waits) == 2:
                new = row("gold.latest_prices", coin_id="pol", symbol="POL", name="Pol", last_updated_at=END)
                write(copy / "lake", "gold.latest_prices", [new])
            return len(waits) == 4

    monkeypatch.setattr(prices, "stop_requested", Stop)
    text = printed(copy, "prices", "--watch", "--every", "3")
    assert (text.count(REPLAY.banner), text.count("Pol ")) == (2, 1)
    assert waits == [3.0] * 4


def test_watch_and_json_exclude_each_other(home: Path):
    assert "--watch and --json exclude each other" in one_line(run(home, "prices", "--watch", "--json"))


def test_a_query_prints_a_table_csv_or_json(home: Path):
    sql = "SELECT coin_id, price_usd, volume_24h_usd, last_updated_at FROM gold.latest_prices ORDER BY coin_id"
    assert [line.split() for line in printed(home, "query", sql).splitlines()][1:3] == [
        ["coin_id", "price_usd", "volume_24h_usd", "last_updated_at"],
        ["bitcoin", "100.5", "0.000000019", "2024-05-02", "05:59:59"],
    ]
    rows = list(csv.DictReader(io.StringIO(printed(home, "query", sql, "--format", "csv"))))
    assert rows[0] == {
        "coin_id": "bitcoin",
        "price_usd": "100.5",
        "volume_24h_usd": "0.000000019",
        "last_updated_at": "2024-05-02T05:59:59Z",
    }
    assert rows[2]["volume_24h_usd"] == ""
    found = json.loads(printed(home, "query", sql, "--format", "json"), parse_float=str)
    assert (found[0]["volume_24h_usd"], found[2]["volume_24h_usd"]) == ("0.000000019", None)


def test_a_query_of_the_catalogue_takes_its_parameters(home: Path):
    words = ["query", "--name", "price_line", "--set", "coin=bitcoin", "--set", "hours=1", "--format", "csv"]
    rows = list(csv.DictReader(io.StringIO(printed(home, *words))))
    assert len(rows) == 12
    assert {r["coin_id"] for r in rows} == {"bitcoin"}


def test_tables_are_listed_with_rows_and_columns(home: Path):
    found = {r["table"]: r for r in json.loads(printed(home, "query", "--tables", "--format", "json"))}
    assert (found["gold.latest_prices"]["rows"], found["gold.latest_prices"]["version"]) == (3, 1)
    assert "last_updated_at" in found["gold.latest_prices"]["columns"]
    assert (found["silver.prices"]["rows"], found["silver.prices"]["version"]) == (None, None)


def test_rows_beyond_the_limit_are_announced(home: Path):
    done = run(home, "query", "SELECT * FROM gold.anomalies", "--limit", "2", "--format", "csv")
    assert len(done.stdout.splitlines()) == 3
    assert "only the first 2 rows; more with --limit" in done.stderr
    assert len(printed(home, "query", "SELECT * FROM gold.anomalies", "--format", "csv").splitlines()) == 1081


def test_a_table_that_is_not_written_is_named(home: Path, empty: Path):
    done = run(home, "query", "SELECT * FROM silver.prices")
    assert "not written yet, so without rows: silver.prices" in done.stderr
    assert (
        "has no tables yet; begin with: crypto-assets demo" in run(empty, "query", "SELECT * FROM silver.prices").stderr
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of: SQL in quotes, such as 'SELECT"),
        (["SELECT 1", "--tables"], "give one of: SQL in quotes, such as 'SELECT"),
        (["SELECT 1", "--format", "xml"], "--format is 'xml' and must be one of table, csv, json"),
        (["--name", "bord"], "there is no query 'bord'; there are board, latest_prices"),
        (["--name", "board", "--set", "coin"], "--set takes name=value, such as --set coin=bitcoin, and is 'coin'"),
        (["--name", "board", "--set", "day=1"], "'day' is no parameter (it has: coin, now)"),
        (["SELECT * FROM gold.bars"], "there is no table gold.bars; there are"),
        (["SELECT * FROM read_csv('/etc/passwd')"], "read_csv() cannot be used here"),
    ],
)
def test_what_a_query_cannot_do_is_refused_in_one_line(words: list[str], message: str, home: Path):
    done = run(home, "query", *words)
    assert message in one_line(done)
    assert done.exit_code == 2


def test_a_query_that_takes_too_long_ends_with_1(home: Path):
    endless = "SELECT count(*) FROM range(1000000000000) a WHERE a.range % 7 = 3"
    done = run(home, "query", endless, "--timeout", "0.2")
    assert "took longer than 0.2 s and was stopped" in one_line(done)
    assert done.exit_code == 1
