"""Checkpoints of a local table's log, which are written some commits late.

A step pins its frames to one version and reads it a moment later. Sail (0.7) lists the log from where
`_last_checkpoint` points, so a version before that is out of its reach ("Missing commit file: expected version 0"): a
checkpoint of the newest commit, written by another process in that moment, would fail the step. Checkpoints of a
version `LAG` commits back leave it that many commits of time.

Belongs here: when a checkpoint is written, and which was the last. Does not belong here: cleaning the log
(`storage.maintenance`).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.storage import log_files

if TYPE_CHECKING:
    from deltalake import PostCommitHookProperties

EVERY = 10
"""Commits from one checkpoint to the next."""
LAG = 20
"""Commits that a checkpoint stays behind the newest; at 1 s from one to the next, as in a stream, 20 s."""
OUT_OF_REACH = "Missing commit file"
"""Sail's message for a version that it cannot read."""
_LOG = logging.getLogger(__name__)


def left_to_us() -> PostCommitHookProperties:
    """Properties that keep delta-rs from writing its own checkpoint after a commit."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=False)


def after_commit(path: str, version: int) -> None:
    """Write a checkpoint when one is due. The commit stands: what fails here is logged, and the next one makes up.

    Args:
        path: Folder of the table.
        version: What was committed.
    """
    if version % EVERY:
        return
    try:
        write_behind(path, version)
    except Exception as error:  # noqa: BLE001 - whatever it is, the commit stands
        _LOG.warning("%s: no checkpoint behind version %d: %s; the commit stands", path, version, error)


def write_behind(path: str, version: int) -> None:
    """Write the checkpoint of `LAG` commits before a version, unless there is a later one."""
    from deltalake import DeltaTable

    behind = version - LAG
    if behind > last(path):
        log_files.make_readable(path)
        DeltaTable(path, version=behind).create_checkpoint()


def last(path: str) -> int:
    """Version of the last checkpoint: what the hint names, or without a usable hint what lies there; 0 without one."""
    version, _ = log_files.read_hint(path)
    if version is not None and (Path(path) / "_delta_log" / f"{version:020d}.checkpoint.parquet").exists():
        return version
    try:
        return max(0, log_files.inspect(path).base)
    except OSError:
        return 0
