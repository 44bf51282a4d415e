"""What clients uploaded, kept after they deleted it: a test looks there for what must not travel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Upload:
    """One file as it was sent."""

    path: str
    data: bytes


class Uploads(list[Upload]):
    """All of them, in order; with `enabled` False nothing is kept."""

    enabled = True

    def keep(self, path: str, data: bytes) -> None:
        """Remember a file."""
        if self.enabled:
            self.append(Upload(path, data))
