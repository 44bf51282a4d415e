"""Logs that were cut and are taken as new incarnations of their topic: `<home>/state/adopted.json`.

The topic id stays when a log loses its newest records and grows again, so that one (topic id, partition, offset) would
name two records. Once a person has adopted such a log, its records are stored as incarnation `<topic id>~2` (then `~3`)
from the first offset on at which it differs. Does not belong here: finding that offset (`assets.log_slices.adoption`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from crypto_assets.files import write_atomic
from crypto_assets.log.errors import LogError
from crypto_assets.settings import Settings

FILE = "adopted.json"
MARK = "~"
"""Not among the characters of a topic id."""


@dataclass(frozen=True)
class Incarnation:
    """Incarnation under which a topic's records are stored.

    Args:
        id: The topic id, with a number behind it when the log was adopted.
        starts: By Kafka partition, the first offset of the incarnation; a partition that is absent begins at 0.
    """

    id: str
    starts: Mapping[int, int] = field(default_factory=dict)


def topic_id_of(incarnation: str) -> str:
    """The topic id of an incarnation."""
    return incarnation.split(MARK, maxsplit=1)[0]


def incarnation_of(source: Settings | Mapping[str, Any], topic_id: str) -> Incarnation:
    """The incarnation as which a topic's records are stored now; client options alone know of no adoption.

    Raises:
        LogError: The file of adoptions is damaged; the message has the fix.
    """
    known = _read(source).get(topic_id, []) if isinstance(source, Settings) else []
    if not known:
        return Incarnation(topic_id)
    starts = {int(partition): int(start) for partition, start in known[-1]["starts"].items()}
    return Incarnation(f"{topic_id}{MARK}{len(known) + 1}", starts)


def adopt(settings: Settings, topic_id: str, starts: Mapping[int, int], now: datetime) -> Incarnation:
    """Take a topic's log as a new incarnation from these offsets on.

    Args:
        settings: Settings of the home.
        topic_id: The topic's id.
        starts: First offset by Kafka partition.
        now: Time of the decision (UTC).

    Raises:
        LogError: The file of adoptions is damaged.
    """
    known = _read(settings)
    entry = {"starts": {str(p): start for p, start in sorted(starts.items())}, "at": now.isoformat()}
    known.setdefault(topic_id, []).append(entry)
    path = _path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(known, indent=2))
    return incarnation_of(settings, topic_id)


def _path(settings: Settings) -> Path:
    return settings.home / "state" / FILE


def _read(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    path = _path(settings)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for entries in found.values():
            for entry in entries:
                {int(p): int(start) for p, start in entry["starts"].items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise LogError(
            f"{path} is damaged ({error}). Remove it: Bronze then says which log was cut, and crypto-assets adopt-log "
            "adopts it again"
        ) from error
    return found
