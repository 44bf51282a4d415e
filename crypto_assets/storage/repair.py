"""Repair of one local Delta table: what is damaged goes aside, the log reads again, and the loss is known by partition.

The newest version that can be read becomes the present one. Its number does not: readers keep the version up to which
they know a table, so the versions taken aside are replaced by commits that change nothing and name the hours that were
touched. Nothing is deleted. Every step leaves a table from which the same repair goes on: what was lost is written down
before it is taken aside.

Belongs here: files of one table. Does not belong here: records that are read from the topic again
(`assets.log_slices.rereading`), locks and printing (`cli.repair`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from crypto_assets.contracts.model import Table
from crypto_assets.files import write_atomic
from crypto_assets.storage import checkpoints, log_files
from crypto_assets.storage.damage import Diagnosis
from crypto_assets.storage.log_files import actions_of, aside_folder, move_aside

OPERATION = "REPAIR"
"""Operation of the commits that stand in place of those taken aside."""
_JOURNAL = "unfinished.json"
_CLOCK_SLACK_S = 60
_HOUR = re.compile(r"arrival_hour=(\d{4}-\d\d-\d\d)[ T](\d\d):")
_DAY = re.compile(r"day=(\d{4}-\d\d-\d\d)")


@dataclass
class Loss:
    """Effect of a table's damage on its rows.

    Attributes:
        hours: Arrival hours (of a table that is appended to) of which rows may be gone.
        days: UTC days of which rows may be gone.
        unknown: Commits of which it is not known what they wrote, by version.
        everything: Whether no version can be read.
        rolled_back: First and last version that are taken aside.
    """

    hours: set[str] = field(default_factory=set)
    days: set[str] = field(default_factory=set)
    unknown: list[int] = field(default_factory=list)
    everything: bool = False
    rolled_back: tuple[int, int] | None = None

    @property
    def is_none(self) -> bool:
        """True if no row is lost."""
        return not (self.hours or self.days or self.unknown or self.everything)

    def to_json(self) -> str:
        """As text, for the journal."""
        return json.dumps(asdict(self), default=sorted)


def loss_of(diagnosis: Diagnosis, contract: Table) -> Loss:
    """Losses caused by a table's damage, including an unfinished repair."""
    loss = _unfinished(diagnosis.path)
    if diagnosis.readable_to is None and any(d.kind != "hint" for d in diagnosis.damages):
        loss.everything = True
        for file in diagnosis.path.rglob("*.parquet"):
            _note(loss, contract, str(file.relative_to(diagnosis.path)))
    for file in diagnosis.files:
        if file.problem:
            _note(loss, contract, file.file)
    first = diagnosis.log.first_bad
    if first is not None and diagnosis.readable_to is not None:
        last = max(diagnosis.log.newest, first)
        before = loss.rolled_back
        loss.rolled_back = (min(first, before[0]), max(last, before[1])) if before else (first, last)
        for version in range(first, last + 1):
            _note_commit(loss, contract, version, diagnosis.log.commits.get(version))
    if loss.unknown and diagnosis.readable_to is not None:
        _note_unreferenced(loss, contract, diagnosis)
    return loss


def repair_log(diagnosis: Diagnosis, loss: Loss, now: datetime) -> None:
    """Make the table readable: hint and checkpoint rebuilt, damaged commits and those after them taken aside.

    Args:
        diagnosis: What `diagnose` found.
        loss: What `loss_of` found.
        now: Present time (UTC), the time of the commits that stand in for those taken aside.

    Raises:
        StorageError: A file cannot be moved.
    """
    path = diagnosis.path
    if not loss.is_none:
        write_atomic(aside_folder(path) / _JOURNAL, loss.to_json() + "\n")
    if loss.everything:
        log_files.move_table_aside(path)
        write_atomic(aside_folder(path) / _JOURNAL, replace(loss, everything=False).to_json() + "\n")
        return
    log = diagnosis.log
    move_aside(path, [d.file for d in log.damages if d.kind in ("hint", "checkpoint")])
    if loss.rolled_back:
        first, last = loss.rolled_back
        doomed = [v for v in range(last, first - 1, -1) if v in log.commits]
        move_aside(path, [f"_delta_log/{v:020d}.json" for v in doomed if not _stands_in(log.commits[v])])
        for version in range(first, last + 1):
            _stand_in(path, version, loss, now)


