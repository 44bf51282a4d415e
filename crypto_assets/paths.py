"""Validates user-chosen folders against what each component can open, and aliases them for components that cannot.

Belongs here: permitted characters and lengths, and plain aliases. Does not belong here: which folder is used for what
(`settings`).
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path


class UnfitPath(ValueError):
    """A folder cannot be used; the message names the folder, the problem and the setting that changes it."""


@dataclass(frozen=True)
class Part:
    """Path restrictions of a component.

    Args:
        why: The component and how it handles paths, for messages.
        refused: Characters that the path must not contain.
        longest: Maximum length of the folder's path in bytes.
    """

    why: str
    refused: re.Pattern[str]
    longest: int


FILES = Part("files have text names", re.compile("[\x00-\x1f\x7f\ud800-\udfff]"), 3800)
"""All components: UTF-8 without control characters; Linux limits paths to 4,096 bytes."""
TABLES = Part("delta-rs opens tables by a decoded URL", re.compile(r"%[0-9A-Fa-f]{2}|[\[\]|^\\]"), 3800)
SQLITE = Part("Dagster and MLflow open SQLite files by a URL", re.compile(r"%[0-9A-Fa-f]{2}|\?"), 430)
"""SQLite limits paths to 504 bytes; the paths of run logs are the longest in a home."""
CLASS_PATH = Part("Java's class path is a list", re.compile(f"[{os.pathsep}]"), 3800)


def require(what: str, folder: Path | str, *parts: Part, remedy: str) -> None:
    """Reject a folder that a component cannot open. Symlink targets are checked too: some components resolve them.

    Args:
        what: Name of the folder in the message, such as `the home`.
        folder: Its path; URLs are not checked.
        parts: Components that must open it, in addition to `FILES`.
        remedy: Fix, for the message.

    Raises:
        UnfitPath: Names every offending character and the component that rejects it.
    """
    text = str(folder)
    if "://" in text:
        return
    absolute = str(Path(text).absolute())
    problems = _problems(absolute, parts)
    if not problems and (target := os.path.realpath(absolute)) != absolute:
        problems = [f"it leads to {shown(target)}: {p}" for p in _problems(target, parts)]
    if problems:
        raise UnfitPath(f"{what} cannot be {shown(absolute)}: {'; '.join(problems)}. {remedy}")


def _problems(path: str, parts: tuple[Part, ...]) -> list[str]:
    found = []
    length = len(os.fsencode(path))
    for part in (FILES, *parts):
        if held := [f"'{shown(text)}'" for text in dict.fromkeys(part.refused.findall(path))]:
            found.append(f"its path has {', '.join(held)} ({part.why})")
        if length > part.longest:
            found.append(f"its path has {length:,} bytes, and at most {part.longest:,} can be used ({part.why})")
    return found


def shown(path: str) -> str:
    """A path on one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in path)


# --- plain names --------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"[A-Za-z0-9/._+=@-]*")
_LOCK = threading.Lock()
_private: list[Path] = []
"""The private temporary folder of this process, once created."""


def private_folder() -> Path:
    """Temporary folder private to this process, removed at exit, with a path that every component accepts.

    Raises:
        UnfitPath: No usable folder for temporary files has such a path.
    """
    with _LOCK:
        if not _private or not _private[-1].is_dir():  # systems clean up old temporary files
            bases = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - mkdtemp creates a private folder
            base = next((b for b in bases if _PLAIN.fullmatch(b) and os.access(b, os.W_OK)), None)
            if base is None:
                raise UnfitPath(
                    f"no folder for temporary files can be used ({', '.join(map(shown, bases))}): set TMPDIR to one "
                    "that can be written and whose path has only letters, digits and ._-"
                )
            _private.append(Path(tempfile.mkdtemp(prefix="crypto-assets-", dir=base)))
            atexit.register(_remove, _private[-1], os.getpid())
        return _private[-1]


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a fork inherits the exit handlers
        shutil.rmtree(folder, ignore_errors=True)


def plain(folder: str) -> str:
    """The folder's path if it has plain characters only, else a symlink to it that lives as long as this process.

    Sail (0.7) encodes paths twice, so it cannot open `a b` or `josé` in any spelling: raw, encoded or as a URL.
    """
    if "://" in folder or _PLAIN.fullmatch(folder):
        return folder
    absolute = str(Path(folder).absolute())
    link = private_folder() / hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
    with _LOCK:
        if not link.is_symlink():
            link.symlink_to(absolute)
    return str(link)
