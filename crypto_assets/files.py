"""Small files that several processes share: reading them, atomic replacement, locks between processes.

Does not belong here: what the files mean.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crypto_assets.errors import CANNOT, ReportedError, UsageError

ALIEN_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""First bytes of what Windows editors and PowerShell 5 write."""


class LockHeld(ReportedError):
    """Another process (or another thread) holds the lock; the message names the file."""

    exit_code = CANNOT


class UnreadableFile(UsageError):
    """A file that people or power losses can damage cannot be understood; the message begins with its path."""


def read_text(path: Path) -> str:
    """Text of a UTF-8 file; a byte-order mark in front of it is dropped.

    Raises:
        UnreadableFile: It is a folder, or not UTF-8.
        OSError: It is absent or may not be read.
    """
    if path.is_dir():
        raise UnreadableFile(f"{path} is a folder, and a file is expected: remove or rename it")
    data = path.read_bytes()
    alien = ALIEN_ENCODINGS.get(data[:2], "UTF-16 or binary data" if b"\0" in data else None)
    try:
        if alien is None:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        alien = f"not UTF-8 (byte {data[error.start]:#04x} at {error.start})"
    raise UnreadableFile(f"{path} is {alien}: save it as UTF-8")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        UnreadableFile: It holds none; says what it holds instead.
        OSError: It is absent or may not be read.
    """
    text = read_text(path)
    if not text.strip():
        raise UnreadableFile(f"{path} is empty")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UnreadableFile(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnreadableFile(f"{path} holds {json.dumps(found)[:40]}, and a JSON object is expected")
    return found


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader, or a crash at any point, sees the old or the new text in full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # what a full disk left of it
        raise


@contextmanager
def file_lock(path: Path, *, timeout_s: float | None) -> Iterator[None]:
    """Hold an exclusive advisory lock on `path` (created empty if absent); released also when the process dies.

    Args:
        path: Lock file; it is never deleted, since deleting one that others wait for would give two holders.
        timeout_s: Seconds to wait; None waits for ever, 0 tries once.

    Raises:
        LockHeld: The lock was not free within the time.
        OSError: The file system refuses locks, or the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise LockHeld(f"{path} is locked by another process") from None
                time.sleep(0.05)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
