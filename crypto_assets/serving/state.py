"""The state of the pipeline as the alert sensor writes it: `state/status.json` in the home, every tick.

Computing it here would cost this process Dagster, 277 MB of it.

Belongs here: reading the file, and what its age means. Does not belong here: measuring (`status.report`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crypto_assets.serving.answers import iso

FILE = "status.json"
"""In the home's state folder; the alert sensor writes it (`status.report`)."""
OLD_S = 60.0
"""Age from which a state says nothing about the present."""


@dataclass(frozen=True)
class PipelineState:
    """Contents of the file.

    Args:
        report: The report, as `crypto-assets status --json` prints it; None without a file, or when it is no JSON.
        written_at: When it was written (UTC).
    """

    report: dict[str, Any] | None
    written_at: datetime | None

    def age_s(self, now: datetime) -> float | None:
        """Seconds since it was written."""
        return (now - self.written_at).total_seconds() if self.written_at else None

    def unknown_because(self, now: datetime) -> str | None:
        """Why the present state is not known; None when it is."""
        if self.written_at is None:
            return "state unknown: nothing reports it; crypto-assets up does, every 20 s"
        age = self.age_s(now)
        return f"state unknown since {iso(self.written_at)}" if age is None or age > OLD_S else None

    def freshness(self, now: datetime, age_s: float | None) -> str:
        """`kept` or `broken` for data of an age, `no promise` where none is made, `unknown` without a state."""
        if self.report is None or self.unknown_because(now):
            return "unknown"
        if self.report.get("verdict") == "no promise":
            return "no promise"
        promised = self.report.get("promised_s")
        if age_s is None or not isinstance(promised, (int, float)):
            return "unknown"
        return "kept" if age_s <= promised else "broken"


class StateFile:
    """The file, read again when it was replaced."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._seen: tuple[int, int] | None = None
        self.state = PipelineState(None, None)

    def look(self) -> bool:
        """Read the file if it was replaced; true if it was."""
        try:
            stat = self._path.stat()
        except OSError:
            changed, self._seen = self._seen is not None, None
            self.state = PipelineState(None, None)
            return changed
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self.state = PipelineState(found, datetime.fromisoformat(found["written_at"]).astimezone(UTC))
        except (OSError, ValueError, KeyError, TypeError):
            self.state = PipelineState(None, None)
        return True
