"""The law on promotions: files, hashes, the experiment's own record, and the promotion rule."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from crypto_assets.verify import model_files
from crypto_assets.verify.laws.base import Evidence, Law

_READ: tuple[str, ...] = (
    "model", "version", "algorithm", "cutoff", "decision", "metrics", "artifact_uri", "artifact_sha256", "content_hash",
    "run_id", "decided_at",
)  # fmt: skip

_BY_HAND = ("promoted_by_hand", "rolled_back")


def promotions_law() -> Law:
    """Law: a promotion's files are the registered ones, its figures its run's, and its decision follows from them."""
    return Law(
        "promotions_are_of_their_files_and_runs",
        "model files have the hashes recorded, metrics are those that MLflow has, and decisions follow from them",
        ("ml.promotions",),
        "SELECT problem, model, version FROM audit_promotions",
        covers={"ml.promotions": ("algorithm", "decision", "metrics", "artifact_sha256", "content_hash", "run_id")},
        recomputed="model files hashed again, MLflow's own record",
        prepare=_judge,
    )


def _judge(evidence: Evidence) -> str | None:
    """Create `audit_promotions` (faults by version); returns a note on what could not be checked."""
    connection = evidence.connection
    connection.execute("CREATE OR REPLACE TABLE audit_promotions (problem VARCHAR, model VARCHAR, version VARCHAR)")
    found = connection.execute(f'SELECT {", ".join(_READ)} FROM "ml.promotions"').fetchall()
    rows = [dict(zip(_READ, row, strict=True)) for row in found]
    runs, notes = _runs(evidence.home)
    unread, wrong = [], list(_decision_problems(rows))
    for row in rows:
        folder = model_files.folder_of(evidence.home, row["model"], row["version"], row["artifact_uri"])
        problems = [*_file_problems(row, folder), *_run_problems(row, runs)]
        wrong += [(recorded, row["model"], row["version"]) for recorded in problems]
        if row["artifact_uri"] != model_files.BUILT_IN and folder is None:
            unread.append(row["version"])
    for problem in wrong:
        connection.execute("INSERT INTO audit_promotions VALUES (?, ?, ?)", problem)
    if unread:
        notes = [*notes, f"files of {', '.join(sorted(set(unread)))} are out of reach and were not hashed"]
    return "; ".join(notes) or None


def _file_problems(row: Mapping[str, Any], folder: Path | None) -> Iterator[str]:
    if row["artifact_uri"] == model_files.BUILT_IN:
        if row["content_hash"] != f"v0:{json.dumps(json.loads(row['metrics']), sort_keys=True)}":
            yield "the baseline's hash is not of its parameters"
        return
    if folder is None:
        return
    found = model_files.sha256(folder)
    if found is None:
        yield f"no model files in {folder}"
        return
    if found != row["artifact_sha256"]:
        yield "files have another sha256 than recorded"
        return
    parameters = model_files.parameters(folder)
    if parameters.get("algorithm") != row["algorithm"]:
        yield f"files are of algorithm {parameters.get('algorithm')}"
    learnt = _content_hash(row["algorithm"], parameters, folder)
    if learnt is not None and learnt != row["content_hash"]:
        yield "content_hash is not of what the files hold"


def _content_hash(algorithm: str, parameters: Mapping[str, Any], folder: Path) -> str | None:
    """Hash of what was learnt; None for an algorithm whose arrays are not read here."""
    import numpy as np

    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    if algorithm == "isolation_forest":
        forest = model_files.forest(folder)
        for nodes in forest.trees if forest else ():
            for field in ("feature", "threshold", "left_child", "right_child", "n_node_samples"):
                digest.update(np.ascontiguousarray(nodes[field]).tobytes())
    elif (folder / model_files.MODEL).exists():
        return None
    return digest.hexdigest()[:32]


def _runs(home: Path | None) -> tuple[dict[str, dict[str, float]] | None, list[str]]:
    """Metrics by run of the home's own MLflow, and notes; None without such a database."""
    database = home / "mlflow" / "mlflow.db" if home else None
    if database is None or not database.is_file():
        return None, ["the home has no MLflow database, so metrics were not compared with their runs"]
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        runs: dict[str, dict[str, float]] = {run: {} for (run,) in connection.execute("SELECT run_uuid FROM runs")}
        for run, key, value in connection.execute("SELECT run_uuid, key, value FROM latest_metrics"):
            runs.setdefault(run, {})[key] = value
    return runs, []


def _run_problems(row: Mapping[str, Any], runs: Mapping[str, Mapping[str, float]] | None) -> Iterator[str]:
    if runs is None or row["artifact_uri"] == model_files.BUILT_IN:
        return
    run = runs.get(row["run_id"])
    if run is None:
        yield f"MLflow has no run {row['run_id']}"
        return
    recorded = dict(_flat(json.loads(row["metrics"])))
    keys = sorted({*recorded, *run})
    differing = [k for k in keys if not math.isclose(recorded.get(k, math.nan), run.get(k, math.nan), rel_tol=1e-12)]
    if differing:
        yield f"metrics that its run has otherwise: {', '.join(differing)}"


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Finite figures by dotted name, as a run holds them."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)


