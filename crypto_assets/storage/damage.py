"""Finds damage of a local table: its log, and the data files listed by its newest readable version.

Belongs here: finding damages without changing anything, and the error that names them. Does not belong here: judging
log files (`storage.log_files`), repairing (`storage.repair`).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from crypto_assets.storage import log_files
from crypto_assets.storage.base import StorageError
from crypto_assets.storage.log_files import REPAIR, Damage, LogState, inspect, table_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

_READING = re.compile(
    r"Missing commit file|Parquet|Invalid JSON in log|[Oo]bject [Ss]tore|[Nn]o such file|not found|[Pp]ermission denied"
    r"|PATH_NOT_FOUND|FAILED_READ_FILE|FileNotFoundException|CANNOT_READ|DELTA_(LOG|TRUNCATED|STATE|VERSIONS|FILE)"
    r"|No space left|Read-only file system|Input/output error"
)
"""Messages of the engines for unreadable or unwritable files of a table."""
_SHOWN = 300


@dataclass(frozen=True)
class DataFile:
    """One data file that a version lists.

    Args:
        file: Path relative to the table's folder.
        partition: Delta partition values.
        problem: What is wrong with it; None = nothing by its size and its ends.
    """

    file: str
    partition: Mapping[str, Any]
    problem: str | None


@dataclass
class Diagnosis:
    """Contents of a table's folder.

    Attributes:
        table: Full name.
        path: Folder.
        log: Its log.
        readable_to: Newest version that can be read without what is damaged; None when not even the first can.
        files: Data files of that version.
    """

    table: str
    path: Path
    log: LogState
    readable_to: int | None = None
    files: list[DataFile] = field(default_factory=list)

    @property
    def damages(self) -> list[Damage]:
        """Everything that is damaged, the log's files first."""
        data = [Damage(self.table, f.file, f.problem, "data") for f in self.files if f.problem]
        return [*self.log.damages, *data]


def diagnose(path: str | Path) -> Diagnosis | None:
    """Examine a table's folder; None when there is no table. Changes nothing.

    Raises:
        StorageError: The folder cannot be listed, or a catalog keeps the table's commits.
    """
    path = Path(path)
    if not (path / "_delta_log").is_dir():
        if lost := lost_log(path):
            return Diagnosis(table_of(path), path, LogState(path, damages=[lost]))
        return None
    log_files.refuse_catalog_managed(path)
    try:
        log = inspect(path, thorough=True)
    except OSError as error:
        raise StorageError(f"{table_of(path)}: {error.filename} cannot be read: {error.strerror}") from error
    found = Diagnosis(table_of(path), path, log)
    if log.newest < 0:
        if lost := lost_log(path):
            log.damages.append(lost)
            return found
        return found if log.damages else None
    last = log.newest if log.first_bad is None else log.first_bad - 1
    if last >= 0 and last >= log.base:
        found.readable_to = last
        found.files = _data_files(log, last)
    return found


def lost_log(path: Path) -> Damage | None:
    """The damage of a folder that has data files and no log; None when it has neither or the log."""
    log = path / "_delta_log"
    if not path.is_dir() or (log.is_dir() and any(log.glob("*.json"))) or any(log.glob("*.checkpoint*")):
        return None
    files = sum(1 for f in path.rglob("*.parquet") if "_delta_log" not in f.parts)
    return Damage(table_of(path), "_delta_log", f"is lost, and {files} data files lie there", "log") if files else None


def _data_files(log: LogState, version: int) -> list[DataFile]:
    """Data files of a version, opened from a copy of the log that holds nothing damaged."""
    import pyarrow as pa
    from deltalake import DeltaTable

    with tempfile.TemporaryDirectory(prefix="crypto-assets-log-") as folder:
        target = Path(folder) / "_delta_log"
        target.mkdir()
        kept = [*log.checkpoints.get(log.base, []), *(f for v, f in log.commits.items() if log.base <= v <= version)]
        for file in kept:
            shutil.copyfile(file, target / file.name)
        handle: DeltaTable = DeltaTable(folder, version=version)
        rows = pa.table(handle.get_add_actions(flatten=True)).to_pylist()
    found = []
    for row in rows:
        name = unquote(row["path"])
        if not (log.path / name).exists() and (log.path / row["path"]).exists():
            name = row["path"]
        partition = {k.removeprefix("partition."): v for k, v in row.items() if k.startswith("partition.")}
        found.append(DataFile(name, partition, _data_problem(log.path / name, int(row["size_bytes"]))))
    return sorted(found, key=lambda f: f.file)


def _data_problem(file: Path, size: int) -> str | None:
    try:
        real = file.stat().st_size
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if real and real != size:
        return f"has {real:,} of {size:,} bytes"
    return log_files.parquet_problem(file, real)


def explained(error: BaseException, paths: Iterable[str | Path]) -> StorageError | None:
    """The error to raise instead of one that a library raised, when a table's files are its cause.

    Args:
        error: What delta-rs, Sail, Spark or Arrow raised.
        paths: Folders of the tables that were read or written; none where a catalog keeps them.

    Returns:
        An error that names table, file and the command that repairs; None when the error is of another kind.
    """
    if isinstance(error, StorageError) or type(error).__module__.startswith("crypto_assets."):
        return None
    folders = list(dict.fromkeys(map(Path, paths)))
    if not folders:
        return None
    found: dict[str, list[Damage]] = {}
    for path in folders:
        try:
            diagnosis = diagnose(path)
        except StorageError as why:
            return why
        except Exception as why:  # noqa: BLE001 - only adds detail to an error that is raised anyway
            found[table_of(path)] = [Damage(table_of(path), "its files", f"cannot be examined: {why}", "log")]
            continue
        if diagnosis is not None and any(d.kind != "hint" for d in diagnosis.damages):
            found[diagnosis.table] = diagnosis.damages
    if found:
        return StorageError("; ".join(log_files.refusal(table, damages) for table, damages in found.items()))
    place = str(getattr(error, "filename", None) or "")
    of_storage = type(error).__module__.startswith(("deltalake", "_internal")) or any(
        place.startswith(str(folder)) for folder in folders
    )
    text = " ".join(str(error).split())
    if of_storage or (type(error).__module__.startswith(("pyspark", "pyarrow", "builtins")) and _READING.search(text)):
        named = ", ".join(table_of(p) for p in folders)
        return StorageError(
            f"{named}: a file cannot be read or written: {type(error).__name__}: {text[:_SHOWN]}. Nothing was "
            f"committed; run the step again, and if it fails again examine the files with: {REPAIR}"
        )
    return None
