"""A finding of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warn", "error"]

SKEW_LIMIT_S = 5.0
"""Seconds by which two clocks may differ."""
HTTP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Args:
        area: Subject of the check.
        level: ok; note = worth knowing; warn = will bite; error = does not work.
        found: What was found.
        fix: The command or setting that helps; empty when nothing is wrong.
    """

    area: str
    level: Level
    found: str
    fix: str = ""
