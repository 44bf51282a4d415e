"""`alerts`: the alert table of a home, printed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from crypto_assets.cli.main import app
from crypto_assets.contracts.arrow import arrow_schema
from crypto_assets.contracts.tables import ALERTS
from crypto_assets.home import open_home
from crypto_assets.settings import Settings
from crypto_assets_tests.serving.home import row

AT = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
FIRED = row(
    ALERTS.full_name, alert_id="b", cause="stale", state="firing", severity="error", summary="no quote :x:", at=AT
)
RESOLVED = {**FIRED, "alert_id": "a", "state": "resolved", "at": AT + timedelta(minutes=5), "delivered_at": AT}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose alert table is of the time before market alerts: without the columns that came with them."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = Settings(source="replay", home_path=tmp_path / "home")
    open_home(settings)
    kept = [name for name in ALERTS.column_names if name not in ("rule", "coin_id", "value")]
    rows = [{name: alert[name] for name in kept} for alert in (RESOLVED, FIRED)]
    write_deltalake(Path(settings.lake) / "ops" / "alerts", pa.Table.from_pylist(rows, arrow_schema(ALERTS, kept)))
    return settings.home


def ran(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["alerts", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_alerts_are_printed_as_they_are_the_newest_last(home: Path):
    assert ran("--home", str(home)).splitlines() == [
        "2024-05-01 12:00:00Z firing   error stale: no quote :x: (not delivered)",
        "2024-05-01 12:05:00Z resolved error stale: no quote :x: (delivered 12:00:00)",
    ]


def test_json_has_every_column_of_the_contract(home: Path):
    first, second = json.loads(ran("--json", "--home", str(home)))
    assert list(first) == ALERTS.column_names
    assert (first["at"], first["delivered_at"], first["coin_id"]) == ("2024-05-01 12:00:00.250000+00:00", None, None)
    assert (second["alert_id"], second["delivered_at"]) == ("a", "2024-05-01 12:00:00.250000+00:00")
