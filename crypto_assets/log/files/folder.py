"""Landed files: `<root>/<topic>/<date>/<hour>/*.jsonl`, what lies there and what each file is.

A file is what it holds: its identity is the SHA-256 of its content, so a copy, a new name or a second delivery is the
same file. A file is whole when its last line has its newline; `*.part` is still being written. Does not belong here:
lines (`log.files.lines`), which files are stored already (`assets.log_slices.landing`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.contracts.slices import HOUR
from crypto_assets.log.errors import LogError, LogUnavailable
from crypto_assets.log.files.lines import Line, decode

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 40_000
SUFFIX, PART = ".jsonl", ".part"
SCHEME = "landing:"
_DATE, _HOUR = re.compile(r"\d{4}-\d{2}-\d{2}"), re.compile(r"\d{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LandedFile:
    """One file as its folder lists it.

    Args:
        path: Where it lies.
        size: Bytes.
        written_at: Modification time (UTC).
        changed_at: The later of modification and of when its entry last changed, as by a rename (UTC).
    """

    path: Path
    size: int
    written_at: datetime
    changed_at: datetime


@dataclass(frozen=True)
class Listing:
    """Contents of an hour's folder: files to read, files still being written (`.part`), other names."""

    files: tuple[LandedFile, ...] = ()
    parts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """Contents of one file.

    Args:
        sha256: Its identity.
        lines: Number of lines, empty ones included.
        whole: Whether the last line has its newline; an empty file is not whole.
        known_lines: Lines at its beginning that are themselves the whole content of a file stored before: a file that
            was written in place and has grown since.
    """

    sha256: str
    lines: int
    whole: bool
    known_lines: int = 0


def hour_folder(folder: Path, hour: datetime) -> Path:
    """Folder of one hour (UTC) of a topic."""
    return folder / f"{hour:%Y-%m-%d}" / f"{hour:%H}"


def topic_id_of(hour: datetime) -> str:
    """The incarnation under which an hour's lines are numbered, such as `landing:2024-01-05-10`."""
    return f"{SCHEME}{hour:%Y-%m-%d-%H}"


def topic_of(hour: datetime, sha256: str) -> str:
    """The `topic` of a landed record, which names its hour and its file: `landing:2024-01-05/10/<sha256>`."""
    return f"{SCHEME}{hour:%Y-%m-%d/%H}/{sha256}"


def read_topic(topic: str) -> tuple[datetime, str]:
    """Hour (UTC) and file identity of a `topic` that `topic_of` made."""
    date, hour, sha256 = topic.removeprefix(SCHEME).split("/")
    return datetime.strptime(f"{date} {hour}+0000", "%Y-%m-%d %H%z").astimezone(UTC), sha256


def hours(folder: Path, since: datetime | None = None) -> list[datetime]:
    """Hours (UTC) that have a folder, in order; none when the topic's folder does not exist.

    Args:
        folder: The topic's folder.
        since: Earlier days are skipped.

    Raises:
        LogUnavailable: A folder cannot be listed.
    """
    found = []
    first = "" if since is None else f"{since:%Y-%m-%d}"
    for date in _names(folder):
        for hour in _names(folder / date) if _DATE.fullmatch(date) and date >= first else ():
            try:
                moment = datetime.strptime(f"{date} {hour}+0000", "%Y-%m-%d %H%z") if _HOUR.fullmatch(hour) else None
            except ValueError:  # such as 2024-02-30
                continue
            if moment is not None:
                found.append(moment.astimezone(UTC))
    return sorted(found)


def list_hour(folder: Path, hour: datetime) -> Listing:
    """Current contents of an hour's folder, files in write order; empty if it does not exist.

    Raises:
        LogUnavailable: The folder cannot be listed.
    """
    files, parts, others = [], [], []
    place = hour_folder(folder, hour)
    for name in _names(place):
        if name.endswith(PART):
            parts.append(name)
        elif name.endswith(SUFFIX):
            try:
                found = (place / name).stat()
            except FileNotFoundError:  # renamed or removed since it was listed
                continue
            changed = max(found.st_mtime, found.st_ctime)
            files.append(LandedFile(place / name, found.st_size, _utc(found.st_mtime), _utc(changed)))
        else:
            others.append(name)
    return Listing(tuple(sorted(files, key=lambda f: (f.written_at, f.path.name))), tuple(parts), tuple(others))


def content(file: LandedFile, known: Collection[str] = ()) -> Content | None:
    """Contents of a file; None if it is gone.

    Args:
        file: The file.
        known: Identities of files that are stored already; a beginning that is one of them is found.

    Raises:
        LogUnavailable: The file cannot be read.
    """
    digest = hashlib.sha256()
    lines, known_lines, line = 0, 0, b""
    try:
        with file.path.open("rb") as source:
            for line in source:
                digest.update(line)
                lines += 1
                if known and line.endswith(b"\n") and digest.copy().hexdigest() in known:
                    known_lines = lines
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogUnavailable(f"landed file {file.path} cannot be read: {error}") from error
    return Content(digest.hexdigest(), lines, line.endswith(b"\n"), known_lines)


def lines_of(file: LandedFile, expected: Content, hour: datetime) -> Iterator[tuple[int, Line]]:
    """Records of a file that come after its known lines, each with its line number, from 0.

    Raises:
        LogError: The file no longer matches `content`, detected at its end.
        LogUnavailable: The file cannot be read.
    """
    digest, number = hashlib.sha256(), 0
    try:
        with file.path.open("rb") as source:
            for line in source:
                digest.update(line)
                record = decode(line, hour + HOUR) if number >= expected.known_lines else None
                if record is not None:
                    yield number, record
                number += 1
    except OSError as error:
        raise LogUnavailable(f"landed file {file.path} cannot be read: {error}; run the step again") from error
    if digest.hexdigest() != expected.sha256:
        raise LogError(
            f"landed file {file.path} changed while it was read; run the step again. A producer that does not write "
            f"to `*{PART}` and rename must not rewrite what it has written"
        )


def chunk(rows: list[tuple[int, str, datetime, Line]]) -> pa.Table:
    """Records as `Engine.read_log` gives them, with their `topic` beside.

    Args:
        rows: (offset, topic, arrival, record).
    """
    import pyarrow as pa

    zoned = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "topic": pa.array([r[1] for r in rows], pa.string()),
            "partition": pa.array([0] * len(rows), pa.int32()),
            "offset": pa.array([r[0] for r in rows], pa.int64()),
            "kafka_timestamp": pa.array([r[2] for r in rows], zoned),
            "message_key": pa.array([r[3].key for r in rows], pa.string()),
            "value": pa.array([r[3].value for r in rows], pa.binary()),
            "headers": pa.array([r[3].headers for r in rows], pa.string()),
        }
    )


def arrival_of(record: Line, file: LandedFile, hour: datetime, now: datetime) -> datetime:
    """When a record could first be known (UTC).

    An envelope contains it. A raw message arrived when its file was last written, but not before the folder's hour and
    not after `now` (a file's time may be wrong).
    """
    return record.timestamp or max(hour, min(file.written_at, now))


def _names(place: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LogUnavailable(f"landing folder {place} cannot be listed: {error}; see CRYPTO_ASSETS_LANDING") from error


def _utc(seconds: float) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(seconds * 1000))
