"""The check of `serving/api`: ready, not ready, not there."""

from __future__ import annotations

from pathlib import Path

from crypto_assets.orchestration.api_asset import judge
from crypto_assets_tests.serving.lakes import Lake, price
from crypto_assets_tests.serving.running import running


def test_it_leads_to_an_api_that_is_ready(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "home")
    with running(lake) as url:
        empty = judge(lake.home.api_address)
        assert not empty.passed
        assert "holds no prices yet" in (empty.description or "")
    lake.merge("gold.latest_prices", [price("bitcoin", "1")])
    with running(lake) as url:
        ready = judge(lake.home.api_address)
    assert ready.passed
    assert ready.metadata["page"].value == url
    gone = judge(lake.home.api_address)
    assert not gone.passed
    assert "crypto-assets serve" in (gone.description or "")
    lake.home.api_address.write_text(url, encoding="utf-8")  # as after a kill
    assert "does not answer" in (judge(lake.home.api_address).description or "")
