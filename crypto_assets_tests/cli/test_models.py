"""`models`, `models promote` and `models rollback` on a home with registered versions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crypto_assets.assets import training
from crypto_assets.cli import models
from crypto_assets.cli.main import app
from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.contracts.slices import HOUR, floor_day, floor_hour
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import Engine
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import model_store
from crypto_assets.engine.sail import SailEngine
from crypto_assets.errors import UsageError
from crypto_assets.home import open_home
from crypto_assets.ml import artifacts, registry
from crypto_assets.ml.baselines import ANOMALY, v0_rows
from crypto_assets.settings import Settings
from crypto_assets_tests.cli.commands import one_line

TODAY = floor_day(datetime.now(UTC))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Engine, registry.Store]:
    """A home with the baselines and two trained versions of the anomaly model, yesterday's and today's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYPTO_ASSETS_TRANSPORT", "landing")
        settings = Settings(source="simulator", home_path=tmp_path_factory.mktemp("models") / "home")  # type: ignore[call-arg]
        made = open_home(settings)
    engine, store = make_engine(settings), registry.Store.of(model_store(settings, made.path))
    rows = v0_rows(TODAY - timedelta(days=9), TODAY - timedelta(days=9))
    for day, level in ((1, 5.0), (0, 2.0)):
        parameters = {"algorithm": "robust_z", "thresholds": {"*": level}, "days": 28}
        version, cutoff = f"{TODAY - timedelta(days=day):%Y-%m-%d}-robust-z", TODAY - timedelta(days=day)
        place, sha256, run_id = registry.log_version(
            store, ANOMALY, version, parameters=parameters, estimator=None, metrics={}, tags={}
        )
        rows.append(
            rows[0]
            | {
                "version": version,
                "cutoff": cutoff,
                "effective_from": cutoff,
                "decided_at": cutoff,
                "why": "by the gate",
                "metrics": "{}",
                "artifact_uri": place,
                "artifact_sha256": sha256,
                "content_hash": artifacts.content_hash(parameters),
                "run_id": run_id,
            }
        )
    training.record(engine, rows)
    registry.render_alias(store, rows, ANOMALY)
    return made.path, engine, store


