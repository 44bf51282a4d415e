"""Model files read without the libraries that wrote them: parameters, and the trees of an isolation forest.

A model file of skops is a zip archive: `schema.json` describes the object, arrays lie beside it as `.npy`. Nothing in
it is executed here, and only arrays and plain values are read.

Belongs here: reading, and the arithmetic of a model. Does not belong here: which rows a version scores.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PARAMETERS, MODEL = "parameters.json", "model.skops"


@dataclass(frozen=True)
class Forest:
    """An isolation forest: the nodes of its trees, and the sample size of each tree."""

    trees: tuple[np.ndarray, ...]
    rows: int


BUILT_IN = "builtin:v0"
"""Location of the baselines, which have no files."""


def folder_of(home: Path | None, model: str, version: str, uri: str) -> Path | None:
    """Expected folder of a version's files: in a home that keeps model files, else the promotion's location.

    Returns:
        The folder, which may not exist in a home; None for a baseline, or if out of reach.
    """
    if uri == BUILT_IN:
        return None
    if home is not None and (home / "mlflow" / "artifacts").is_dir():
        return home / "mlflow" / "artifacts" / model / version
    place = Path(uri)
    return place if place.is_absolute() and place.is_dir() else None


def parameters(folder: Path) -> dict[str, Any]:
    """Parameters that a version learnt besides its model: thresholds, quantiles.

    Raises:
        ValueError: The file is missing or not JSON.
    """
    path = folder / PARAMETERS
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def sha256(folder: Path) -> str | None:
    """SHA-256 over a version's files as a promotion records it; None without parameters."""
    if not (folder / PARAMETERS).is_file():
        return None
    digest = hashlib.sha256()
    for path in (folder / PARAMETERS, folder / MODEL):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def forest(folder: Path) -> Forest | None:
    """The isolation forest of a version; None without a model file.

    Raises:
        ValueError: The file is not an isolation forest.
    """
    path = folder / MODEL
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            model = _value(json.loads(archive.read("schema.json")), archive, {})
        trees = tuple(tree["tree_"]["nodes"] for tree in model["estimators_"])
        return Forest(trees, int(model["_max_samples"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no isolation forest: {error!r}") from error


def isolation_scores(forest: Forest, inputs: np.ndarray) -> np.ndarray:
    """Anomaly score 2^(-mean depth / c(n)) of every row, in [0, 1] (Liu, Ting and Zhou 2008).

    Args:
        forest: A forest.
        inputs: N x 5 finite values. Trees compare them in single precision.
    """
    import numpy as np

    x = inputs.astype(np.float32)
    rows = np.arange(len(x))
    total = np.zeros(len(x))
    for nodes in forest.trees:
        at = np.zeros(len(x), dtype=np.int64)
        depth = np.zeros(len(x))
        while (inner := nodes["left_child"][at] >= 0).any():
            here = nodes[at]
            left = x[rows, np.maximum(here["feature"], 0)] <= here["threshold"]
            at = np.where(inner, np.where(left, here["left_child"], here["right_child"]), at)
            depth += inner
        total += depth + _unsplit(nodes["n_node_samples"][at])
    return 2.0 ** (-total / (len(forest.trees) * _unsplit(np.array([forest.rows]))))


def _unsplit(count: np.ndarray) -> np.ndarray:
    """c(n): expected depth of a further search among n rows that a leaf holds."""
    import numpy as np

    n = np.maximum(count.astype(float), 3.0)
    many = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.where(count <= 1, 0.0, np.where(count == 2, 1.0, many))


def _value(node: Mapping[str, Any], archive: zipfile.ZipFile, seen: dict[int, Any]) -> Any:
    """A described object as plain values: dicts, lists, arrays; objects become their state."""
    import numpy as np

    loader, number = node["__loader__"], node.get("__id__")
    if loader == "CachedNode":
        return seen.get(node.get("cached", number))
    content = node.get("content")
    if loader == "JsonNode":
        found: Any = json.loads(str(content))
    elif loader == "NdArrayNode" and node.get("type") == "numpy":
        found = np.load(io.BytesIO(archive.read(node["file"])), allow_pickle=False)
    elif loader == "DictNode" and isinstance(content, Mapping):
        found = {name: _value(part, archive, seen) for name, part in content.items()}
    elif isinstance(content, list):
        found = [_value(part, archive, seen) for part in content]
    elif isinstance(content, Mapping) and "__loader__" in content:
        found = _value(content, archive, seen)
    else:
        found = None
    if number is not None:
        seen[number] = found
    return found
