"""A home that was moved or copied uses its own model files, and nothing in it holds a place of the original."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import stamina
from mlflow import MlflowClient

from crypto_assets.assets import anomalies, anomaly_model, predictions, price_model
from crypto_assets.contracts.slices import DAY, HOUR, Slice, day_key, hour_key
from crypto_assets.engine.base import Engine, StepInputs
from crypto_assets.engine.sail import SailEngine
from crypto_assets.ml import artifacts, places
from crypto_assets.settings import Settings, child_environment
from crypto_assets_tests.builders import START, step_inputs
from crypto_assets_tests.ml.synthetic import feature_rows, names, panel_of, registry_of, walk

COINS = names(3)
DAYS = 10
NOW = START + 60 * DAY
TRAINED, SCORED = START + 8 * DAY, START + 9 * DAY

_opened: list[str] = []
_recording = False


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _recording and event == "open" and isinstance(arguments[0], (str, bytes)):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_record)


@contextmanager
def files_opened() -> Iterator[list[str]]:
    """Paths that this process opens meanwhile."""
    global _recording  # noqa: PLW0603 - an audit hook stays for the life of the process
    _opened.clear()
    _recording = True
    try:
        yield _opened
    finally:
        _recording = False


def inputs(home: Path, *, earlier: bool = False) -> StepInputs:
    """Inputs of a home's steps; `earlier` as the release gave them that recorded absolute places."""
    uri = Settings(home_path=home).tracking_uri
    root = (
        {"artifact_root": str(home / places.FOLDER)} if earlier else {"artifact_root": places.FOLDER, "home": str(home)}
    )
    params = {"tracking_uri": uri, "registry_uri": uri, **root}
    return step_inputs(NOW, coins=registry_of(COINS), params=params)


def engine_of(home: Path) -> Engine:
    return SailEngine(str(home / "lake"))


@pytest.fixture(scope="module", params=["now", "earlier"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of this or of the earlier release with a day of trained models, made in a working folder of its own."""
    home = tmp_path_factory.mktemp("original") / "h"
    home.mkdir()
    rows = feature_rows(panel_of(walk(21, 3, DAYS * 288), START))
    engine = engine_of(home)
    engine.store.replace_slice("features.price_features", Slice(START, START + DAYS * DAY), lambda: rows, now=NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home.parent)
        made = inputs(home, earlier=request.param == "earlier")
        anomaly_model.work(engine, [day_key(TRAINED)], made)
        price_model.work(engine, [day_key(TRAINED)], made)
    return home


def score(home: Path) -> set[str]:
    """Score an hour; the versions used."""
    engine, key = engine_of(home), hour_key(SCORED)
    anomalies.work(engine, [key], inputs(home))
    predictions.work(engine, [key], inputs(home))
    slice_ = Slice(SCORED, SCORED + HOUR)
    tables = ("gold.anomalies", "gold.price_predictions")
    return {v for t in tables for v in engine.store.read_arrow(t, slice_).column("model_version").to_pylist()}


def databases_text(home: Path) -> str:
    """Everything that MLflow's database holds."""
    with closing(sqlite3.connect(home / places.DATABASE)) as database:
        return "\n".join(database.iterdump())


def promoted(home: Path) -> list[dict[str, Any]]:
    return engine_of(home).store.read_arrow("ml.promotions", where="version <> 'v0'").to_pylist()


def version(home: Path, model: str) -> str:
    """The version that was trained on the first day."""
    return next(p["version"] for p in promoted(home) if p["model"] == model and p["cutoff"] == TRAINED + DAY)


@pytest.mark.slow
@pytest.mark.parametrize("original_is", ["there", "gone"])
def test_a_copy_uses_its_own_files_whatever_became_of_the_original(original: Path, tmp_path, monkeypatch, original_is):
    first, home = tmp_path / "first", tmp_path / "josé #1" / "h"
    shutil.copytree(original, home)
    shutil.copytree(original, first)
    away = original.rename(original.with_name("away"))
    try:
        if original_is == "there":
            shutil.copytree(away, original)
            for file in original.rglob(artifacts.PARAMETERS_FILE):
                file.write_text("{}", encoding="utf-8")  # a model that differs from the copy's
        monkeypatch.chdir(tmp_path)
        with files_opened() as opened:
            assert score(home) == {version(home, m) for m in ("anomaly", "price_5m", "price_1h")}
            anomaly_model.work(engine_of(home), [day_key(SCORED)], inputs(home))
        assert [p for p in opened if str(original) in p] == []
        assert any(str(home / places.FOLDER) in p for p in opened), "the hook sees what is opened"
    finally:
        shutil.rmtree(original, ignore_errors=True)
        away.rename(original)
    assert str(original.parent) not in databases_text(home)
    assert f"{places.SCHEME}/anomaly/{day_key(SCORED)}" in databases_text(home)
    newest = [p["artifact_uri"] for p in promoted(home) if p["cutoff"] == SCORED + DAY]
    assert len(newest) == 1
    assert newest[0].startswith(f"{places.FOLDER}/anomaly/{day_key(SCORED)}")
    assert (home / newest[0]).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("original", ["earlier"], indirect=True)
def test_mlflows_server_finds_the_files_of_a_home_that_was_moved(original: Path, tmp_path: Path):
    home = tmp_path / "josé #1" / "h"
    shutil.copytree(original, home)
    places.rewrite_database(home / places.DATABASE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home / places.DATABASE}"]
    command += ["--artifacts-destination", str(home / places.FOLDER)]
    with (tmp_path / "log").open("w+", encoding="utf-8") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=child_environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            client = MlflowClient(_answering(server, f"http://127.0.0.1:{port}"))
            [found] = [p for p in promoted(home) if p["model"] == "anomaly"]
            logged = client.download_artifacts(found["run_id"], artifacts.PARAMETERS_FILE, str(tmp_path))
            assert "thresholds" in json.loads(Path(logged).read_text(encoding="utf-8"))
            [registered] = client.search_model_versions("name='crypto_anomaly'")
            assert registered.source == f"{places.SCHEME}/anomaly/{found['version']}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(30)


def _answering(server: subprocess.Popen[bytes], url: str) -> str:
    """The address, once the server answers."""
    for attempt in stamina.retry_context(on=OSError, timeout=120, attempts=None, wait_max=0.5):
        with attempt:
            assert server.poll() is None, "the server ended"
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
    return url
