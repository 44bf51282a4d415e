"""What a home takes on its disk, and how fast it grows.

Belongs here: measuring. Does not belong here: making room (`maintain`), what is wrong with a disk (`doctor`).
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from crypto_assets.contracts.slices import DAY

EVERY_S = 300.0


@dataclass(frozen=True)
class DiskUse:
    """One measurement.

    Args:
        home_bytes: Size of all files of the home, and of the lake where that is outside.
        written_24h_bytes: Of these, files that were written in the 24 hours before: growth at most, since some of them
            replace older ones that housekeeping removes.
        free_bytes: What the disk of the lake has left for this user.
        measured_at: Time of the measurement (UTC).
    """

    home_bytes: int
    written_24h_bytes: int
    free_bytes: int
    measured_at: datetime


class Disk:
    """Measures a home at most every five minutes: a year's home has a hundred thousand files.

    Args:
        home: Folder of the home.
        lake: Folder of its tables.
    """

    def __init__(self, home: Path, lake: Path) -> None:
        self._folders = [home] if lake.resolve().is_relative_to(home.resolve()) else [home, lake]
        self._lake = lake
        self._last: DiskUse | None = None
        self._lock = threading.Lock()

    def use(self, now: datetime) -> DiskUse:
        """The newest measurement; a call may take seconds. Calls of several threads take turns."""
        with self._lock:
            if self._last is None or (now - self._last.measured_at).total_seconds() >= EVERY_S:
                self._last = self._measure(now)
            return self._last

    def _measure(self, now: datetime) -> DiskUse:
        since = (now - DAY).timestamp()
        total = recent = 0
        for folder in self._folders:
            for found in _files(folder):
                total += found.st_size
                recent += found.st_size if found.st_mtime > since else 0
        there = next(folder for folder in (self._lake, *self._lake.parents) if folder.exists())
        return DiskUse(total, recent, shutil.disk_usage(there).free, now)


def _files(folder: Path) -> Iterator[os.stat_result]:
    """State of every file below a folder; one that goes meanwhile, or may not be read, is left out."""
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield (Path(parent) / name).stat(follow_symlinks=False)
            except OSError:
                continue
