"""The model registry: MLflow runs and versions, and the alias `champion` rendered from the promotions.

MLflow is imported only here, when a model is trained or the alias is moved; scoring reads the artifact's folder, whose
checksum the promotion records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from crypto_assets.ml import artifacts, places
from crypto_assets.ml.baselines import BASELINE, REGISTERED
from crypto_assets.ml.panel import FIELDS
from crypto_assets.ml.promotions import effective
from crypto_assets.ml.scoring import Version

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Store:
    """Location of the model store.

    Args:
        tracking_uri: MLflow's tracking URI.
        registry_uri: MLflow's registry URI.
        artifact_root: Folder of artifacts, as promotions record it: relative to the home, or absolute.
        home: The home; empty without one.
        schema: Schema of registered models in Unity Catalog, as `catalog.ml`; empty in other registries.
    """

    tracking_uri: str
    registry_uri: str
    artifact_root: str
    home: str = ""
    schema: str = ""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Store:
        """From a step's `inputs.params`."""
        places_of = params["tracking_uri"], params["registry_uri"], params["artifact_root"]
        return cls(*places_of, params.get("home", ""), params.get("schema", ""))

    def name(self, model: str) -> str:
        """Registered name of a model: three levels in Unity Catalog, where a shorter one is of the session's schema."""
        return f"{self.schema}.{REGISTERED[model]}" if self.schema else REGISTERED[model]

    def experiment(self, client: Any, model: str) -> str:
        """Id of a model's experiment, which is created at first use.

        A workspace wants a path as its name, and keeps artifacts of runs where it wants.
        """
        in_workspace = self.tracking_uri.startswith("databricks")
        name = f"/Shared/crypto-assets-{model}" if in_workspace else REGISTERED[model]
        known = client.get_experiment_by_name(name)
        if known is not None:
            return known.experiment_id
        return client.create_experiment(name, None if in_workspace else self.address("runs"))

    @property
    def database(self) -> Path | None:
        """MLflow's database if it is the home's own; it records locations relative to the artifact folder."""
        own = Path(self.home, places.DATABASE)
        return own if self.home and self.tracking_uri == f"sqlite:///{own}" else None

    def address(self, *parts: str) -> str:
        """MLflow's address of a folder below that of artifacts."""
        if self.database:
            return "/".join((places.SCHEME, *parts))
        return Path(self.home, self.artifact_root, *parts).absolute().as_uri()

    def client(self) -> Any:
        """An MLflow client; creates a sqlite store's folder, and makes locations in a home's own database relative."""
        import logging

        from mlflow import MlflowClient

        # Creating a sqlite store logs each of its migrations.
        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        if self.tracking_uri.startswith("sqlite:///"):
            Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        if self.database and not places.rewrite_database(self.database) and not self.database.exists():
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            # A client would place the first experiment in the working folder, in SQL that breaks on quotes in the path.
            SqlAlchemyStore(self.tracking_uri, f"{places.SCHEME}/")
        return MlflowClient(self.tracking_uri, self.registry_uri)


def log_version(
    store: Store,
    model: str,
    version: str,
    *,
    parameters: Mapping[str, Any],
    estimator: Any,
    metrics: Mapping[str, Any],
    tags: Mapping[str, str],
    texts: Mapping[str, str] | None = None,
) -> tuple[str, str, str]:
    """Save a version's files, log its run, and register it.

    Args:
        store: Model store.
        model: one of `REGISTERED`.
        version: Our version text; the registry's own number is kept in its tags.
        parameters: What was learnt, JSON-safe.
        estimator: scikit-learn model, or None.
        metrics: Figures of the evaluation; nested ones are logged flat, only finite numbers.
        tags: More run tags (cut-off, algorithm).
        texts: More artifacts of the run, as text by file name.

    Returns:
        Location of the files as promotions record it, their SHA-256, and the MLflow run id.
    """
    place = f"{store.artifact_root}/{model}/{version}"
    folder = Path(store.home, place)
    sha256 = artifacts.save(folder, parameters, estimator)
    client = store.client()
    experiment = store.experiment(client, model)
    run = client.create_run(experiment, tags={**tags, "version": version, "sha256": sha256}, run_name=version)
    run_id = run.info.run_id
    _log_metrics(client, run.info, metrics)
    source = store.address(model, version)
    kept = Path(store.home, store.artifact_root, "runs", run_id, "artifacts")
    if store.database:
        kept.mkdir(parents=True)
    of_run = {artifacts.PARAMETERS_FILE: json.dumps(parameters, indent=1, sort_keys=True), **(texts or {})}
    for file, text in of_run.items():
        if store.database:
            (kept / file).write_text(text, encoding="utf-8")
        else:
            client.log_text(run_id, text, file)
    if not store.tracking_uri.startswith("sqlite:"):
        # A server registers only folders inside a run, so the run gets a copy. Scoring reads the folder.
        client.log_artifacts(run_id, str(folder), "model")
        if store.schema:
            client.log_text(run_id, _described(run_id), "model/MLmodel")
        source = f"runs:/{run_id}/model"
    client.set_terminated(run_id)
    _register(client, store.name(model), version, source, run_id, sha256)
    return place, sha256, run_id