def _decision_problems(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Decisions that contradict the figures of their day.

    One version is promoted, and the better one; none while a person's rollback holds. A person decides freely, but on
    versions that a training has made.
    """
    rows = list(rows)
    days: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    trained = {(r["model"], r["version"], r["artifact_sha256"]) for r in rows if r["decision"] not in _BY_HAND}
    for row in rows:
        if row["decision"] in _BY_HAND:
            if (row["model"], row["version"], row["artifact_sha256"]) not in trained:
                yield "a person decided on a version that no training made", row["model"], row["version"]
        elif row["artifact_uri"] == model_files.BUILT_IN:
            if row["decision"] != "promoted":
                yield "the baseline was not promoted", row["model"], row["version"]
        else:
            days.setdefault((row["model"], row["cutoff"]), []).append(row)
    for (model, _), decided in days.items():
        promoted = [r for r in decided if r["decision"] == "promoted"]
        if _holds(rows, model, decided[0]["decided_at"]):
            yield from (("promoted while a rollback holds the model", model, r["version"]) for r in promoted)
            continue
        if not promoted and _forest_of_the_week(rows, decided[0]):
            continue
        if len(promoted) != 1:
            yield f"{len(promoted)} versions of its cut-off are promoted", model, decided[0]["version"]
            continue
        by_rule = _calmer if model.startswith("volatility") else _skilled
        wanted = _better(decided) if model == "anomaly" else by_rule(promoted[0])
        if wanted != promoted[0]["algorithm"]:
            yield f"by the figures {wanted} serves", model, promoted[0]["version"]


def _holds(rows: Iterable[Mapping[str, Any]], model: str, at: Any) -> bool:
    """Whether the newest decision of a person about a model was a rollback."""
    decided = [r for r in rows if r["model"] == model and r["decision"] in _BY_HAND and r["decided_at"] <= at]
    return bool(decided) and max(decided, key=lambda r: r["decided_at"])["decision"] == "rolled_back"


def _forest_of_the_week(rows: Iterable[Mapping[str, Any]], day: Mapping[str, Any]) -> bool:
    """Whether a forest was promoted within the week before a day's cut-off: the day's own version waits."""
    if day["model"] != "anomaly":
        return False
    earlier = [r for r in rows if r["model"] == "anomaly" and r["cutoff"] < day["cutoff"]
               and r["decision"] == "promoted"]  # fmt: skip
    newest = max(earlier, key=lambda r: r["cutoff"], default=None)
    return (
        newest is not None
        and newest["algorithm"] == "isolation_forest"
        and day["cutoff"] - newest["cutoff"] < timedelta(days=7)
    )


def _better(decided: Iterable[Mapping[str, Any]]) -> str:
    """The forest if the figures of its comparison say so, else what was calibrated beside it."""
    champion = "robust_z"
    wins = False
    for row in decided:
        if row["algorithm"] != "isolation_forest":
            champion = row["algorithm"]
            continue
        figures = json.loads(row["metrics"])
        if "gate" in figures:
            wins = _passes(figures["gate"]["difference"])
        elif "recall" in figures:  # as days of the first release were decided
            mine, other = figures["recall"]["challenger"], figures["recall"]["champion"]
            wins = all(mine[k] >= other[k] for k in mine)
    return "isolation_forest" if wins else champion


def _passes(found: Mapping[str, Mapping[str, float]]) -> bool:
    """A point more of all faults in one coin, in no kind of them less, at most 2 points less of market-wide moves."""
    return (
        found.get("injected", {}).get("lower", 0) > 0.01
        and all(d["upper"] >= 0 for kind, d in found.items() if kind.startswith(("spike", "drop")))
        and all(d["lower"] >= -0.02 for kind, d in found.items() if kind.startswith("market"))
    )


def _skilled(row: Mapping[str, Any]) -> str:
    """The candidate with the most skill among those with positive lower bounds, else persistence; and the scale."""
    metrics = json.loads(row["metrics"])
    passing = {
        name: figures["skill"]["value"]
        for name, figures in metrics.items()
        if isinstance(figures, Mapping) and figures.get("skill", {}).get("lower", 0) > 0
        and figures.get("delayed", {}).get("lower", 0) > 0
    }  # fmt: skip
    point = max(passing, key=lambda name: passing[name], default="persistence")
    return f"{point}+{_scale(metrics['interval'])}" if "interval" in metrics else point


def _calmer(row: Mapping[str, Any]) -> str:
    """The regression once its loss was surely lower than every baseline's, until one of theirs is surely lower."""
    figures = json.loads(row["metrics"])
    gains = [figures["gain"][name] for name in ("ewma", "last_value", "constant")]
    serves = figures["present"] == "log_har" and all(gain["upper"] >= 0 for gain in gains)
    return "log_har" if serves or all(gain["lower"] > 0 for gain in gains) else "ewma"


def _scale(figures: Mapping[str, Any]) -> str:
    """The scale with the lowest score among those that are surely better and cover 88 to 92 %, else that in force."""
    passing = {
        name: tried["winkler"]
        for name, tried in figures["scales"].items()
        if all((tried[over]["lower"] or 0) > 0 for over in ("gain", "over_constant"))
        and all(abs(share - 0.9) <= 0.02 for share in tried["coverage"].values())
    }
    return min(passing, key=lambda name: passing[name], default=figures["present"])
