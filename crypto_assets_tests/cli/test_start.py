"""The start of Dagster in `up` and `ui`: a loaded machine gets more time, and giving up names the setting."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from crypto_assets.cli.processes import family, name_of
from crypto_assets.cli.up import Patience, caught_up
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets_tests.cli.commands import invoke, one_line


@pytest.mark.parametrize(("load", "seconds"), [(0.0, 120), (1.0, 120), (6.0, 720)])
def test_a_loaded_machine_gets_more_time_in_proportion(load: float, seconds: int):
    at = iter(range(10_000))
    patience = Patience(120, lambda: load, lambda: float(next(at)))
    while patience.wait(0):
        pass
    assert patience.waited_s == seconds


def test_load_that_ends_counts_only_while_it_lasts():
    at = iter(range(10_000))
    loads = iter([4.0] * 200 + [1.0] * 10_000)
    patience = Patience(120, lambda: next(loads), lambda: float(next(at)))
    while patience.wait(0):
        pass
    assert patience.waited_s == 200 + 70


def test_giving_up_names_the_setting_and_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"TRANSPORT": "landing", "START_TIMEOUT_S": "1"}.items():
        monkeypatch.setenv(f"CRYPTO_ASSETS_{name}", value)
    home = open_home(Settings(source="simulator", home_path=tmp_path / "home"))  # type: ignore[call-arg]
    monkeypatch.setattr("crypto_assets.cli.up.load_per_processor", lambda: 0.0)
    done = invoke("ui", "--home", str(home.path), "--port", "0")
    assert done.exit_code == 1, done.output
    assert "give it more time with CRYPTO_ASSETS_START_TIMEOUT_S (now 1)" in one_line(done)
    assert family(name_of(psutil.Process())) == []
    assert not home.ui_address.exists()


def test_an_error_of_catching_up_is_reported_once_and_ends_up_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("CRYPTO_ASSETS_TRANSPORT", "landing")
    settings = Settings(source="simulator", home_path=tmp_path / "home")  # type: ignore[call-arg]
    home = open_home(settings)
    (home.path / "home.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        caught_up(settings, home)
    assert ended.value.code == 2
    (said,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "home.json" in said