def drop_dead(diagnosis: Diagnosis) -> None:
    """Take damaged data files aside and remove them from the table, in one commit."""
    from deltalake import CommitProperties, DeltaTable

    path = diagnosis.path
    move_aside(path, [f.file for f in diagnosis.files if f.problem])
    DeltaTable(str(path)).repair(
        commit_properties=CommitProperties(custom_metadata={"maintenance": "repair"}),
        post_commithook_properties=checkpoints.left_to_us(),
    )


def finish(diagnosis: Diagnosis) -> None:
    """Write checkpoint and hint, and forget what was written down: the repair is complete."""
    path = diagnosis.path
    if (path / "_delta_log").is_dir():
        log_files.make_readable(path)
        checkpoints.write_behind(str(path), log_files.inspect(path).newest)
    journal = aside_folder(path) / _JOURNAL
    if journal.exists():
        journal.replace(log_files.free_name(journal.with_name("finished.json")))


def unfinished(path: Path) -> bool:
    """True if a repair of the table was started but not finished."""
    return (aside_folder(path) / _JOURNAL).exists()


# --- inside -----------------------------------------------------------------------------------------------------------


def _unfinished(path: Path) -> Loss:
    try:
        raw = json.loads((aside_folder(path) / _JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Loss()
    rolled = raw.get("rolled_back")
    return Loss(
        set(raw["hours"]), set(raw["days"]), raw["unknown"], raw["everything"], tuple(rolled) if rolled else None
    )


def _note(loss: Loss, contract: Table, file: str) -> None:
    """Add the partition of a data file, whose name may be encoded twice."""
    file = unquote(unquote(file))
    if contract.write == "append_once" and (match := _HOUR.search(file)):
        loss.hours.add(f"{match[1]}-{match[2]}:00")
    elif match := _DAY.search(file):
        loss.days.add(match[1])


def _note_commit(loss: Loss, contract: Table, version: int, file: Path | None) -> None:
    """Add the partitions that a commit wrote."""
    try:
        actions = actions_of(file) if file is not None else None
    except ValueError:
        actions = None
    if actions is None:
        if version not in loss.unknown:
            loss.unknown.append(version)
        return
    for action in actions:
        for name in ("add", "remove"):
            if entry := action.get(name):
                _note(loss, contract, str(entry["path"]))


def _note_unreferenced(loss: Loss, contract: Table, diagnosis: Diagnosis) -> None:
    """Add the partitions of files that no readable commit lists: among them are those of a commit that is lost.

    Files as old as the last readable commit are left out, unless that leaves none (copies may have lost the times).
    """
    live = {f.file for f in diagnosis.files}
    on_disk = {str(f.relative_to(diagnosis.path)): f for f in diagnosis.path.rglob("*.parquet")}
    others = {name: f for name, f in on_disk.items() if name not in live and "_delta_log" not in f.parts}
    last = diagnosis.log.commits.get(diagnosis.readable_to or 0)
    since = last.stat().st_mtime - _CLOCK_SLACK_S if last is not None else 0
    newer = {name for name, f in others.items() if f.stat().st_mtime >= since}
    for name in newer or others:
        _note(loss, contract, name)


def _stands_in(file: Path) -> bool:
    try:
        return actions_of(file)[0].get("commitInfo", {}).get("operation") == OPERATION
    except (ValueError, IndexError):
        return False


def _stand_in(path: Path, version: int, loss: Loss, now: datetime) -> None:
    """Commit a version that changes nothing, unless it is there."""
    target = path / "_delta_log" / f"{version:020d}.json"
    if target.exists():
        return
    info: Mapping[str, Any] = {
        "timestamp": int(now.timestamp() * 1000),
        "operation": OPERATION,
        "engineInfo": "crypto_assets",
        "touched_hours": json.dumps(sorted(loss.hours)),
    }
    write_atomic(target, json.dumps({"commitInfo": info}) + "\n")
