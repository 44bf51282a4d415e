"""A stored evaluation of an asset check, free of Dagster's types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Severity = Literal["error", "warn"]


@dataclass(frozen=True)
class Evaluation:
    """One stored evaluation of an asset check, oldest first in a sequence.

    Args:
        asset: Asset key as `schema/name`.
        check: Check name.
        partition: Partition key; None for an aggregate or an unpartitioned asset.
        passed: Whether it was green.
        severity: Severity it was evaluated with.
        at: Time of the evaluation (UTC).
        description: Description that the check gave.
        rules: Names of the failed rules, of a check that reports several.
    """

    asset: str
    check: str
    partition: str | None
    passed: bool
    severity: Severity
    at: datetime
    description: str = ""
    rules: tuple[str, ...] = ()
