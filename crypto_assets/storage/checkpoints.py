"""Checkpoints of a local table's log, which are written some commits late.

A step pins its frames to one version and reads it a moment later. Sail (0.7) lists the log from where
`_last_checkpoint` points, so a version before that is out of its reach ("Missing commit file: expected version 0"): a
checkpoint of the newest commit, written by another process in that moment, would fail the step. Checkpoints of a
version `LAG` commits back leave it that many commits of time.

Belongs here: when a checkpoint is written, and which was the last. Does not belong here: cleaning the log
(`storage.maintenance`).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltalake import PostCommitHookProperties

EVERY = 10
"""Commits from one checkpoint to the next."""
LAG = 20
"""Commits that a checkpoint stays behind the newest; at 2 s from one to the next, as in a stream, 40 s."""
OUT_OF_REACH = "Missing commit file"
"""What Sail says of a version that it cannot reach."""
_LOG = logging.getLogger(__name__)


def left_to_us() -> PostCommitHookProperties:
    """What tells delta-rs to write no checkpoint of its own after a commit."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=False)


def after_commit(path: str, version: int) -> None:
    """Write a checkpoint when one is due. The commit stands: what fails here is logged, and the next one makes up.

    Args:
        path: Folder of the table.
        version: What was committed.
    """
    from deltalake.exceptions import DeltaError

    if version % EVERY:
        return
    try:
        write_behind(path, version)
    except (DeltaError, OSError) as error:
        _LOG.warning("%s: no checkpoint behind version %d: %s", path, version, error)


def write_behind(path: str, version: int) -> None:
    """Write the checkpoint of `LAG` commits before a version, unless there is a later one."""
    from deltalake import DeltaTable

    behind = version - LAG
    if behind > last(path):
        DeltaTable(path, version=behind).create_checkpoint()


def last(path: str) -> int:
    """Version that `_last_checkpoint` names; 0 without one."""
    try:
        return int(json.loads((Path(path) / "_delta_log" / "_last_checkpoint").read_text())["version"])
    except FileNotFoundError:
        return 0
