"""Models for Databricks Model Serving: a version's files and its promotion, packed as a pyfunc of MLflow.

The job `publish_models` of the bundle registers the version in force of every model in Unity Catalog; an endpoint then
answers as `/invocations` of the API does. `deploy/databricks/served_model.py` is the code that MLflow loads there.

Belongs here: packing, loading, registering. Does not belong here: scores and formats (`serving.scoring`), endpoints
(`deploy/online/databricks.yml`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.databricks.clusters import ENDPOINT_LIBRARIES, pinned
from crypto_assets.ml import places, registry
from crypto_assets.ml.baselines import ANOMALY, REGISTERED
from crypto_assets.ml.forecasts import TRACKED
from crypto_assets.ml.promotions import effective
from crypto_assets.serving.answers import Problem
from crypto_assets.serving.scoring import ANOMALY_OUTPUTS, ANOMALY_TEXTS, SHOWN, needed, predictions

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

    from crypto_assets.ml.scoring import Version

ARTIFACT = "version"
"""Name under which MLflow keeps the packed folder."""
SUFFIX = "_endpoint"
"""Ends the registered name: the name without it belongs to training's registry, whose files are no pyfunc."""
EXPERIMENT = "/Shared/crypto-assets-endpoints"
CODE = "deploy/databricks/served_model.py"
"""Within a checkout."""
_PROMOTION, _FILES = "promotion.json", "files"
_LISTS = ("detectors", *ANOMALY_TEXTS)
"""Outputs that are lists, as JSON text."""
_TEXTS = ("coin_id", *_LISTS, "model_name", "model_version", "horizon", "skill_verdict", "window_end")
_ANOMALY_OUTPUTS = ("coin_id", *ANOMALY_OUTPUTS, *ANOMALY_TEXTS, "model_name", "model_version")
_PRICE_OUTPUTS = (
    *("coin_id", "horizon"),
    *SHOWN,
    *("model_name", "model_version"),
)


@dataclass(frozen=True)
class Scorer:
    """One loaded version of a model."""

    version: Version

    @property
    def model(self) -> str:
        """anomaly, price_5m or price_1h."""
        return str(self.version.promotion["model"])

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One output row per row of features; NaN counts as null.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE, which the server answers with 400; names missing features.
        """
        import pandas as pd

        rows = [
            {name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")
        ]
        try:
            made = predictions(self.model, self.version, rows, datetime.now(UTC))
        except Problem as problem:
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(problem.detail) from problem
        found = [
            {name: json.dumps(v) if name in _LISTS and v is not None else v for name, v in row.items()} for row in made
        ]
        return pd.DataFrame(found, columns=pd.Index(outputs(self.model)))


def outputs(model: str) -> tuple[str, ...]:
    """Columns of a model's outputs, in order."""
    return _ANOMALY_OUTPUTS if model == ANOMALY else _PRICE_OUTPUTS


def optional(model: str) -> tuple[str, ...]:
    """Inputs that a model can do without: the coin, and what tracking has come to since the version's cut-off."""
    return ("coin_id",) if model == ANOMALY else ("coin_id", *TRACKED)


def pack(promotion: Mapping[str, Any], home: str | None, folder: Path) -> None:
    """Write a version's promotion and files into a new folder.

    Args:
        promotion: Row of `ml.promotions`.
        home: The home that its place is relative to; None where places are absolute, as on a volume.
        folder: Created.

    Raises:
        ArtifactRefused: The files are not those that were registered.
    """
    registry.load(promotion, home)
    folder.mkdir(parents=True)
    (folder / _PROMOTION).write_text(json.dumps(dict(promotion), default=str), encoding="utf-8")
    if promotion["artifact_sha256"]:
        shutil.copytree(places.folder(promotion, home), folder / _FILES)


def load(folder: Path) -> Scorer:
    """The version of a packed folder.

    Raises:
        ArtifactRefused: Its files are missing, altered, or hold types that are not allowed.
    """
    promotion = json.loads((folder / _PROMOTION).read_text(encoding="utf-8"))
    if promotion["artifact_sha256"]:
        promotion["artifact_uri"] = str(folder / _FILES)
    return Scorer(registry.load(promotion))


def signature(scorer: Scorer) -> ModelSignature:
    """Inputs and outputs, which Unity Catalog requires: the features that the version uses, and perhaps the coin."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    def of(name: str) -> DataType:
        return DataType.string if name in _TEXTS else DataType.boolean if name == "is_anomaly" else DataType.double

    inputs = [ColSpec(of(name), name) for name in needed(scorer.model, scorer.version)]
    return ModelSignature(
        Schema([*inputs, *(ColSpec(of(name), name, required=False) for name in optional(scorer.model))]),
        Schema([ColSpec(of(name), name) for name in outputs(scorer.model)]),
    )


def publish(
    promotions: Sequence[dict[str, Any]],
    model: str,
    now: datetime,
    *,
    schema: str,
    package: Path,
    home: str | None = None,
) -> tuple[str, str]:
    """Register the version of a model that is in force, unless it is already.

    MLflow's tracking and registry are those that the process is set to.

    Args:
        promotions: Rows of `ml.promotions`.
        model: anomaly, price_5m or price_1h.
        now: Present time (UTC).
        schema: Begins the registered name, `catalog.ml.` in Unity Catalog; may be empty.
        package: Folder that holds the package `crypto_assets` and `deploy`.
        home: See `pack`.

    Returns:
        Registered name and version number.

    Raises:
        LookupError: No version is in force.
        ArtifactRefused: Its files are not those that were registered.
    """
    import mlflow

    promotion = effective(promotions, model, now)
    name = f"{schema}{REGISTERED[model]}{SUFFIX}"
    tags = {"version": promotion["version"], "sha256": promotion["artifact_sha256"] or promotion["content_hash"]}
    client = mlflow.MlflowClient()
    for known in client.search_model_versions(f"name='{name}'"):
        if tags.items() <= client.get_model_version(name, known.version).tags.items():
            return name, str(known.version)
    mlflow.set_experiment(EXPERIMENT)
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_name=f"{model} {promotion['version']}"):
        folder = Path(scratch, ARTIFACT)
        pack(promotion, home, folder)
        made = mlflow.pyfunc.log_model(
            name=REGISTERED[model],
            python_model=str(package / CODE),
            artifacts={ARTIFACT: str(folder)},
            code_paths=[str(package / "crypto_assets")],
            pip_requirements=pinned(ENDPOINT_LIBRARIES),
            signature=signature(load(folder)),
            registered_model_name=name,
        )
    number = str(made.registered_model_version)
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    return name, number