def _described(run_id: str) -> str:
    """MLflow's description of a version, without which Unity Catalog registers none: types of inputs and outputs.

    It has no flavor: what loads a version is `load`, and what serves one is packed by `databricks.endpoint`.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    inputs = Schema([ColSpec(DataType.double, name, required=False) for name in FIELDS])
    signature = ModelSignature(inputs, Schema([ColSpec(DataType.double, "output")]))
    return Model(artifact_path="model", run_id=run_id, signature=signature).to_yaml()


def _log_metrics(client: Any, run: Any, metrics: Mapping[str, Any]) -> None:
    """Log figures in one call, since each call is a commit of the database."""
    from mlflow.entities import Metric

    client.log_batch(run.run_id, [Metric(name, value, run.start_time, 0) for name, value in _flat(metrics).items()])


def _register(client: Any, name: str, version: str, source: str, run_id: str, sha256: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.create_model_version(name, source, run_id, tags={"version": version, "sha256": sha256})


def render_alias(store: Store, promotions: Sequence[dict[str, Any]], model: str) -> str | None:
    """Point `champion` at the newest promoted version, by compare-and-set.

    The registry has no such operation, so the alias is read before and after: one that points at a newer version than
    these promotions contain is left alone.

    Returns:
        Version text that the alias points at, or None when the baseline serves, which is not registered.

    Raises:
        LookupError: The promoted version is not registered, or someone else moves the alias at the same time.
    """
    name = store.name(model)
    newest = max((p["effective_from"] for p in promotions if p["model"] == model), default=None)
    if newest is None:
        return None
    promoted = effective(promotions, model, newest)
    wanted = promoted["version"]
    if wanted == BASELINE:
        if any(p["model"] == model and p["version"] != BASELINE for p in promotions):  # rolled back to it
            store.client().delete_registered_model_alias(name, CHAMPION)
        return None
    client = store.client()
    number, current = _number(client, name, promoted), _aliased(client, name, CHAMPION)
    if current == number:
        return wanted
    decided = {p["version"] for p in promotions if p["model"] == model}
    if current is not None and current > number:
        there = _tags(client, name, current).get("version")
        if there not in decided:
            raise LookupError(
                f"the alias champion of {name} points at {there}, which was promoted after this run had read the "
                "promotions; run the step again"
            )
    client.set_registered_model_alias(name, CHAMPION, str(number))
    after = _aliased(client, name, CHAMPION)
    if after != number:
        raise LookupError(f"the alias champion of {name} was moved by someone else to {after}; run the step again")
    return wanted


def point_challenger(store: Store, challenger: Mapping[str, Any]) -> None:
    """Point the alias `challenger` at the version of a decision, unless it points at a newer one.

    Raises:
        LookupError: The version is not registered.
    """
    client, name = store.client(), store.name(challenger["model"])
    number = _number(client, name, challenger)
    if (_aliased(client, name, CHALLENGER) or 0) < number:
        client.set_registered_model_alias(name, CHALLENGER, str(number))


def _number(client: Any, name: str, decision: Mapping[str, Any]) -> int:
    """Number of a decision's version in the registry."""
    wanted, sha256 = decision["version"], decision["artifact_sha256"]
    found = client.search_model_versions(f"name='{name}'")
    texts: set[str] = set()
    # The newest first: a run that died before its decision was recorded leaves a registered version of the same text.
    for version in sorted(found, key=lambda v: -int(v.version)):
        # What is found in Unity Catalog has no tags but a method of that name, which says so.
        tags = version.tags if isinstance(version.tags, dict) else _tags(client, name, int(version.version))
        if (tags.get("version"), tags.get("sha256")) == (wanted, sha256):
            return int(version.version)
        texts |= {tags["version"]} if "version" in tags else set()
    raise LookupError(f"{name} has no version {wanted} with sha256 {sha256[:12]}…; registered: {sorted(texts)}")


def _tags(client: Any, name: str, number: int) -> Mapping[str, str]:
    return client.get_model_version(name, str(number)).tags


def _aliased(client: Any, name: str, alias: str) -> int | None:
    """Number of the version that an alias points at."""
    number = dict(client.get_registered_model(name).aliases).get(alias)
    return None if number is None else int(number)


def load(promotion: Mapping[str, Any], home: str | None = None) -> Version:
    """Load the version of a promotion; the process caches the last few.

    Args:
        promotion: Row of `ml.promotions`.
        home: The home whose files are used; None if places are absolute.

    Raises:
        ArtifactRefused: Files are missing, altered or not allowed.
    """
    if promotion["artifact_uri"] == "builtin:v0":
        return Version(promotion, json.loads(promotion["metrics"]))
    sha256 = promotion["artifact_sha256"]
    parameters, model = _loaded(places.folder(promotion, home), sha256)
    return Version(promotion, parameters, model)


@lru_cache(maxsize=8)
def _loaded(folder: Path, sha256: str) -> tuple[dict[str, Any], Any]:
    return artifacts.load(folder, sha256)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    import math

    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            flat[f"{prefix}{name}"] = float(value)
    return flat
