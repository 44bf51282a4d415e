"""The model registry: MLflow runs and versions, and the alias `champion` rendered from the promotions.

MLflow is imported only here, and only when a model is trained or the alias is moved: scoring reads the artifact's own
folder, whose checksum the promotion records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crypto_assets.ml import artifacts
from crypto_assets.ml.baselines import REGISTERED, effective
from crypto_assets.ml.scoring import Version

CHAMPION = "champion"
_loaded: dict[str, Version] = {}


@dataclass(frozen=True)
class Store:
    """Where models are kept: MLflow tracking and registry URIs, and the folder of artifacts."""

    tracking_uri: str
    registry_uri: str
    artifact_root: str

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Store:
        """From a step's `inputs.params`."""
        return cls(params["tracking_uri"], params["registry_uri"], params["artifact_root"])

    def client(self) -> Any:
        """An MLflow client; creates the folder of a sqlite store."""
        import logging

        from mlflow import MlflowClient

        # Creating a sqlite store logs each of its migrations.
        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        if self.tracking_uri.startswith("sqlite:///"):
            Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
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
) -> tuple[str, str, str]:
    """Save a version's files, log its run, and register it.

    Args:
        store: Where.
        model: `anomaly`, `price_5m` or `price_1h`.
        version: Our version text; the registry's own number is kept in its tags.
        parameters: What was learnt, JSON-safe.
        estimator: scikit-learn model, or None.
        metrics: Figures of the evaluation; nested ones are logged flat, only finite numbers.
        tags: More run tags (cut-off, algorithm).

    Returns:
        Artifact folder, its SHA-256, and the MLflow run id.
    """
    folder = Path(store.artifact_root) / model / version
    sha256 = artifacts.save(folder, parameters, estimator)
    client = store.client()
    experiment = client.get_experiment_by_name(REGISTERED[model])
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(REGISTERED[model], Path(store.artifact_root, "runs").absolute().as_uri())
    )
    run = client.create_run(experiment_id, tags={**tags, "version": version, "sha256": sha256}, run_name=version)
    run_id = run.info.run_id
    for name, value in _flat(metrics).items():
        client.log_metric(run_id, name, value)
    client.log_text(run_id, json.dumps(parameters, indent=1, sort_keys=True), "parameters.json")
    client.set_terminated(run_id)
    _register(client, model, version, folder, run_id, sha256)
    return str(folder), sha256, run_id


def _register(client: Any, model: str, version: str, folder: Path, run_id: str, sha256: str) -> None:
    from mlflow.exceptions import MlflowException

    name = REGISTERED[model]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.create_model_version(
        name, folder.absolute().as_uri(), run_id, tags={"version": version, "sha256": sha256}
    )


def render_alias(store: Store, promotions: Sequence[dict[str, Any]], model: str) -> str | None:
    """Point `champion` at the newest promoted version, by compare-and-set: looked at again after it was set.

    Returns:
        Our version text that the alias points at, or None when only the baseline was promoted.

    Raises:
        LookupError: The promoted version is not registered.
    """
    name = REGISTERED[model]
    newest = max((p["effective_from"] for p in promotions if p["model"] == model), default=None)
    if newest is None:
        return None
    wanted = effective(promotions, model, newest)["version"]
    if wanted == "v0":
        return None
    client = store.client()
    numbers = {v.tags.get("version"): v.version for v in client.search_model_versions(f"name='{name}'")}
    if wanted not in numbers:
        raise LookupError(f"{name} has no version {wanted}; registered: {sorted(filter(None, numbers))}")
    current = dict(client.get_registered_model(name).aliases).get(CHAMPION)
    if str(current) != str(numbers[wanted]):
        client.set_registered_model_alias(name, CHAMPION, numbers[wanted])
        after = dict(client.get_registered_model(name).aliases).get(CHAMPION)
        if str(after) != str(numbers[wanted]):
            raise LookupError(f"the alias champion of {name} was moved by someone else to {after}; run the step again")
    return wanted


def load(promotion: Mapping[str, Any]) -> Version:
    """The version of a promotion; kept in the process by checksum.

    Raises:
        ArtifactRefused: Files are missing, altered or not allowed.
    """
    if promotion["artifact_uri"] == "builtin:v0":
        return Version(promotion, json.loads(promotion["metrics"]))
    sha256 = promotion["artifact_sha256"]
    if sha256 not in _loaded:
        parameters, model = artifacts.load(Path(promotion["artifact_uri"]), sha256)
        _loaded[sha256] = Version(promotion, parameters, model)
    kept = _loaded[sha256]
    return Version(promotion, kept.parameters, kept.model)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    import math

    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            flat[f"{prefix}{name}"] = float(value)
    return flat
