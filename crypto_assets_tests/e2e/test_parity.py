"""`parity` as a person runs it: the same partitions by the embedded engine and by JVM Spark."""

from __future__ import annotations

import json
import shutil

import pytest

from crypto_assets.cli import parity
from crypto_assets_tests import short_lived_jvm
from crypto_assets_tests.home_fixtures import SmallHome


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_the_embedded_engine_and_jvm_spark_give_the_same_rows(
    small_home: SmallHome, tmp_path, capsys, monkeypatch
) -> None:
    if shutil.which("java") is None:
        pytest.skip("JVM Spark needs Java 17 on PATH")
    # The JVM lives two minutes: its second compiler and G1 cost more than they give (136 s with them, 112 without).
    monkeypatch.setenv("JDK_JAVA_OPTIONS", short_lived_jvm.OPTIONS)
    hours = f"{small_home.hours[0]}..{small_home.hours[2]}"
    code = parity.run(small_home.settings, hours, ("local", "spark"), keep=tmp_path / "homes", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (code, found["ok"]) == (0, True), found["examples"]
    rows = {t["table"]: (t["rows local"], t["rows spark"]) for t in found["tables"]}
    for table in ("bronze.raw_prices", "silver.prices", "gold.bars_5m", "features.price_features"):
        assert rows[table][0] == rows[table][1] > 0, table
