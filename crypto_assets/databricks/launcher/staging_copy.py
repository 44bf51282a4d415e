"""The clean copy of the code that a launched step gets: our package's source and package data, nothing else.

Belongs here: which files are copied, which are rejected, and their log lines. Does not belong here: uploading
(`step_launcher`). Refused are secrets in any file, symbolic links out of the package, and sizes above a bound.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crypto_assets.errors import ReportedError
from crypto_assets.redaction import SHORTEST_SECRET

MOST_BYTES = 4 * 1024 * 1024
"""Most bytes of a copy. The package's source has some 1.2 MB; more means that data slipped in."""
MOST_BYTES_OF_A_FILE = 1024 * 1024
SUFFIXES = {".py", ".toml", ".yaml", ".json", ".typed"}
"""Files that a step needs on a cluster: source and small package data, without recordings."""
NOT_COPIED = {"__pycache__", "sample_data", "tests", "node_modules", "data", "spark-warehouse", "metastore_db"}


class StagingRefused(ReportedError):
    """The code cannot be shipped as it is; the message names every file and reason."""


@dataclass(frozen=True)
class StagedCopy:
    """Result of the copy.

    Args:
        root: Folder that holds the packages; the far side puts it on its path.
        files: Paths below `root`, sorted.
        size: Bytes in all.
        sha256: Of paths and contents in order.
    """

    root: Path
    files: tuple[str, ...]
    size: int
    sha256: str

    def describe(self) -> str:
        """One line for logs, and the content list under it."""
        return f"code to ship: {len(self.files)} files, {self.size:,} bytes, sha256 {self.sha256}\n" + "\n".join(
            self.files
        )


def stage(packages: Sequence[Path], into: Path, secrets: Mapping[str, str]) -> StagedCopy:
    """Copy packages into an empty folder.

    Args:
        packages: Package folders (with `__init__.py`), copied under their names.
        into: Folder to copy to; created.
        secrets: Secret values in force by environment name; none may occur in any file.

    Raises:
        StagingRefused: A file holds a secret or is too large, a link leads out of its package, a path is no package,
            or the whole is too large. Names everything that was found; `into` is removed.
    """
    problems: list[str] = []
    found: list[tuple[str, Path]] = []
    for package in packages:
        if not (package / "__init__.py").is_file():
            problems.append(f"{package} is no package: it has no __init__.py")
            continue
        found += [(f"{package.name}/{p.relative_to(package).as_posix()}", p) for p in _wanted(package, problems)]
    total, digest = 0, hashlib.sha256()
    values = {name: value.encode() for name, value in secrets.items() if len(value) >= SHORTEST_SECRET}
    contents: dict[str, bytes] = {}
    for name, path in sorted(found):
        data = path.read_bytes()
        if len(data) > MOST_BYTES_OF_A_FILE:
            problems.append(f"{name} has {len(data):,} bytes; at most {MOST_BYTES_OF_A_FILE:,} are shipped of a file")
        problems += [f"{name} holds the value of {secret}" for secret, value in values.items() if value in data]
        total += len(data)
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
        contents[name] = data
    if total > MOST_BYTES:
        problems.append(f"{total:,} bytes in all; at most {MOST_BYTES:,} are shipped: is there data in the package?")
    if problems:
        shutil.rmtree(into, ignore_errors=True)
        raise StagingRefused("the code cannot be shipped: " + "; ".join(problems))
    for name, data in contents.items():
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return StagedCopy(into, tuple(contents), total, digest.hexdigest())


def _wanted(package: Path, problems: list[str]) -> list[Path]:
    """Files of a package that are copied, without hidden ones; links that lead out are added to the problems."""
    real = package.resolve()
    wanted: list[Path] = []
    for path in sorted(package.rglob("*")):
        parts = path.relative_to(package).parts
        if any(p in NOT_COPIED or p.startswith(".") for p in parts):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(real):
            problems.append(f"{package.name}/{'/'.join(parts)} is a link out of the package")
        elif path.is_file() and path.suffix in SUFFIXES:
            wanted.append(path)
    return wanted
