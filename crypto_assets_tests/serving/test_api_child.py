"""The API beside Dagster: its port, and that it is started again, with growing waits, whatever ends it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from crypto_assets.cli.api_child import WAITS_S, ApiChild, api_of
from crypto_assets.home import open_home
from crypto_assets.serving.server import CannotListen, listen
from crypto_assets.settings import Settings, environment
from crypto_assets_tests.serving.running import wait_loaded


def test_its_port_follows_dagsters_or_is_a_free_one() -> None:
    with listen("127.0.0.1", 0) as ui:
        port = ui.getsockname()[1]
        beside = api_of(Settings(), port - 1)
        assert beside is not None
        assert beside.url != f"http://127.0.0.1:{port}"  # taken
    free = api_of(Settings(), port - 1)
    assert free is not None
    assert free.url == f"http://127.0.0.1:{port}"


def test_a_port_that_was_asked_for_is_not_replaced() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(CannotListen):
        api_of(Settings(api_port=taken.getsockname()[1]), 3000)


def test_dagster_is_served_also_where_the_api_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert api_of(Settings(api_host="0.0.0.0"), 3000) is None
    assert "CRYPTO_ASSETS_API_TOKEN" in capsys.readouterr().out


def test_it_is_started_again_when_it_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = 1_000.0
    home = open_home(Settings(home_path=tmp_path / "home", source="simulator"))
    child = ApiChild("127.0.0.1", 0, lambda: now)
    ids = []
    try:
        child.start(home, environment())
        for wait in WAITS_S[:3]:
            process = child.process
            assert process is not None
            ids.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            child.keep()  # notices, and starts at once the first time
            if wait:
                assert child.process is None
                child.keep()
                assert child.process is None
                now += wait
                child.keep()
            assert child.process is not None
        wait_loaded(child.url)
        assert home.api_address.read_text(encoding="utf-8") == child.url
        child.keep()
        assert child.process.pid not in ids
    finally:
        child.stop()
    assert not home.api_address.exists()
    assert capsys.readouterr().out.count("starting it again") == 3
