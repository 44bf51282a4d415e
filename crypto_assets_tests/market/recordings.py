"""Recorded exchanges with the real API, and where the larger collection of real data lies.

Belongs here: reading `recorded/` (its origin and licences are in `recorded/NOTICE`). No expectation is here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import crypto_assets

FOLDER = Path(__file__).parent / "recorded"
SHARED = Path(crypto_assets.__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Exchange:
    """One request and its reply; `body` is the decoded reply as it came."""

    uri: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def exchanges(path: str | Path) -> list[Exchange]:
    """Exchanges of a file in `recorded/`, or of any file of that form."""
    found = json.loads((FOLDER / path).read_text(encoding="utf-8"))
    return [Exchange(e["uri"], e["status"], e["headers"], e["body"].encode()) for e in found]


def description(plan: str) -> dict[str, Any]:
    """The API's own OpenAPI description (the paths that are called) for `demo` or `pro`."""
    return json.loads((FOLDER / f"openapi_{plan}.slice.json").read_text(encoding="utf-8"))


def shared(path: str) -> Path:
    """A file of the shared collection of real data; the test is skipped where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"{path} of the shared market data is not here (looked in {SHARED})")
    return found
