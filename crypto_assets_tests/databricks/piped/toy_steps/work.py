"""What the toy steps do: told by `inputs.params["plan"]`. Runs here and there alike, without Dagster."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import crypto_assets
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import (
    CheckOutcome,
    Markdown,
    NotEnoughData,
    PartitionResult,
    Result,
    StepFailed,
    TableResult,
)
from crypto_assets.settings import load_settings
from crypto_assets.storage.base import AuditFailed, SliceRefused

BARS = ("gold.bars_1m", "gold.bars_5m", "gold.bars_1h")
RED_HOUR = "2026-01-01-01:00"


def model(_engine, keys, inputs) -> Result:
    """A step without partitions whose asset is no table."""
    plan = inputs.params["plan"]
    _raise_as_planned(plan)
    if plan == "skip":
        return Result(skipped={"ml.toy": [CheckOutcome("toy_check", False, "three days are missing", "warn")]})
    metadata = _seen(inputs) if plan == "look" else _metadata(plan)
    return Result({"ml.toy": TableResult({keys[0]: PartitionResult(3, "v1", metadata, [_toy_check(True)])})})


def bars(_engine, keys, inputs, *, tables=BARS) -> Result:
    """A subset step of real tables, by hour."""
    plan = inputs.params["plan"]
    if plan == "audit":
        checks = [(k, _outcome(t, n, k != RED_HOUR, "error")) for t in tables for k in keys for n in _names(t)]
        raise AuditFailed(f"{len(tables)} tables: one o'clock is red", checks)
    _raise_as_planned(plan)
    found = {}
    for table in tables:
        done = {
            key: PartitionResult(
                5,
                f"{table}-{key}",
                {**_metadata(plan), "key": key, "options": [inputs.rebuild, inputs.accept_gap, str(inputs.as_of)]},
                [_outcome(table, name, key != RED_HOUR) for name in _names(table)],
            )
            for key in keys
        }
        found[table] = TableResult(done, {"run_rows": 5 * len(keys), "run_of": set(tables)})
    return Result(found)


def _raise_as_planned(plan: str) -> None:
    planned = {
        "fail": StepFailed("the broker at x:9092 does not answer; start it"),
        "refuse": SliceRefused("the slice would shrink to nothing; set rebuild"),
        "little": NotEnoughData("seven days are needed", {"days": 2}),
        "crash": ZeroDivisionError("the toy crashed"),
    }
    if plan in planned:
        raise planned[plan]
    if plan.startswith("peek "):
        list(Path(plan.removeprefix("peek ")).iterdir())
    if plan == "sleep":
        time.sleep(300)
    if plan == "die":
        time.sleep(2.5)  # what was said before has then been written
        os._exit(3)
    if plan == "leak":
        password = load_settings().secrets()["KAFKA_SASL_PASSWORD"]
        print(f"the password is {password}")
        print("in two parts", password[:5], end="", file=sys.stderr)
        print(password[5:], file=sys.stderr)
        raise ValueError(f"cannot log in with {password}")


def _seen(inputs) -> dict:
    secret = load_settings().kafka_sasl_password
    return {
        "package": crypto_assets.__file__,
        "dagster": "dagster" in sys.modules,
        "pyspark": "pyspark" in sys.modules,
        "role": load_settings().role,
        "secret": len(secret.get_secret_value()) if secret else 0,
        "run_id": inputs.run_id,
        "coins": len(inputs.coins),
        "home": str(Path.home()),
    }


def _metadata(plan: str) -> dict:
    quoted = load_settings().secrets()["KAFKA_SASL_PASSWORD"] if plan == "quote" else ""
    return {
        "written": True,
        "delta_version": 7,
        "share": 0.1,
        "nothing": None,
        "newest": datetime(2026, 1, 1, 2, 3, 4, 5, UTC),
        "offsets": {"0": [1, 5], "1": [2, 9]},
        "reasons": {"late", "absent"},
        "pair": (1, "two"),
        "plot": Markdown("**plot**"),
        "quoted": f'"{quoted}"',
    }


def _names(table: str) -> list[str]:
    return ["not_null", "unique_key", *(rule.name for rule in TABLES[table].rules)]


def _outcome(table: str, name: str, passed: bool, severity: Literal["error", "warn"] = "warn") -> CheckOutcome:
    return CheckOutcome(name, passed, f"{table}: found", severity, metadata={"violations": int(not passed), "rows": 5})


def _toy_check(passed: bool) -> CheckOutcome:
    return CheckOutcome("toy_check", passed, "found", metadata={"violations": int(not passed)})
