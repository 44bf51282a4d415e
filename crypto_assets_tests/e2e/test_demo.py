"""The demo and the documented commands on its home, as processes in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from crypto_assets.engine.sail import SailEngine
from crypto_assets_tests.e2e.commands import clean_environment, run

ROOT = Path(__file__).parents[2]
HOME = ".crypto_assets/demo-replay"
ROWS = {
    "bronze.raw_prices": 7343,
    "silver.prices": 7343,
    "silver.quarantine": 0,
    "gold.bars_1m": 7343,
    "gold.bars_5m": 1472,
    "gold.bars_1h": 123,
    "gold.bars_1d": 6,
    "features.price_features": 1725,
    "gold.anomalies": 1725,
    "gold.volatility_forecasts": 1398,
    "gold.volatility_accuracy": 9,
    "ops.polls": 2880,
}
"""What two recorded days amount to, at any hour of any day."""

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clone")


@pytest.fixture(scope="module")
def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return run(folder, "demo", timeout_s=600)


def rows(folder: Path) -> dict[str, int]:
    store = SailEngine(str(folder / HOME / "lake")).store
    return {table: store.read_arrow(table).num_rows for table in ROWS}


def versions(folder: Path) -> dict[str, int | None]:
    store = SailEngine(str(folder / HOME / "lake")).store
    return {table: store.version(table) for table in ROWS}


def test_the_demo_succeeds_and_fills_every_table(demo, folder):
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    assert rows(folder) == ROWS
    left = json.loads((folder / HOME / "state" / "status.json").read_text())
    assert left["lag_s"] == 0


def test_the_demo_tells_what_a_person_wants_to_know(demo):
    told = demo.stdout
    assert "REPLAY Coinbase 2018-04-04/05 via QuantConnect Lean (Apache-2.0)" in told
    assert re.search(r"^Bitcoin +6,785\.85 +▼ -0\.50 % +▲ \+0\.12 %\*", told, re.M)
    assert re.search(r"^flags +7 anomalies among 1,027 scores", told, re.M)
    assert re.search(r"^checks +all data checks passed: \d+ green, \d+ warnings expected here$", told, re.M)
    (expected,) = re.findall(r"^expected +(.*)$", told, re.M)
    assert re.sub(r" \(.*?\)", "", expected).split("; ") == [
        "a 7-hour hole in the recording",
        "no scores in the first 12 hours",
        "ml/anomaly_model needs 7 days of data",
        "ml/price_model needs 42 days of data",
        "ml/volatility_model needs 28 days of data",
    ]
    assert "Seconds per stage" not in told
    assert "make ui SOURCE=replay" in told
    assert "Traceback" not in demo.stderr
    assert "Warning" not in demo.stderr


def test_the_highest_scores_are_the_real_moves(demo, folder):
    store = SailEngine(str(folder / HOME / "lake")).store
    flagged = store.read_arrow("gold.anomalies", where="is_anomaly").to_pylist()
    on_the_second_day = {(r["coin_id"], r["window_end"].strftime("%H:%M")) for r in flagged}
    assert ("bitcoin", "13:45") in on_the_second_day
    assert ("bitcoin", "14:05") in on_the_second_day


def test_the_same_day_again_is_a_recorded_no_op(demo, folder):
    before = versions(folder)
    again = run(folder, "demo", "--verbose")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "nothing is sent" in again.stdout
    assert "partitions are unchanged: nothing is made again" in again.stdout
    for listed in (
        "Seconds per stage",
        "Rows and partitions",
        "Checks that are not green",
        "Five highest anomaly scores",
    ):
        assert listed in again.stdout
    assert rows(folder) == ROWS
    assert versions(folder) == before


def test_verify_proves_the_lake(demo, folder):
    audit = run(folder, "verify", "--home", HOME, "--json")
    assert audit.returncode == 0, audit.stdout[-3000:]
    laws = {law["law"]: law for law in json.loads(audit.stdout)["laws"]}
    assert laws["bronze_holds_the_topic"]["checked"] == ROWS["bronze.raw_prices"]
    assert len(laws) >= 18


def test_another_source_in_the_same_home_is_refused(demo, folder):
    other = run(folder, "status", "--home", HOME, "--source", "simulator")
    assert other.returncode == 2
    assert "sources are never mixed" in other.stderr
    assert "CRYPTO_ASSETS_HOME" in other.stderr


# --- the documented commands --------------------------------------------------------------------------------------

OFFLINE: dict[str, tuple[list[str], int]] = {
    "crypto-assets status": (["status"], 0),
    "crypto-assets prices": (["prices"], 0),
    'crypto-assets query "SELECT ..."': (["query", "SELECT * FROM gold.latest_prices"], 0),
    "crypto-assets doctor": (["doctor"], 0),
    "crypto-assets verify": (["verify"], 0),
    "crypto-assets alerts --follow": (["alerts"], 0),
    "crypto-assets maintain": (["maintain"], 0),
    "crypto-assets models": (["models"], 0),
    "crypto-assets backfill 2024-05-01..2024-05-07": (["backfill", "{yesterday}", "--dry-run"], 0),
}
"""Documented commands that run without the internet, with arguments that end and fit the demo's home, and the
exit code to expect."""

ELSEWHERE = {
    "make demo": "this module's fixture",
    "crypto-assets demo --verbose": "this module's fixture",
    "make demo SOURCE=simulator": "the same code with another feed; a minute more",
    "make demo SOURCE=simulator DAYS=45": "the same code over more days; cli/test_demo_commands",
    "crypto-assets evaluate --from bars.parquet --days A..B": "evaluate/test_evaluate",
    "crypto-assets evaluate --from FILE --days A..B": "evaluate/test_evaluate",
    "make up SOURCE=replay": "test_up",
    "make ui": "test_up: the same group of processes",
    "crypto-assets up": "test_up",
    "make up SOURCE=coingecko": "needs the internet",
    "crypto-assets status --source coingecko": "needs a live home",
    "crypto-assets status --home .crypto_assets/demo-replay": "below, as every command with --home",
    "crypto-assets coins add dogecoin": "needs the internet; test below shows the refusal",
    "make drill": "cli/test_drill",
    "crypto-assets stream": "streaming/test_stream",
    "crypto-assets serve": "serving/test_server",
    "crypto-assets alerts backtest": "cli/test_alert_rules",
    "crypto-assets adopt-log": "cli/test_adopt_log",
    "crypto-assets parity": "test_parity",
    "crypto-assets parity --hours A..B": "test_parity",
    "make databricks-standin": "databricks_standin/test_main",
    "make test": "continuous integration runs it",
    "make test-fast": "a part of make test",
    "make test-acceptance": "this run",
    "make test-full": "more than this run",
    "make check": "continuous integration runs it",
    "make ci": "this run is a part of it",
    "make coverage": "make test-fast, measured",
    "make bench": "test_bench",
    "make uninstall": "would remove the environment that runs this",
    "cp .env.example .env": "test below",
}


def documented_commands() -> set[str]:
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/commands.md"))
    text = re.sub(r"<!-- demo-output:begin -->.*?<!-- demo-output:end -->", "", text, flags=re.S)
    found = re.findall(r"`((?:make|crypto-assets) [^`<]*)`", text)
    found += [c.split("#")[0] for c in re.findall(r"^\$ (.*)$", text, flags=re.M)]
    return {c.strip().removeprefix(".venv/bin/") for c in found}


def test_every_documented_command_is_accounted_for():
    unknown = documented_commands() - set(OFFLINE) - set(ELSEWHERE)
    assert not unknown, "add a test that runs it, or say where it is tested"
    assert len(documented_commands()) >= 12


@pytest.mark.parametrize("name", sorted(OFFLINE))
def test_a_documented_command_runs(demo, folder, name):
    store = SailEngine(str(folder / HOME / "lake")).store
    yesterday = max(store.read_arrow("gold.bars_1d", columns=["day"]).column("day").to_pylist())
    arguments, expected = OFFLINE[name]
    done = run(folder, *(a.format(yesterday=yesterday) for a in arguments), "--home", HOME)
    assert done.returncode == expected, done.stdout[-1500:] + done.stderr[-1500:]
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()


def test_a_coin_that_the_source_does_not_know_is_refused(demo, folder):
    done = run(folder, "coins", "add", "dogecoin", "--home", HOME)
    assert done.returncode == 2
    assert "does not know 'dogecoin'" in done.stderr


def test_the_documented_make_targets_exist():
    for name in sorted(c for c in documented_commands() if c.startswith("make ")):
        dry = subprocess.run(
            ["make", "-n", *shlex.split(name)[1:]],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert dry.returncode == 0, f"{name}: {dry.stderr}"


def test_the_example_environment_is_accepted(folder, monkeypatch):
    from crypto_assets.settings import Settings

    monkeypatch.setitem(Settings.model_config, "env_file", str(ROOT / ".env.example"))
    assert Settings().source == "replay"
