"""Gives the commits of a real Delta table to a catalog, as far as a reader of its files can see."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

FEATURES = ("catalogManaged", "catalogOwned-preview")


def protocol(feature: str) -> dict[str, object]:
    features = [feature, "inCommitTimestamp"]
    return {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [feature], "writerFeatures": features
    }  # fmt: skip


def by_commit(path: Path, feature: str = FEATURES[0]) -> None:
    """A commit upgrades the table; a later one is staged."""
    log = path / "_delta_log"
    newest = DeltaTable(str(path)).version()
    upgrade = [{"commitInfo": {"timestamp": 0, "operation": "UPGRADE PROTOCOL"}}, {"protocol": protocol(feature)}]
    (log / f"{newest + 1:020d}.json").write_text("\n".join(map(json.dumps, upgrade)) + "\n")
    stage(path, newest + 2)


def stage(path: Path, version: int) -> None:
    """Stage a commit."""
    folder = path / "_delta_log" / "_staged_commits"
    folder.mkdir(exist_ok=True)
    (folder / f"{version:020d}.0b0c1d2e-0000-4000-8000-000000000000.json").write_text("{}\n")


def by_checkpoint(path: Path, feature: str = FEATURES[0]) -> None:
    """Only a checkpoint is left that says so; nothing is staged."""
    DeltaTable(str(path)).create_checkpoint()
    log = path / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    held = pq.read_table(checkpoint)
    rows = [row | {"protocol": protocol(feature)} if row["protocol"] else row for row in held.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, held.schema), checkpoint)
    (log / "_last_checkpoint").unlink()
    for commit in log.glob("*.json"):
        if int(commit.stem) < int(checkpoint.name[:20]):
            commit.unlink()