def ran(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", *arguments, "--home", str(home)])


def champion(store: registry.Store) -> str | None:
    client = store.client()
    number = dict(client.get_registered_model("crypto_anomaly").aliases).get("champion")
    return number and client.get_model_version("crypto_anomaly", str(number)).tags["version"]


def test_a_version_whose_files_were_altered_does_not_come_into_service(home):
    path, engine, _ = home  # nothing has loaded the version in this process yet, which would remember it
    rows = engine.store.read_arrow(PROMOTIONS.full_name).to_pylist()
    older = f"{TODAY - timedelta(days=1):%Y-%m-%d}-robust-z"
    file = path / next(r["artifact_uri"] for r in rows if r["version"] == older) / "parameters.json"
    text = file.read_text()
    file.write_text(text.replace("5.0", "9.0"))
    done = ran(path, "promote", "anomaly", older, "--why", "x")
    file.write_text(text)
    assert done.exit_code == 1, done.output
    assert "is not what was registered" in one_line(done)
    assert len(engine.store.read_arrow(PROMOTIONS.full_name)) == len(rows)


def test_a_rollback_serves_from_the_next_hour_is_recorded_and_moves_the_alias(home):
    path, engine, store = home
    older, newer = (f"{TODAY - timedelta(days=day):%Y-%m-%d}-robust-z" for day in (1, 0))
    assert champion(store) == newer
    now = datetime.now(UTC)
    done = ran(path, "rollback", "anomaly", "--why", "flags tripled")
    assert done.exit_code == 0, done.output
    assert f"anomaly {older} (robust_z) serves from" in done.output
    assert f"in place of {newer}" in done.output
    rows = engine.store.read_arrow(PROMOTIONS.full_name).to_pylist()
    row = next(r for r in rows if r["decision"] == "rolled_back")
    assert row["why"] == "flags tripled"
    assert row["effective_from"] in {floor_hour(at) + HOUR for at in (now, datetime.now(UTC))}
    assert row["artifact_sha256"] == next(r["artifact_sha256"] for r in rows if r["version"] == older)
    assert champion(store) == older

    listed = json.loads(ran(path, "--json").stdout)
    mine = next(m for m in listed if m["model"] == "anomaly")
    assert (mine["serves"], mine["held"]) == (newer, True)  # until the hour is over
    assert mine["decisions"][0]["decision"] == "rolled_back"

    back = ran(path, "promote", "anomaly", newer, "--why", "it was the market")
    assert back.exit_code == 0, back.output
    begins = floor_hour(datetime.now(UTC)) + HOUR
    assert f"at the earliest from {floor_day(begins) + timedelta(days=1):%Y-%m-%d %H:%M}Z" in back.output
    assert champion(store) == newer
    assert not next(m for m in json.loads(ran(path, "--json").stdout) if m["model"] == "anomaly")["held"]
    assert "it was the market" in ran(path).output

    none = ran(path, "rollback", "anomaly", "v0", "--why", "no trust in either")
    assert none.exit_code == 0, none.output
    assert champion(store) is None


def test_on_a_cluster_the_decision_needs_no_home_and_goes_to_unity_catalog(home, tmp_path, monkeypatch):
    """As the bundle's job runs it: places are absolute, and the registry has names of three levels."""
    path, engine, store = home
    client, named = store.client(), "prices_prod.ml.crypto_anomaly"
    rows = [r for r in engine.store.read_arrow(PROMOTIONS.full_name).to_pylist() if r["model"] == "anomaly"]
    rows = [{n: v for n, v in r.items() if n not in CHAIN_COLUMNS} for r in rows if r["decision"] == "promoted"]
    client.create_registered_model(named)
    for row in (r for r in rows if r["version"] != "v0"):
        row["artifact_uri"] = str(path / row["artifact_uri"])
        tags = {"version": row["version"], "sha256": row["artifact_sha256"]}
        client.create_model_version(named, row["artifact_uri"], row["run_id"], tags=tags)
    lake = SailEngine(str(tmp_path / "lake"))
    training.record(lake, rows)
    given = {"target": "databricks", "catalog": "prices_prod", "source": "coingecko", "home_path": tmp_path / "none"}
    settings = Settings(role="remote", mlflow_registry_uri="databricks-uc", **given)  # type: ignore[call-arg]
    monkeypatch.setattr(models, "make_engine", lambda _: lake)
    monkeypatch.setattr(registry.Store, "client", lambda _: client)
    older = f"{TODAY - timedelta(days=1):%Y-%m-%d}-robust-z"
    assert models.decide(settings, "anomaly", None, "rolled_back", "worse", now=datetime.now(UTC)) == 0
    assert client.get_model_version_by_alias(named, "champion").tags["version"] == older
    assert not (tmp_path / "none").exists()

    driver, now = Settings(**given), datetime.now(UTC)  # type: ignore[call-arg]
    open_home(driver)
    refused = "of catalog prices_prod, in the workspace: run the bundle's job `decide_model`"
    with pytest.raises(UsageError, match=refused):
        models.show(driver, now=now, as_json=True)
    with pytest.raises(UsageError, match=refused):
        models.decide(driver, "anomaly", older, "rolled_back", "worse", now=now)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", "volatility", "v1", "--why", "x"), "there is no model volatility: choose anomaly"),
        (("promote", "anomaly", "v9", "--why", "x"), "anomaly has no version v9; the newest are"),
        (("rollback", "price_1h", "--why", "x"), "price_1h has had no version in service that is older than v0"),
        (("rollback", "anomaly", "--why", " "), "--why is empty"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(home, arguments, said):
    done = ran(home[0], *arguments)
    assert done.exit_code == 2
    assert said in one_line(done)
