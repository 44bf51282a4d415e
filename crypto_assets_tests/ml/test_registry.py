"""The registry on a real sqlite store: the alias follows the promotions, and nothing else moves it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry.model_version_search import ModelVersionSearch
from mlflow.exceptions import MlflowException
from mlflow.store._unity_catalog.registry.rest_store import UcModelRegistryStore
from mlflow.utils._unity_catalog_utils import split_uc_model_name
from sklearn.linear_model import Ridge

from crypto_assets.databricks.deploy.unity import MODELS_SCHEMA
from crypto_assets.engine.inputs import model_store
from crypto_assets.ml import artifacts, registry
from crypto_assets.ml.baselines import PRICE_5M, REGISTERED, v0_rows
from crypto_assets.ml.promotions import by_hand, effective
from crypto_assets.ml.registry import CHAMPION, Store
from crypto_assets.settings import Settings

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


class Workspace(MlflowClient):
    """A client of a sqlite store with the rules of a workspace's tracking and of Unity Catalog's registry.

    Raises:
        MlflowException: A name has fewer than three levels, an experiment's is no path, a version has no signature.
    """

    def create_experiment(self, name: str, artifact_location: str | None = None, **kwargs: Any) -> str:
        if not name.startswith("/") or artifact_location is not None:
            raise MlflowException(f"Got an invalid experiment name {name!r}: it must be an absolute path")
        return super().create_experiment(name, **kwargs)

    def create_registered_model(self, name: str, **kwargs: Any) -> Any:
        return super().create_registered_model(self._full(name), **kwargs)

    def get_registered_model(self, name: str) -> Any:
        return super().get_registered_model(self._full(name))

    def create_model_version(self, name: str, source: str, run_id: str, **kwargs: Any) -> Any:  # type: ignore[override]
        folder = self.download_artifacts(run_id, source.removeprefix(f"runs:/{run_id}/"))
        UcModelRegistryStore._validate_model_signature(None, folder)  # type: ignore[arg-type]
        return super().create_model_version(self._full(name), folder, run_id, **kwargs)

    def search_model_versions(self, filter_string: str, **kwargs: Any) -> Any:  # type: ignore[override]
        found = super().search_model_versions(f"name='{self._full(filter_string.split(chr(39))[1])}'", **kwargs)
        return [ModelVersionSearch(v.name, v.version, v.creation_timestamp) for v in found]

    @staticmethod
    def _full(name: str) -> str:
        split_uc_model_name(name)
        return name


@pytest.fixture
def workspace(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of a home whose models are in a workspace."""
    uri = store.tracking_uri
    monkeypatch.setattr(Store, "client", lambda _: Workspace(uri, uri))
    monkeypatch.chdir(store.artifact_root.rpartition("/")[0])  # sqlite keeps artifacts of runs there
    settings = Settings(target="databricks", source="simulator", catalog="prices_prod")  # type: ignore[call-arg]
    return Store.of({**model_store(settings, Path()), "artifact_root": store.artifact_root})


def test_versions_are_registered_in_the_schema_of_unity_catalog_and_promoted_there(workspace: Store) -> None:
    name = f"prices_prod.{MODELS_SCHEMA}.{NAME}"
    rows = [*v0_rows(BEGIN, BEGIN), promoted(workspace, 1), promoted(workspace, 2)]
    client = workspace.client()

    def serving() -> str:
        return client.get_model_version_by_alias(name, CHAMPION).tags["version"]

    assert registry.render_alias(workspace, rows, PRICE_5M) == serving() == "2024-01-03-ridge"
    back = by_hand(rows, PRICE_5M, "2024-01-02-ridge", "rolled_back", "worse", BEGIN + 4 * DAY)
    assert registry.render_alias(workspace, [*rows, back], PRICE_5M) == serving() == "2024-01-02-ridge"
    client.set_registered_model_alias(name, CHAMPION, "2")
    with pytest.raises(LookupError, match="promoted after this run had read"):
        registry.render_alias(workspace, rows[:-1], PRICE_5M)
    registry.point_challenger(workspace, rows[-1])
    assert client.get_model_version_by_alias(name, registry.CHALLENGER).tags["version"] == "2024-01-03-ridge"
    with pytest.raises(LookupError, match=r"registered: \['2024-01-02-ridge', '2024-01-03-ridge'\]"):
        registry.point_challenger(workspace, rows[-1] | {"version": "2024-01-09-ridge"})
    assert [m.name for m in client.search_registered_models()] == [name]


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
