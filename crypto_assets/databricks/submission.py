"""Identity of a submitted run: the token that makes a repeated submit the same run, and the name that people see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


def idempotency_token(run_id: str, step_key: str, attempt: int) -> str:
    """Token of one attempt of a step; 64 characters, the most that the Jobs API takes."""
    return hashlib.sha256(f"{run_id}/{step_key}/{attempt}".encode()).hexdigest()


def run_name(run_id: str, step_key: str, attempt: int, keys: Sequence[Any]) -> str:
    """Name of a run: the step, its partitions ([None] without), the Dagster run, the attempt counted from 1."""
    spans = "" if list(keys) == [None] else f" {keys[0]}" + (f"..{keys[-1]}" if len(keys) > 1 else "")
    return f"crypto_assets {step_key}{spans} ({run_id[:8]}, attempt {attempt + 1})"
