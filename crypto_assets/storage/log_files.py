"""The log folder of a local table: its commits, its checkpoints and the hint to the last of them, and their damages.

The hint and the checkpoints only save time: the commits contain the same, as long as they are kept. So a
damaged one counts as absent. The libraries below do not all think so (delta-rs refuses a table whose hint names a
checkpoint that is not there, and one whose newest checkpoint is cut), and read a commit of zero bytes as one that
changed nothing. `make_readable` is therefore called before a table is opened.

Belongs here: judging these files, and moving a damaged one aside. Does not belong here: data files (`storage.damage`),
what a person asked to be repaired (`storage.repair`), when a checkpoint is written (`storage.checkpoints`).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crypto_assets.storage.base import StorageError

HINT = "_last_checkpoint"
ASIDE = "repaired"
"""Folder beside the lake that takes damaged files: nothing is deleted."""
REPAIR = "crypto-assets maintain --repair"
_COMMIT = re.compile(r"^(\d{20})\.json$")
_CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\.[0-9a-f-]{36})?\.(?:parquet|json)$")
_MAGIC = b"PAR1"
_BY_CATALOG = {"catalogManaged", "catalogOwned-preview"}
"""Table features by which a catalog keeps the newest commits: the files of the log may lack them."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """One damaged or missing file.

    Args:
        table: Full name of the table.
        file: Path relative to the table's folder.
        why: What is wrong with it.
        kind: hint, checkpoint, commit, data or log (the whole log).
    """

    table: str
    file: str
    why: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file} {self.why}"


@dataclass
class LogState:
    """Contents of a log folder.

    Attributes:
        path: Folder of the table.
        commits: Files by version.
        checkpoints: Files by version, of complete checkpoints whose files are whole.
        base: Version of the newest of these; -1 without one.
        hint: Version that the hint names; None if it is missing or unusable.
        damages: Hints, checkpoints and commits that are damaged, in this order.
        first_bad: Lowest version after `base` whose commit is missing or damaged; None when all are whole.
    """

    path: Path
    commits: dict[int, Path] = field(default_factory=dict)
    checkpoints: dict[int, list[Path]] = field(default_factory=dict)
    base: int = -1
    hint: int | None = None
    damages: list[Damage] = field(default_factory=list)
    first_bad: int | None = None

    @property
    def newest(self) -> int:
        """Newest version that has a commit or a checkpoint; -1 without any."""
        return max([*self.commits, self.base])

    @property
    def is_readable(self) -> bool:
        """True if the newest version can be read without the damaged files."""
        return self.first_bad is None and self.newest >= 0


def table_of(path: str | Path) -> str:
    """Full name of the table in a folder."""
    return ".".join(Path(path).parts[-2:])


def read_hint(path: str | Path) -> tuple[int | None, str | None]:
    """Version that the hint names, and what is wrong with the hint; both None when there is no hint."""
    try:
        text = (Path(path) / "_delta_log" / HINT).read_bytes()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
    if not text.strip():
        return None, "is empty"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None, "is not JSON"
    version = found.get("version") if isinstance(found, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        return None, "names no version"
    return version, None


def inspect(path: str | Path, *, thorough: bool = False) -> LogState:
    """Judge the log of a table.

    Args:
        path: Folder of the table.
        thorough: Parse every commit after the newest whole checkpoint and read that checkpoint; otherwise the newest
            commit is parsed, for the others the size is checked, and for the checkpoint the footer.

    Raises:
        OSError: The folder cannot be listed.
    """
    state, table = LogState(Path(path)), table_of(path)
    state.hint, hint_problem = read_hint(path)
    folder = state.path / "_delta_log"
    parts: dict[int, list[tuple[Path, int, int]]] = {}
    for entry in os.scandir(folder):
        if (match := _COMMIT.match(entry.name)) and not entry.is_dir():
            state.commits[int(match[1])] = Path(entry.path)
        elif match := _CHECKPOINT.match(entry.name):
            parts.setdefault(int(match[1]), []).append((Path(entry.path), entry.stat().st_size, int(match[3] or 1)))
    for version in sorted(parts, reverse=True):
        if len(parts[version]) < max(total for _, _, total in parts[version]):
            continue  # being written at this moment, or left over: readers take it for absent
        bad = _bad_parts(parts[version], thorough=thorough)
        state.damages += [Damage(table, str(file.relative_to(state.path)), why, "checkpoint") for file, why in bad]
        if not bad:
            state.checkpoints[version] = sorted(file for file, _, _ in parts[version])
            state.base = version
            break  # older ones are not needed
    if hint_problem is None and state.hint is not None and state.hint != state.base:
        hint_problem = _wrong_hint(state, state.hint)
    if hint_problem:
        state.damages.insert(0, Damage(table, f"_delta_log/{HINT}", hint_problem, "hint"))
    _judge_commits(state, table, thorough=thorough)
    return state


def make_readable(path: str | Path) -> None:
    """Move files aside that block reading a table although its commits are complete.

    Args:
        path: Folder of a table.

    Raises:
        StorageError: Something is damaged that the rest of the log does not make up for, a file cannot be moved, or a
            catalog keeps the newest commits.
    """
    if "://" in str(path):  # not a folder of this machine
        return
    refuse_staged_commits(path)
    try:
        state = inspect(path)
    except OSError as error:
        raise StorageError(
            f"{table_of(path)}: its log {error.filename} cannot be read: {error.strerror}. Make the folder readable "
            f"and run the same again; {REPAIR} says what else is wrong"
        ) from error
    if not state.damages:
        return
    if not state.is_readable:
        raise StorageError(refusal(table_of(path), state.damages))
    # A hint that cannot be understood is ignored by every reader, and the next checkpoint replaces it, if it is a file.
    misleads = state.hint is not None or (state.path / "_delta_log" / HINT).is_dir()
    blocking = [d for d in state.damages if d.kind == "checkpoint" or (d.kind == "hint" and misleads)]
    # The hint goes with what it names, last: while it is there, a reader that comes between finds a reason to look.
    move_aside(path, [d.file for d in blocking])
    for damage in blocking:
        _LOG.warning(
            "%s: %s; its commits hold everything, so it was moved to %s and the next checkpoint is written as usual",
            damage.table, damage, aside_folder(path),
        )  # fmt: skip


def refuse_catalog_managed(path: str | Path) -> None:
    """Refuse a table of which a catalog keeps the commits: its files may show an old version.

    Args:
        path: Folder of a table.

    Raises:
        StorageError: Its protocol has such a feature.
    """
    if feature := next(iter(sorted(_BY_CATALOG & _features(Path(path) / "_delta_log"))), None):
        raise StorageError(
            f"{table_of(path)}: its newest commits are kept by a catalog (table feature {feature}), not in the log at "
            f"{path}, so it cannot be read from there. Read it through the catalog, or let its owner run: ALTER TABLE "
            f"{table_of(path)} DROP FEATURE {feature}"
        )


def refuse_staged_commits(path: str | Path) -> None:
    """As `refuse_catalog_managed`, where the folder of the log holds commits that were staged for a catalog."""
    if any((Path(path) / "_delta_log" / "_staged_commits").glob("*.json")):
        refuse_catalog_managed(path)


def _features(log: Path) -> set[str]:
    """Features of the newest protocol that commits or checkpoints hold; what cannot be read of them is left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for commit in sorted(log.glob("*.json"), reverse=True):
        with suppress(OSError, ValueError):
            for line in commit.read_text().splitlines():
                if '"protocol"' in line and (protocol := json.loads(line).get("protocol")):
                    return {*(protocol.get("readerFeatures") or ()), *(protocol.get("writerFeatures") or ())}
    for checkpoint in sorted(log.glob("*.checkpoint*.parquet"), reverse=True):
        with suppress(OSError, KeyError, pa.ArrowException):
            for protocol in filter(None, pq.read_table(checkpoint, columns=["protocol"]).column(0).to_pylist()):
                return {*(protocol.get("readerFeatures") or ()), *(protocol.get("writerFeatures") or ())}
    return set()


