"""The publisher of the landing transport: the same messages as to Kafka, as whole files in the folder of their hour.

Every flush writes one file per topic and hour: to `*.part`, synced, then renamed, so that a reader never sees half of
one. Its name begins with its first record's time and ends with the beginning of its content's SHA-256, so sending the
same records again changes nothing. Does not belong here: when to poll (`producer.loop`), reading (`log.files.folder`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crypto_assets.contracts.slices import floor_hour
from crypto_assets.log.errors import LogUnavailable, PublishFailed
from crypto_assets.log.files.folder import PART, SUFFIX, hour_folder
from crypto_assets.log.files.lines import encode
from crypto_assets.log.kafka.publisher import Publisher
from crypto_assets.log.kafka.records import headers_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Record = tuple[str, bytes, str, int]


class LandingPublisher(Publisher):
    """Publishes prices and polls as landed files; used exactly as `Publisher`.

    A live home's records are stamped when they are flushed, as a broker would stamp them on arrival.

    Args:
        root: Folder of all topics, local or a mounted volume; it is created.
        prices_topic: Folder name of price messages.
        polls_topic: Folder name of poll messages.
        source: Data mode, put into the `source` header.
        virtual: Whether records carry a virtual arrival time (replay and simulator homes).
    """

    def __init__(self, root: Path, *, prices_topic: str, polls_topic: str, source: str, virtual: bool) -> None:
        super().__init__({}, prices_topic=prices_topic, polls_topic=polls_topic, source=source, virtual=virtual)
        self.root = root
        self._waiting: dict[str, list[Record]] = {}

    def floor(self, topic: str) -> datetime | None:  # noqa: ARG002 - files need no order: hours are folders
        """None: records of any hour may be sent at any time."""
        return None

    def flush(self) -> int:
        """Write everything enqueued.

        Returns:
            Number of messages written since the last flush.

        Raises:
            PublishFailed: A file could not be written; the message names it. What was enqueued is given up.
        """
        waiting, self._waiting = self._waiting, {}
        arrived = datetime.now(UTC)
        failures: list[str] = []
        written = 0
        for topic, records in waiting.items():
            by_hour: dict[datetime, list[bytes]] = {}
            first: dict[datetime, datetime] = {}
            for key, value, headers, stamp in records:
                at = _EPOCH + timedelta(milliseconds=stamp) if self.virtual else arrived
                hour = floor_hour(at)
                by_hour.setdefault(hour, []).append(encode(at, key, headers, value))
                first.setdefault(hour, at)
            for hour, lines in by_hour.items():
                try:
                    write_file(self.root / topic, hour, first[hour], lines)
                    written += len(lines)
                except OSError as error:
                    failures.append(f"{len(lines)} messages of {topic} {hour:%Y-%m-%d %H}:00: {error}")
        if failures:
            raise PublishFailed(
                f"files could not be written below {self.root}:\n  " + "\n  ".join(failures) + "\nCheck that the "
                "folder can be written and has space, or choose another with CRYPTO_ASSETS_LANDING"
            )
        return written

    def close(self) -> None:
        """Give up what was not flushed."""
        self._waiting = {}

    def _floor_ms(self, topic: str) -> int:  # noqa: ARG002
        return -1

    def _sent_at(self) -> list[tuple[str, str | bytes | None]]:
        """No time of sending: the same records sent again are the same file."""
        return []

    def _produce(
        self,
        topic: str,
        key: str,
        message: Mapping[str, Any],
        headers: list[tuple[str, str | bytes | None]],
        stamp: int,
    ) -> None:
        value = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        self._waiting.setdefault(topic, []).append((key, value, headers_json(headers), stamp))


def write_file(folder: Path, hour: datetime, first: datetime, lines: list[bytes]) -> Path:
    """Land one file: written beside its name, synced, renamed; a crash at any point leaves all of it or a `.part`.

    Args:
        folder: The topic's folder.
        hour: Hour whose folder it goes into (UTC).
        first: Time of its first record (UTC), for its name.
        lines: Lines with their newlines.

    Raises:
        OSError: It could not be written.
    """
    place = hour_folder(folder, hour)
    place.mkdir(parents=True, exist_ok=True)
    whole = b"".join(lines)
    path = place / f"{first:%Y%m%dT%H%M%S}.{first.microsecond // 1000:03d}Z-{hashlib.sha256(whole).hexdigest()[:16]}"
    final, part = path.with_name(path.name + SUFFIX), path.with_name(f"{path.name}{SUFFIX}.{os.getpid()}{PART}")
    with part.open("wb") as out:
        out.write(whole)
        out.flush()
        os.fsync(out.fileno())
    part.replace(final)
    _sync_folder(place)
    return final


def prepare(root: Path, topics: tuple[str, ...]) -> None:
    """Create the folders of the topics.

    Raises:
        LogUnavailable: They cannot be created.
    """
    try:
        for topic in topics:
            (root / topic).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogUnavailable(f"landing folder {root} cannot be made: {error}; set CRYPTO_ASSETS_LANDING") from error


def _sync_folder(place: Path) -> None:
    """Make the new name survive a power cut; mounted volumes do not know this and need it not."""
    with suppress(OSError):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
