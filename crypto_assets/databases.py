"""Read-only health checks of a home's SQLite files (Dagster's and MLflow's), with the fix for each problem.

Belongs here: inspecting the files with plain SQLite. Does not belong here: reading their contents
(`orchestration.event_store`, `ml.registry`).
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
"""Seconds to wait for another process before a file counts as locked."""
REVISION = re.compile(r"""^revision(?:\s*:\s*str)?\s*=\s*["'](\w+)["']""", re.MULTILINE)


@dataclass(frozen=True)
class Database:
    """One SQLite file of a home.

    Args:
        path: Relative to the home.
        holds: Contents, for messages.
        package: Package that owns the schema.
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
    """Problems of a home's databases, each with path and fix; absent and healthy files yield nothing."""
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
            opened.execute("BEGIN IMMEDIATE")  # fails on a lock or a read-only disk; nothing is written
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
    """Problem of the file's environment (mount, disk space, permissions) that blocks SQLite, with its fix."""
    disk = os.statvfs(path.parent)
    if disk.f_flag & os.ST_RDONLY:
        return "the file system is read-only: mount it writable"
    if not disk.f_bavail or (disk.f_files and not disk.f_favail):
        return "the disk is full: free some space, then repeat the command"
    if not all(os.access(p, os.R_OK | os.W_OK) for p in (path, path.parent)):
        return f"let this user write it and its folder: chown -R $(id -un) {path.parent}"
    return "check the system's log (dmesg) and ulimit -n and -f, then repeat the command"


def _newer_revision(opened: sqlite3.Connection, database: Database) -> str | None:
    """Schema revision of the file if the installed package does not know it, else None."""
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
    """Processes visible to this user that have the file open."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(f.path == str(path) for f in process.open_files()):
                found.append(f"process {process.pid} ({process.name()})")
    return ", ".join(found) or "another process"