def refusal(table: str, damages: Sequence[Damage]) -> str:
    """Sentence of an error: table, every damaged file, and the command that repairs."""
    named = "; ".join(str(d) for d in damages[:10])
    more = f"; and {len(damages) - 10} more" if len(damages) > 10 else ""
    return f"{table} is damaged: {named}{more}. See what can be repaired, and from what: {REPAIR}"


def aside_folder(path: str | Path) -> Path:
    """Where damaged files of a table go."""
    return Path(path).parents[2] / ASIDE / table_of(path)


def move_aside(path: str | Path, files: Iterable[str]) -> list[Path]:
    """Move files of a table aside, under a name that is free; what is gone already is left out.

    Args:
        path: Folder of the table.
        files: Paths relative to it.

    Returns:
        Where they lie now.

    Raises:
        StorageError: One cannot be moved.
    """
    wanted = [(Path(path) / file, aside_folder(path) / file) for file in files]
    return [target for source, place in wanted if (target := _moved(table_of(path), source, place)) is not None]


def move_table_aside(path: str | Path) -> None:
    """Move the whole folder of a table aside.

    Raises:
        StorageError: It cannot be moved.
    """
    _moved(table_of(path), Path(path), aside_folder(path) / "table")


def free_name(target: Path) -> Path:
    """The path, with a number if there is something already."""
    number, found = 0, target
    while found.exists():
        number += 1
        found = target.with_name(f"{target.name}.{number}")
    return found


