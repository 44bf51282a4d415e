"""Model files: skops with an allow-list, content hashes, and checksums that are verified before loading.

A pickle could run code when it is read; skops refuses every type that is not on the list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crypto_assets.engine.base import StepFailed

TRUSTED: tuple[str, ...] = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Types beyond skops' own trusted ones that models may hold: the trees of the forest and of the boosting."""

MODEL_FILE, PARAMETERS_FILE = "model.skops", "parameters.json"


class ArtifactRefused(StepFailed):
    """A model file is missing, altered, or holds types that are not allowed; the message names it and the fix."""


def save(folder: Path, parameters: Mapping[str, Any], model: Any = None) -> str:
    """Write a version's parameters and model.

    Args:
        folder: Folder of the version, created.
        parameters: JSON-safe values (thresholds, quantiles, coefficients).
        model: A scikit-learn estimator, or None.

    Returns:
        SHA-256 over both files, as hex.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PARAMETERS_FILE).write_text(json.dumps(parameters, sort_keys=True, indent=1), encoding="utf-8")
    if model is not None:
        import skops.io

        skops.io.dump(model, folder / MODEL_FILE)
    return checksum(folder)


def checksum(folder: Path) -> str:
    """SHA-256 over a version's files.

    Raises:
        ArtifactRefused: The parameters are missing.
    """
    digest = hashlib.sha256()
    if not (folder / PARAMETERS_FILE).exists():
        raise ArtifactRefused(f"{folder} holds no model ({PARAMETERS_FILE} is missing): restore it from a backup")
    for name in (PARAMETERS_FILE, MODEL_FILE):
        path = folder / name
        if path.exists():
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def load(folder: Path, sha256: str) -> tuple[dict[str, Any], Any]:
    """Parameters and model of a version.

    Raises:
        ArtifactRefused: The files differ from the recorded checksum, or hold a type that is not allowed.
    """
    found = checksum(folder)
    if found != sha256:
        raise ArtifactRefused(
            f"{folder} is not what was registered (sha256 {found[:12]}…, recorded {sha256[:12]}…): restore it from a "
            "backup. Decisions are never rewritten, so training its day again does not replace it"
        )
    parameters = json.loads((folder / PARAMETERS_FILE).read_text(encoding="utf-8"))
    path = folder / MODEL_FILE
    if not path.exists():
        return parameters, None
    import skops.io

    unknown = [t for t in skops.io.get_untrusted_types(file=path) if t not in TRUSTED]
    if unknown:
        raise ArtifactRefused(f"{path} holds types that are not allowed: {', '.join(unknown)}")
    return parameters, skops.io.load(path, trusted=list(TRUSTED))


def content_hash(parameters: Mapping[str, Any], model: Any = None) -> str:
    """Hash of what was learnt, not of when: parameters and, for trees and linear models, their arrays."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for array in _arrays(model):
        digest.update(array)
    return digest.hexdigest()[:32]


def _arrays(model: Any) -> list[bytes]:
    import numpy as np

    if model is None:
        return []
    if hasattr(model, "estimators_"):
        trees = [e.tree_ for e in model.estimators_]
        parts = ("feature", "threshold", "children_left", "children_right", "n_node_samples")
        return [np.ascontiguousarray(getattr(t, part)).tobytes() for t in trees for part in parts]
    if hasattr(model, "coef_"):
        return [np.ascontiguousarray(model.coef_).tobytes(), np.asarray(model.intercept_).tobytes()]
    if hasattr(model, "_predictors"):
        baseline = np.asarray(model._baseline_prediction).tobytes()  # noqa: SLF001
        return [baseline, *(p.nodes.tobytes() for stage in model._predictors for p in stage)]  # noqa: SLF001
    raise TypeError(f"the content of a {type(model).__name__} cannot be hashed")
