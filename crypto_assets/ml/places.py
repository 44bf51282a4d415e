"""Locations of a home's model files, recorded so that the home can be moved, copied or restored into another folder.

A home records its own files relative to itself: to the home in `ml.promotions`, to the artifact folder (MLflow's scheme
`mlflow-artifacts:`) in its MLflow database. Earlier versions recorded absolute paths, which go stale after a move.
Promotions are never rewritten, so old ones are translated on reading; those of MLflow, which reads its database itself,
are rewritten. Folders outside of any home stay as they are.

Belongs here: the form of these records. Does not belong here: models (`artifacts`, `registry`).
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from crypto_assets.ml.baselines import REGISTERED

FOLDER = "mlflow/artifacts"
"""Folder of a home's model files: `<model>/<version>`, and below `runs` MLflow's run artifacts."""
SCHEME = "mlflow-artifacts:"
"""Scheme that MLflow's server resolves in its `--artifacts-destination`."""
DATABASE = "mlflow/mlflow.db"

_VERSION = re.compile(rf"/(?:.*/)?({FOLDER}/(?:{'|'.join(REGISTERED)})/[^/]+)")
_ADDRESS = re.compile(rf"(?:file://)?/(?:.*/)?{FOLDER}/((?:runs|{'|'.join(REGISTERED)})(?:/.*)?)")
_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
_FIRST = (
    "SELECT rowid FROM experiments WHERE experiment_id = 0 AND artifact_location LIKE '/%/mlruns/0' "
    "AND NOT EXISTS (SELECT * FROM runs WHERE experiment_id = 0)"
)
"""MLflow's default experiment, located in the working folder of the first command."""
_LOG = logging.getLogger(__name__)


def recorded(artifact_uri: str) -> str:
    """Normalize an `artifact_uri` of `ml.promotions`: relative to the home, if below one."""
    match = _VERSION.fullmatch(artifact_uri)
    return match[1] if match else artifact_uri


def folder(promotion: Mapping[str, Any], home: str | None) -> Path:
    """Folder of a promoted version's files.

    Args:
        promotion: Row of `ml.promotions`.
        home: The home that uses it; None without one, when places are absolute.
    """
    return Path(home) / recorded(promotion["artifact_uri"]) if home else Path(promotion["artifact_uri"])


def rewrite_database(database: Path, *, dry_run: bool = False) -> int:
    """Make locations in a home's MLflow database relative.

    Args:
        database: MLflow's SQLite file; may be absent.
        dry_run: Count only.

    Returns:
        Number of locations that were, or would be, rewritten.
    """
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = [
            (table, column, row, SCHEME + "/" + match[1])
            for table in _COLUMNS.keys() & there
            for column in _COLUMNS[table]
            for row, value in connection.execute(f"SELECT rowid, {column} FROM {table}")  # noqa: S608 - names of ours
            if (match := _ADDRESS.fullmatch(value or ""))
        ]
        if {"experiments", "runs"} <= there:
            found += [("experiments", "artifact_location", row, f"{SCHEME}/0") for (row,) in connection.execute(_FIRST)]
        if found and not dry_run:
            with connection:
                for table, column, row, address in found:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (address, row))  # noqa: S608
            _LOG.warning("%s: %d absolute places of model files are now relative to the home", database, len(found))
    return len(found)
