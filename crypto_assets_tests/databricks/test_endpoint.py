"""The model of serving endpoints: MLflow loads it from its registry, and it scores as the tables are scored."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import crypto_assets
from crypto_assets.databricks import endpoint
from crypto_assets.databricks.clusters import ENDPOINT_LIBRARIES
from crypto_assets.ml import artifacts, challenger
from crypto_assets.ml.artifacts import ArtifactRefused
from crypto_assets.ml.baselines import v0_rows
from crypto_assets.ml.panel import FIELDS, Panel
from crypto_assets.serving import scoring

pytestmark = pytest.mark.engine("local")
ROOT = Path(crypto_assets.__file__).parents[1]
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
PLACE = "mlflow/artifacts/crypto_anomaly/7"
LEVELS = {"thresholds": {"*": 0.5, "bitcoin": 0.45}}


@pytest.fixture(scope="module")
def promotions(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    """The baselines and a promoted forest, and the home of its files."""
    home = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(7)
    data = Panel(
        ("bitcoin",), 0, {f: random.normal(0, 1e-3, (1, 300)) for f in FIELDS} | {"s": np.full((1, 300), 1e-3)}
    )
    sha256 = artifacts.save(home / PLACE, LEVELS, challenger.fit_forest(data))
    forest = {
        "model": "anomaly", "version": "7", "algorithm": "isolation_forest", "decision": "promoted", "metrics": "{}",
        "artifact_uri": PLACE, "artifact_sha256": sha256, "content_hash": "c", "run_id": "",
        "cutoff": NOW, "effective_from": NOW, "decided_at": NOW,
    }  # fmt: skip
    return [*v0_rows(NOW - timedelta(days=9), NOW), forest], str(home)


def rows(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Features of five slots, one of which lacks a value."""
    random = np.random.default_rng(3)
    found = [{"coin_id": coin, **{n: float(random.normal(0, 4)) for n in names}, "s": 1e-3} for coin in "abcde"]
    found[0]["coin_id"] = "bitcoin"
    found[1][names[0]] = None
    return found


IN_MLFLOW = """
import json, sys
from datetime import datetime
from pathlib import Path
import mlflow, numpy as np, pandas as pd
from crypto_assets.databricks import endpoint

given = json.load(sys.stdin)
database = f"sqlite:///{given['folder']}/mlflow.db"
mlflow.set_tracking_uri(database)
mlflow.set_registry_uri(database)
mlflow.create_experiment(endpoint.EXPERIMENT, Path(given["folder"], "artifacts").as_uri())
times = given["times"]
known = [{k: datetime.fromisoformat(v) if k in times else v for k, v in p.items()} for p in given["promotions"]]
made = {}
for model, rows in given["rows"].items():
    published = [endpoint.publish(known, model, datetime.fromisoformat(given["now"]), schema="",
                                  package=Path(given["package"]), home=given["home"]) for _ in range(2)]
    loaded = mlflow.pyfunc.load_model("models:/{}/{}".format(*published[0]))
    frame = pd.DataFrame(rows)
    found = {"published": published, "rows": loaded.predict(frame).replace({np.nan: None}).to_dict("records")}
    found["without coin"] = loaded.predict(frame.drop(columns="coin_id")).replace({np.nan: None}).to_dict("records")
    try:
        loaded.predict(frame.drop(columns="s"))
    except mlflow.exceptions.MlflowException as error:
        found["without s"] = str(error)
    made[model] = found
print(json.dumps(made))
"""
"""Publishes, loads and asks each model in a process of its own: MLflow's imports warn, and its code is on the path."""
GIVEN = {"anomaly": rows(("rz", "r15", "r1h", "rv1h", "r5_market")), "price_1h": rows(("price",))[:1]}


