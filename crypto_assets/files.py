"""Small files that several processes share: atomic replacement and locks between processes.

Does not belong here: what the files mean.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LockHeld(Exception):
    """Another process (or another thread) holds the lock; the message names the file."""


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader, or a crash at any point, sees the old or the new text in full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)


@contextmanager
def file_lock(path: Path, *, timeout_s: float | None) -> Iterator[None]:
    """Hold an exclusive advisory lock on `path` (created empty if absent); released also when the process dies.

    Args:
        path: Lock file; it is never deleted, since deleting one that others wait for would give two holders.
        timeout_s: Seconds to wait; None waits for ever, 0 tries once.

    Raises:
        LockHeld: The lock was not free within the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise LockHeld(f"{path} is locked by another process") from None
                time.sleep(0.05)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
