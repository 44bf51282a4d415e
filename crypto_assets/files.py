"""Small files shared by processes: validated reads, atomic replacement, advisory locks. Not their meaning."""

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
"""Byte-order marks that Windows editors and PowerShell 5 write."""


class LockHeld(ReportedError):
    """Another process (or another thread) holds the lock; the message names the file."""

    exit_code = CANNOT


class UnreadableFile(UsageError):
    """A user-editable or damaged file is invalid; the message starts with its path."""


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, without its byte-order mark.

    Raises:
        UnreadableFile: It is a folder, or not UTF-8.
        OSError: It is missing or not readable.
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
    """The JSON object in a file.

    Raises:
        UnreadableFile: It does not contain a JSON object; the message describes its contents.
        OSError: It is missing or not readable.
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
    """Replace the contents of `path` atomically: readers see the old or the new text in full, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a partial file on a full disk
        raise


@contextmanager
def file_lock(path: Path, *, timeout_s: float | None) -> Iterator[None]:
    """Hold an exclusive advisory lock on `path` (created if missing); the kernel releases it if the process dies.

    Args:
        path: Lock file; never deleted, since deleting a file that others wait on would allow two holders.
        timeout_s: Seconds to wait; None waits forever, 0 tries once.

    Raises:
        LockHeld: The lock was not acquired in time.
        OSError: The file system does not support locks, or the file cannot be opened.
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