def _moved(table: str, source: Path, place: Path) -> Path | None:
    target = free_name(place)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{table}: {source.name} is damaged and cannot be moved to {target}: {error.strerror}. Make the home "
            f"writable, then run: {REPAIR}"
        ) from error
    return target


def actions_of(file: Path) -> list[Mapping[str, Any]]:
    """Actions of one commit.

    Raises:
        ValueError: The commit is damaged; the message describes how.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if not text.strip():
        raise ValueError("is empty")
    try:
        actions = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise ValueError("is cut or no JSON") from None
    if not all(isinstance(a, dict) for a in actions):
        raise ValueError("holds something else than actions")
    info: Mapping[str, Any] = next((a["commitInfo"] for a in actions if isinstance(a.get("commitInfo"), dict)), {})
    metrics = info.get("operationMetrics")
    promised = metrics.get("num_added_files") if isinstance(metrics, dict) else None
    added = sum(1 for a in actions if "add" in a)
    if isinstance(promised, int) and added < promised:
        raise ValueError(f"is cut: it lists {added} of {promised} added files")
    if {"app_id", "appends"} & info.keys() and not any("txn" in a for a in actions):
        raise ValueError("is cut: its transaction is missing")
    return actions


# --- judging --------------------------------------------------------------------------------------------------------


def _wrong_hint(state: LogState, version: int) -> str | None:
    """Problem of a hint that names neither the newest nor an older checkpoint; None if it is fine."""
    older = (state.path / "_delta_log").glob(f"{version:020d}.checkpoint*")
    if version in state.checkpoints or (version < state.base and any(older)):
        return None
    newest = max(state.commits, default=-1)
    if version > newest:
        return f"names checkpoint {version}, which lies after the newest commit {newest}"
    return f"names checkpoint {version}, which is missing, incomplete or damaged"


def _bad_parts(parts: Sequence[tuple[Path, int, int]], *, thorough: bool) -> list[tuple[Path, str]]:
    """Files of a checkpoint that make it useless, and why; empty when it is whole."""
    bad = []
    for file, size, _ in parts:
        problem = ("is empty" if not size else None) if file.suffix == ".json" else parquet_problem(file, size)
        if problem is None and thorough and file.suffix == ".parquet":
            problem = _unreadable(file)
        if problem:
            bad.append((file, problem))
    return bad


def parquet_problem(file: Path, size: int) -> str | None:
    """Problem of a Parquet file according to its first and last bytes; None if it is fine."""
    if not size:
        return "is empty"
    try:
        with file.open("rb") as handle:
            first = handle.read(4)
            handle.seek(max(0, size - 8))
            last = handle.read(8)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if size < 12 or first != _MAGIC or last[4:] != _MAGIC or int.from_bytes(last[:4], "little") > size - 12:
        return "is cut or no Parquet file"
    return None


def _unreadable(file: Path) -> str | None:
    import pyarrow.parquet as pq

    try:
        pq.read_table(file)
    except Exception as error:  # noqa: BLE001 - any error of Arrow for a damaged file
        return f"cannot be read ({str(error).splitlines()[0][:200]})"
    return None


def _judge_commits(state: LogState, table: str, *, thorough: bool) -> None:
    """Note damaged and missing commits after the newest whole checkpoint; earlier ones are not even sized."""
    newest = max(state.commits, default=-1)
    for version in range(state.base + 1, newest + 1):
        why: str | None = None
        file = f"_delta_log/{version:020d}.json"
        try:
            if version not in state.commits:
                why = "is missing"
            elif not state.commits[version].stat().st_size:
                why = "is empty"
            elif thorough or version == newest:
                actions_of(state.commits[version])
        except FileNotFoundError:
            continue  # cleaned at this moment
        except ValueError as error:
            why = str(error)
        if why:
            state.damages.append(Damage(table, file, why, "commit"))
            state.first_bad = version if state.first_bad is None else state.first_bad
