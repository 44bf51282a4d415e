"""Follows the tables of a lake: from commits to snapshots, and to what each commit changed.

The next commit of a table is one `stat` of its next log file (0.07 ms for twelve tables); only then is delta-rs asked
(0.5 ms), and only new files are encoded. The table's state is replaced as a whole, so a request sees one version.

Belongs here: opening, noticing, replacing. Does not belong here: rows (`held`), what clients are sent (`hub`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from crypto_assets.serving.held import File, FileGone, Files, Snapshot
from crypto_assets.serving.kept import Kept
from crypto_assets.storage import delta_files

if TYPE_CHECKING:
    from deltalake import DeltaTable

LOOK_EVERY_S = 0.25
REOPEN_EVERY_S = 10.0
"""A table that was removed and made again, or restored from a backup, is noticed after this time."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """A commit, or several at once: the snapshot before (None = the table is new here) and after."""

    before: Snapshot | None
    after: Snapshot


class FollowedTable:
    """One table: its newest snapshot.

    Args:
        lake: Folder of the tables.
        kept: The table.
        encoded: Where rows of files are.
    """

    def __init__(self, lake: str, kept: Kept, encoded: Files) -> None:
        self.kept = kept
        self.path = Path(delta_files.table_path(lake, kept.name))
        self.snapshot: Snapshot | None = None
        self.trouble: str | None = None
        self._encoded, self._handle = encoded, None
        self._reopen_at = 0.0
        self._lock = threading.Lock()

    def look(self) -> Change | None:
        """Take up commits that have come; None without any.

        Raises:
            Exception: Whatever keeps the table from being read; it is tried again at the next call.
        """
        with self._lock:
            return self._looked()

    def _looked(self) -> Change | None:
        before = self.snapshot
        if before is None:
            if not self._commit_file(0).exists() and not (self.path / "_delta_log" / "_last_checkpoint").exists():
                return None
            self._handle = delta_files.open_table(str(self.path))
        elif self._commit_file(before.version + 1).exists():
            self._move_on()
        elif time.monotonic() < self._reopen_at:
            return None
        else:
            self._reopen_at = time.monotonic() + REOPEN_EVERY_S
            if self._commit_file(before.version).exists():
                return None
            self._handle = delta_files.open_table(str(self.path))
        if self._handle is None:  # the table is gone
            self.snapshot = None
            return None
        after = snapshot_of(self.kept, self._handle, self._encoded)
        after.prepare()
        self.snapshot = after
        return None if before is not None and before.tag == after.tag else Change(before, after)

    def at_version(self, version: int) -> Snapshot | None:
        """The snapshot of an older version; None when it cannot be read any more: its log or a file is gone."""
        try:
            handle = delta_files.open_table(str(self.path), version)
        except Exception as error:  # noqa: BLE001 - delta-rs has no specific error for a log that is cleaned
            _LOG.info("%s: version %d cannot be opened: %s", self.kept.name, version, error)
            return None
        if handle is None or handle.version() != version:
            return None
        found = snapshot_of(self.kept, handle, self._encoded)
        return found if all(f.path.exists() for f in found.paths) else None

    def _move_on(self) -> None:
        assert self._handle is not None
        with delta_files.ONE_CALL:
            self._handle.update_incremental()

    def _commit_file(self, version: int) -> Path:
        return self.path / "_delta_log" / f"{version:020d}.json"


def snapshot_of(kept: Kept, handle: DeltaTable, encoded: Files) -> Snapshot:
    """The snapshot of a handle's version; reads no rows."""
    folder = delta_files.folder_of(handle)
    actions = delta_files.add_actions(handle)
    by = kept.table.partition_by
    # As text: for a timestamp pyarrow imports pandas.
    values = actions.column(f"partition.{by[0]}").cast("string").to_pylist() if by else [None] * actions.num_rows
    named = sorted(zip(actions.column("path").to_pylist(), values, strict=True))
    if kept.newest_only and named:
        newest = max(value for _, value in named)
        named = [(name, value) for name, value in named if value == newest]
    by_day = by == ("day",)
    paths = tuple(File(folder / unquote(name), date.fromisoformat(value) if by_day else None) for name, value in named)
    version = handle.version()
    (commit,) = delta_files.read_commits(str(folder), version - 1, 1)
    table_id = str(handle.metadata().id)
    return Snapshot(kept, table_id, version, commit.at, commit.metadata.get("run_id"), paths, encoded)


class Follower:
    """All tables of a lake, followed by one thread.

    Args:
        lake: Folder of the tables.
        kept: Tables, those first that are asked for first.
        on_change: Called from the thread with each change, and after every round with None.
    """

    def __init__(
        self, lake: str, kept: Iterable[Kept], on_change: Callable[[Change | None], object] = lambda _: None
    ) -> None:
        self.encoded = Files()
        self.tables = {k.name: FollowedTable(lake, k, self.encoded) for k in kept}
        self.loaded = threading.Event()
        """Set once every table was looked at."""
        self._on_change = on_change
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def snapshot(self, kept: Kept) -> Snapshot | None:
        """The newest snapshot of a table; None when there is no such table yet."""
        return self.tables[kept.name].snapshot

    def troubles(self) -> dict[str, str]:
        """Why tables cannot be read, by table."""
        return {name: table.trouble for name, table in self.tables.items() if table.trouble}

    def look(self) -> list[Change]:
        """One round: what has changed. A table that cannot be read keeps its snapshot, and has a trouble."""
        found = []
        for name, table in self.tables.items():
            try:
                change = table.look()
                table.trouble = None
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one table, the others are served
                if table.trouble != str(error) and not isinstance(error, FileGone):
                    _LOG.warning("%s cannot be read: %s", name, error)
                table.trouble = str(error)
                continue
            if change is not None:
                found.append(change)
                self._on_change(change)
        self.loaded.set()
        self._on_change(None)
        return found

    def start(self) -> None:
        """Follow in a thread."""
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(LOOK_EVERY_S)
