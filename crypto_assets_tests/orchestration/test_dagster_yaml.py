"""The two dagster.yaml: what a home gets, and what a bare `dagster dev` in a checkout reads."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import yaml

from crypto_assets.cli.instance import open_instance, packaged_yaml
from crypto_assets.home import open_home
from crypto_assets.settings import Settings

ROOT = Path(__file__).parents[2]


def test_they_differ_only_by_the_event_log():
    packaged = yaml.safe_load(packaged_yaml())
    bare = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    assert packaged.pop("event_log_storage")["class"] == "KeptSqliteEventLogStorage"
    assert bare == packaged


def test_dagster_accepts_both(tmp_path):
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as bare:
        assert bare.run_retries_enabled
    home = open_home(Settings(source="replay", home_path=tmp_path / "home"))  # type: ignore[call-arg]
    with open_instance(home) as instance:
        assert type(instance.event_log_storage).__name__ == "KeptSqliteEventLogStorage"
        assert instance.run_monitoring_enabled


def test_an_edited_file_is_left_alone(tmp_path):
    home = open_home(Settings(source="replay", home_path=tmp_path / "home"))  # type: ignore[call-arg]
    with open_instance(home):
        pass
    kept = home.dagster / "dagster.yaml"
    kept.write_text(kept.read_text() + "\n# mine\n")
    with open_instance(home):
        assert kept.read_text().endswith("# mine\n")


def test_a_home_of_an_earlier_version_opens_with_the_modules_of_today(tmp_path):
    home = open_home(Settings(source="replay", home_path=tmp_path / "home"))  # type: ignore[call-arg]
    kept = home.dagster / "dagster.yaml"
    kept.parent.mkdir()
    earlier = packaged_yaml().replace("crypto_assets.orchestration.event_log", "crypto_assets.automation.event_log")
    kept.write_text(earlier + "\n# mine\n")
    with open_instance(home) as instance:
        assert type(instance.event_log_storage).__name__ == "KeptSqliteEventLogStorage"
    assert kept.read_text() == packaged_yaml() + "\n# mine\n"
