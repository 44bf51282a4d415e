"""The registry on a real sqlite store: the alias follows the promotions, and nothing else moves it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from crypto_assets.ml import artifacts, registry
from crypto_assets.ml.baselines import PRICE_5M, REGISTERED, v0_rows
from crypto_assets.ml.promotions import effective
from crypto_assets.ml.registry import CHAMPION, Store

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NAME = REGISTERED[PRICE_5M]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry, whose tables take a while to make."""
    root = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{root}/mlflow/mlflow.db"
    Store(uri, uri, str(root)).client().search_experiments()
    return root / "mlflow" / "mlflow.db"


@pytest.fixture
def store(database: Path, tmp_path: Path) -> Store:
    """A registry of its own for each test."""
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(database.read_bytes())
    return Store(f"sqlite:///{copy}", f"sqlite:///{copy}", str(tmp_path / "artifacts"))


def promoted(store: Store, day: int, slope: float = 1.0, decision: str = "promoted") -> dict[str, Any]:
    """A version of day `day`, logged and registered, and its row of the promotions."""
    x = np.arange(20.0).reshape(-1, 1)
    version = f"{BEGIN + day * DAY:%Y-%m-%d}-ridge"
    folder, sha256, run_id = registry.log_version(
        store,
        PRICE_5M,
        version,
        parameters={"lower": -1.0, "upper": 1.0},
        estimator=Ridge().fit(x, slope * x[:, 0]),
        metrics={"ridge": {"skill": {"value": 0.01, "lower": float("nan")}}},
        tags={"cutoff": (BEGIN + (day + 1) * DAY).isoformat()},
    )
    return {
        "model": PRICE_5M,
        "version": version,
        "cutoff": BEGIN + (day + 1) * DAY,
        "effective_from": BEGIN + (day + 1) * DAY,
        "decision": decision,
        "decided_at": BEGIN + (day + 1) * DAY,
        "artifact_uri": folder,
        "artifact_sha256": sha256,
        "run_id": run_id,
    }


def champion(store: Store) -> str:
    """Version text that the alias points at."""
    return store.client().get_model_version_by_alias(NAME, CHAMPION).tags["version"]


@pytest.mark.slow
def test_the_alias_is_the_newest_promotion_in_whatever_order_days_are_trained(store: Store) -> None:
    rows = [*v0_rows(BEGIN, BEGIN), promoted(store, 5)]
    assert registry.render_alias(store, rows, PRICE_5M) == champion(store) == "2024-01-06-ridge"
    rows.append(promoted(store, 2))
    assert registry.render_alias(store, rows, PRICE_5M) == champion(store) == "2024-01-06-ridge"
    rows.append(promoted(store, 7, decision="rejected"))
    assert registry.render_alias(store, rows, PRICE_5M) == champion(store) == "2024-01-06-ridge"
    rows.append(promoted(store, 6))
    assert registry.render_alias(store, rows, PRICE_5M) == champion(store) == "2024-01-07-ridge"


def test_an_alias_that_someone_moved_is_put_back(store: Store) -> None:
    rows = [*v0_rows(BEGIN, BEGIN), promoted(store, 1), promoted(store, 2)]
    registry.render_alias(store, rows, PRICE_5M)
    store.client().set_registered_model_alias(NAME, CHAMPION, "1")
    assert champion(store) == "2024-01-02-ridge"
    assert registry.render_alias(store, rows, PRICE_5M) == champion(store) == "2024-01-03-ridge"


def test_who_read_the_promotions_too_early_does_not_move_the_alias_back(store: Store) -> None:
    before = [*v0_rows(BEGIN, BEGIN), promoted(store, 1)]
    after = [*before, promoted(store, 2)]
    registry.render_alias(store, after, PRICE_5M)
    with pytest.raises(LookupError, match="promoted after this run had read the promotions"):
        registry.render_alias(store, before, PRICE_5M)
    assert champion(store) == "2024-01-03-ridge"


def test_an_alias_that_is_moved_while_it_is_set_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*v0_rows(BEGIN, BEGIN), promoted(store, 1), promoted(store, 2)]
    client = store.client()
    real = type(client).set_registered_model_alias

    def raced(self: Any, name: str, alias: str, version: str) -> None:
        real(self, name, alias, version)
        real(self, name, alias, "1")

    monkeypatch.setattr(type(client), "set_registered_model_alias", raced)
    with pytest.raises(LookupError, match="moved by someone else to 1"):
        registry.render_alias(store, rows, PRICE_5M)


def test_the_baseline_is_no_registered_version(store: Store) -> None:
    rows = v0_rows(BEGIN, BEGIN)
    assert registry.render_alias(store, rows, PRICE_5M) is None
    assert list(store.client().search_registered_models()) == []
    assert registry.render_alias(store, [], PRICE_5M) is None
    assert effective(rows, PRICE_5M, BEGIN)["version"] == "v0"
    loaded = registry.load(effective(rows, PRICE_5M, BEGIN))
    assert loaded.model is None
    assert loaded.parameters == {"interval_sigma": 1.6449}
    with pytest.raises(LookupError, match="no version of price_5m was effective"):
        effective(rows, PRICE_5M, BEGIN - DAY)


def test_a_version_that_was_never_registered_is_named(store: Store) -> None:
    row = promoted(store, 1)
    with pytest.raises(LookupError, match=r"has no version 2024-01-02-ridge .*registered: \['2024-01-02-ridge'\]"):
        registry.render_alias(store, [{**row, "artifact_sha256": "0" * 64}], PRICE_5M)


def test_a_run_that_died_before_its_decision_leaves_no_champion(store: Store) -> None:
    """It was registered, but not promoted; the second training's files are the ones that count."""
    lost, kept = promoted(store, 1, slope=1.0), promoted(store, 1, slope=2.0)
    assert lost["artifact_sha256"] != kept["artifact_sha256"]
    registry.render_alias(store, [*v0_rows(BEGIN, BEGIN), kept], PRICE_5M)
    found = store.client().get_model_version_by_alias(NAME, CHAMPION)
    assert (str(found.version), found.tags["sha256"]) == ("2", kept["artifact_sha256"])
    assert found.run_id == kept["run_id"]
    assert registry.load(kept).model.coef_[0] == pytest.approx(2.0, rel=0.01)


def test_what_was_logged_can_be_read_back(store: Store) -> None:
    row = promoted(store, 3)
    run = store.client().get_run(row["run_id"])
    assert run.data.metrics == {"ridge.skill.value": 0.01}, "only finite figures are metrics"
    assert run.data.tags["sha256"] == row["artifact_sha256"]
    assert run.data.tags["cutoff"] == "2024-01-05T00:00:00+00:00"
    assert run.info.status == "FINISHED"
    logged = store.client().download_artifacts(row["run_id"], "parameters.json")
    assert json.loads(Path(logged).read_text(encoding="utf-8")) == {"lower": -1.0, "upper": 1.0}
    assert artifacts.checksum(Path(row["artifact_uri"])) == row["artifact_sha256"]


def test_a_tampered_version_does_not_score(store: Store) -> None:
    row = promoted(store, 4, slope=3.0)
    (Path(row["artifact_uri"]) / artifacts.PARAMETERS_FILE).write_text('{"lower": -9, "upper": 9}', encoding="utf-8")
    with pytest.raises(artifacts.ArtifactRefused, match="is not what was registered"):
        registry.load(row)
