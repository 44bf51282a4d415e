"""The SQLite files of a home (Dagster's and MLflow's): which of them cannot be used, why, and what helps.

Belongs here: looking at the files, with SQLite alone. Nothing is changed in them. Does not belong here: reading what
they hold (`orchestration.event_store`, `ml.registry`).
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

WAIT_S = 0.2
"""Seconds that another process may hold a file before it counts as locked."""
REVISION = re.compile(r"""^revision(?:\s*:\s*str)?\s*=\s*["'](\w+)["']""", re.MULTILINE)


@dataclass(frozen=True)
class Database:
    """One SQLite file of a home.

    Args:
        path: Relative to the home.
        holds: What is lost with it.
        package: Whose it is; its migrations are the folder `migrations` in there.
        migrations: Folder of schema revisions, relative to the package.
    """

    path: str
    holds: str
    package: str
    migrations: str


_DAGSTER = "_core/storage/alembic/versions"
DATABASES = (
    Database("dagster/history/runs.db", "the history of runs", "dagster", _DAGSTER),
    Database("dagster/history/runs/index.db", "the event log (materializations and checks)", "dagster", _DAGSTER),
    Database("dagster/schedules/schedules.db", "ticks of sensors and schedules", "dagster", _DAGSTER),
    Database("mlflow/mlflow.db", "MLflow's runs and registered models", "mlflow", "store/db_migrations/versions"),
)


def troubles(home: Path) -> Iterator[str]:
    """What is wrong with each database of a home, with its path and fix; nothing of those that are absent or good."""
    for database in DATABASES:
        path = home / database.path
        if path.exists() or path.is_symlink():
            found = _trouble(path, database)
            if found:
                yield f"{path}: {found}"


def _trouble(path: Path, database: Database) -> str | None:
    if path.is_dir():
        return "it is a folder, and a database is expected: remove it"
    aside = (
        f"it holds {database.holds}, no table of the lake. Stop what uses the home, then restore it from a backup, or "
        f"begin an empty one: mv {path} {path}.damaged"
    )
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=WAIT_S)) as opened:
            opened.isolation_level = None
            opened.execute("BEGIN IMMEDIATE")  # what a lock or a read-only disk refuses; nothing is written
            opened.execute("ROLLBACK")
            wrong = opened.execute("PRAGMA quick_check(1)").fetchone()[0]
            newer = _newer_revision(opened, database)
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            return f"{text} by {_holders(path)}; wait for it or stop it, then repeat the command"
        if "not a database" in text or "malformed" in text:
            return f"{text}; {aside}"
        return f"{text}; {surroundings(path)}"
    if wrong != "ok":
        return f"damaged ({wrong.splitlines()[0]}); {aside}"
    if newer:
        return (
            f"its schema {newer} is unknown to the installed {database.package}, so a newer one wrote it: install that "
            "version, or restore the file from a backup made before the upgrade"
        )
    return None


def surroundings(path: Path) -> str:
    """What around a file keeps SQLite from using it, and what helps."""
    disk = os.statvfs(path.parent)
    if disk.f_flag & os.ST_RDONLY:
        return "the file system is read-only: mount it writable"
    if not disk.f_bavail or (disk.f_files and not disk.f_favail):
        return "the disk is full: free some space, then repeat the command"
    if not all(os.access(p, os.R_OK | os.W_OK) for p in (path, path.parent)):
        return f"let this user write it and its folder: chown -R $(id -un) {path.parent}"
    return "look at the system's log (dmesg) and at ulimit -n and -f, then repeat the command"


def _newer_revision(opened: sqlite3.Connection, database: Database) -> str | None:
    """The schema's revision where the installed package does not know it."""
    try:
        row = opened.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    known = _revisions(database.package, database.migrations)
    return row[0] if row and known and row[0] not in known else None


@lru_cache
def _revisions(package: str, migrations: str) -> frozenset[str]:
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in (Path(folder) / migrations).glob("*.py")]
    return frozenset(found[1] for file in files if (found := REVISION.search(file.read_text(encoding="utf-8"))))


def _holders(path: Path) -> str:
    """Processes that have the file open, as far as this user may see them."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(f.path == str(path) for f in process.open_files()):
                found.append(f"process {process.pid} ({process.name()})")
    return ", ".join(found) or "another process"
