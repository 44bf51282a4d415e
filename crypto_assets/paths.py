"""Folders that people choose: what the parts that use one can take, and a plain name for a part that takes little.

Belongs here: the table of characters and lengths, and plain names. Does not belong here: which folder is used for what
(`settings`), or anything below one.
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
    """A folder cannot be used; the message names it, what is wrong with it, and the setting that changes it."""


@dataclass(frozen=True)
class Part:
    """What a part of the product can open.

    Args:
        why: The part, and how it takes a path.
        refused: What a path may not hold.
        longest: Longest path of the folder, bytes.
    """

    why: str
    refused: re.Pattern[str]
    longest: int


FILES = Part("files have text names", re.compile("[\x00-\x1f\x7f\ud800-\udfff]"), 3800)
"""Everything: no control characters, no bytes that are not UTF-8; Linux opens paths of at most 4,096 bytes."""
TABLES = Part("delta-rs opens tables by a decoded URL", re.compile(r"%[0-9A-Fa-f]{2}|[\[\]|^\\]"), 3800)
SQLITE = Part("Dagster and MLflow open SQLite files by a URL", re.compile(r"%[0-9A-Fa-f]{2}|\?"), 430)
"""SQLite opens paths of at most 504 bytes; those of runs are the longest of a home."""
CLASS_PATH = Part("Java's class path is a list", re.compile(f"[{os.pathsep}]"), 3800)


def require(what: str, folder: Path | str, *parts: Part, remedy: str) -> None:
    """Refuse a folder that a part cannot open. Where links lead counts too, since some parts follow them first.

    Args:
        what: What the folder is, as `the home`.
        folder: Its path; an address with a scheme is not judged.
        parts: What must open it, beside `FILES`.
        remedy: What to do.

    Raises:
        UnfitPath: Names every offending character and the part that cannot take it.
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
"""The private folder of this process, once there is one."""


def private_folder() -> Path:
    """A folder of this process alone, removed at its end, whose path every part can take.

    Raises:
        UnfitPath: There is no folder for temporary files with such a path.
    """
    with _LOCK:
        if not _private or not _private[-1].is_dir():  # systems remove what lies among temporary files for days
            bases = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - mkdtemp makes a folder that is ours alone
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
    if os.getpid() == owner:  # a fork has the same list of things to do at exit
        shutil.rmtree(folder, ignore_errors=True)


def plain(folder: str) -> str:
    """A folder by a path of plain characters: itself, or a link to it that lives as long as this process.

    Sail (0.7) encodes paths twice, so no spelling of `a b` or `josé` reaches its files, raw, encoded or as a URL.
    """
    if "://" in folder or _PLAIN.fullmatch(folder):
        return folder
    absolute = str(Path(folder).absolute())
    link = private_folder() / hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
    with _LOCK:
        if not link.is_symlink():
            link.symlink_to(absolute)
    return str(link)