@pytest.fixture(scope="module")
def answers(promotions: tuple[list[dict[str, Any]], str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What published models answered, by model."""
    known, home = promotions
    times = ("cutoff", "effective_from", "decided_at")
    given = {
        "promotions": [{k: v.isoformat() if k in times else v for k, v in p.items()} for p in known],
        "folder": str(tmp_path_factory.mktemp("mlflow")), "home": home, "now": NOW.isoformat(), "times": times,
        "package": str(ROOT), "rows": GIVEN,
    }  # fmt: skip
    command = [sys.executable, "-c", IN_MLFLOW]
    done = subprocess.run(
        command, check=False, cwd=ROOT, input=json.dumps(given), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "version"), [("anomaly", "7"), ("price_1h", "v0")])
def test_a_published_model_scores_like_the_api(
    model: str, version: str, answers: dict[str, Any], promotions: tuple[list[dict[str, Any]], str]
):
    known, home = promotions
    expected = scoring.predictions(model, scoring.version_in_force(known, model, NOW, home), GIVEN[model], NOW)
    found = answers[model]["rows"]
    if model == "anomaly":
        lists = ("explanation", "detectors", "similar_windows")
        found = [row | {n: json.loads(row[n] or "null") for n in lists} for row in found]
        assert found[1]["anomaly_score"] is None
        assert [row["threshold"] for row in answers[model]["without coin"]] == [0.5] * 5
    assert found == expected
    assert {row["model_version"] for row in found} == {version}
    assert re.search("missing inputs.*'s'", answers[model]["without s"])


@pytest.mark.slow
def test_a_version_is_registered_once(answers: dict[str, Any]):
    assert answers["anomaly"]["published"] == [["crypto_anomaly_endpoint", "1"]] * 2
    assert answers["price_1h"]["published"] == [["crypto_price_1h_endpoint", "1"]] * 2


def test_bad_input_is_the_callers_fault(promotions: tuple[list[dict[str, Any]], str], tmp_path: Path):
    known, home = promotions
    endpoint.pack(known[-1], home, tmp_path / "packed")
    scorer = endpoint.load(tmp_path / "packed")
    with pytest.raises(Exception, match="features are missing: r15, r1h, r5_market, rv1h, s") as refused:
        scorer.predict(pd.DataFrame([{"rz": 1.0}]))
    assert refused.value.get_http_status_code() == 400  # type: ignore[attr-defined]


def test_altered_files_are_refused(promotions: tuple[list[dict[str, Any]], str], tmp_path: Path):
    known, home = promotions
    endpoint.pack(known[-1], home, tmp_path / "packed")
    (tmp_path / "packed" / "files" / artifacts.PARAMETERS_FILE).write_text("{}")
    with pytest.raises(ArtifactRefused, match="is not what was registered"):
        endpoint.load(tmp_path / "packed")


def test_the_endpoint_needs_no_other_libraries(promotions: tuple[list[dict[str, Any]], str], tmp_path: Path):
    known, home = promotions
    endpoint.pack(known[-1], home, tmp_path / "packed")
    known_to = _with_requirements(ENDPOINT_LIBRARIES)
    of_module = {module: {_plain(n) for n in names} for module, names in metadata.packages_distributions().items()}
    absent = [m for m, names in of_module.items() if not names & {*known_to, "crypto-assets"}]
    assert {"dagster", "pyspark", "duckdb", "deltalake"} <= set(absent)
    given = json.dumps([absent, rows(("rz", "r15", "r1h", "rv1h", "r5_market"))])
    command = [sys.executable, "-c", IN_A_CONTAINER, str(tmp_path / "packed")]
    done = subprocess.run(command, check=False, cwd=ROOT, input=given, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["5"]), done.stderr


IN_A_CONTAINER = """
import json, pathlib, sys

absent, given = json.load(sys.stdin)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import pandas
from crypto_assets.databricks import endpoint
print(len(endpoint.load(pathlib.Path(sys.argv[1])).predict(pandas.DataFrame(given))))
"""
"""Loads a version and scores where only the libraries of the endpoint can be imported."""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _with_requirements(names: tuple[str, ...]) -> set[str]:
    """Distributions and what they require, as far as it is installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = _plain(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [re.split(r"[ ;<>=!~\[(]", need)[0] for need in needs if "extra ==" not in need]
    return found
