"""Model files: what is loaded is what was registered, and holds nothing that could run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import Ridge
from sklearn.pipeline import FunctionTransformer, Pipeline

from crypto_assets.engine.base import StepFailed
from crypto_assets.ml import artifacts, challenger, price
from crypto_assets_tests.ml.synthetic import panel_of, walk

X = np.random.default_rng(0).standard_normal((1000, 7))
Y = X[:, 0] + X[:, 1] ** 2


def models() -> dict[str, Any]:
    fitted: dict[str, Any] = {name: price._fit(name, X, Y) for name in price.CANDIDATES}
    return fitted | {"isolation_forest": challenger.fit_forest(panel_of(walk(1, 3, 900)))}


@pytest.mark.parametrize("name", [*price.CANDIDATES, "isolation_forest"])
def test_every_algorithm_survives_its_file(name: str, tmp_path: Path) -> None:
    model = models()[name]
    sha256 = artifacts.save(tmp_path / "v", {"a": 1.5}, model)
    parameters, loaded = artifacts.load(tmp_path / "v", sha256)
    assert parameters == {"a": 1.5}
    assert type(loaded) is type(model)
    ask = "score_samples" if name == "isolation_forest" else "predict"
    width = model.n_features_in_
    assert (getattr(loaded, ask)(X[:50, :width]) == getattr(model, ask)(X[:50, :width])).all()
    assert artifacts.content_hash(parameters, loaded) == artifacts.content_hash(parameters, model)


@pytest.mark.slow
def test_the_content_hash_is_of_what_was_learnt() -> None:
    for name, model in models().items():
        again = models()[name]
        assert artifacts.content_hash({"a": 1}, model) == artifacts.content_hash({"a": 1}, again), name
        assert artifacts.content_hash({"a": 2}, model) != artifacts.content_hash({"a": 1}, model), name
    other = price._fit("gradient_boosting", X, Y + 1)
    assert artifacts.content_hash({}, other) != artifacts.content_hash({}, models()["gradient_boosting"])
    with pytest.raises(TypeError, match="FunctionTransformer cannot be hashed"):
        artifacts.content_hash({}, FunctionTransformer())


@pytest.mark.parametrize("file", [artifacts.MODEL_FILE, artifacts.PARAMETERS_FILE])
def test_an_altered_file_is_refused(file: str, tmp_path: Path) -> None:
    sha256 = artifacts.save(tmp_path, {"a": 1}, Ridge().fit(X, Y))
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(artifacts.ArtifactRefused, match="is not what was registered"):
        artifacts.load(tmp_path, sha256)


def test_another_model_in_its_place_is_refused(tmp_path: Path) -> None:
    sha256 = artifacts.save(tmp_path, {"a": 1}, Ridge().fit(X, Y))
    skops.io.dump(Ridge(alpha=5).fit(X, Y), tmp_path / artifacts.MODEL_FILE)
    with pytest.raises(artifacts.ArtifactRefused, match="is not what was registered"):
        artifacts.load(tmp_path, sha256)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    sha256 = artifacts.save(tmp_path / "v", {"a": 1}, Ridge().fit(X, Y))
    (tmp_path / "v" / artifacts.MODEL_FILE).unlink()
    with pytest.raises(artifacts.ArtifactRefused):
        artifacts.load(tmp_path / "v", sha256)
    with pytest.raises(artifacts.ArtifactRefused, match=r"parameters.json is missing"):
        artifacts.load(tmp_path / "nowhere", sha256)
    assert issubclass(artifacts.ArtifactRefused, StepFailed), "a step fails by it with its message, not with a trace"


def test_a_type_that_is_not_allowed_is_refused_even_with_the_right_checksum(tmp_path: Path) -> None:
    sha256 = artifacts.save(tmp_path, {}, Pipeline([("call", FunctionTransformer(func=print)), ("fit", Ridge())]))
    with pytest.raises(artifacts.ArtifactRefused, match=r"types that are not allowed: .*print"):
        artifacts.load(tmp_path, sha256)
