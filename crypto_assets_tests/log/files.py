"""Landed files for tests: what a producer of ours, or of somebody else, may leave in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from crypto_assets.assets import bronze
from crypto_assets.contracts.slices import hour_key
from crypto_assets.engine.base import Engine, PartitionResult, StepInputs
from crypto_assets.log.files.folder import hour_folder
from crypto_assets.log.files.lines import encode
from crypto_assets_tests.assets.log_tools import START, TEN, price

HEADERS = '{"cadence_s":"60","schema_version":"1","source":"replay"}'
AFTER = timedelta(seconds=1)


def line(event: datetime, coin: str = "bitcoin", **changes: Any) -> bytes:
    """One envelope that arrived a second after its event."""
    return encode(event + AFTER, coin, HEADERS, price(event, coin, **changes))


def put(folder: Path, hour: datetime, name: str, *lines: bytes) -> Path:
    """Leave a file in the folder of an hour."""
    place = hour_folder(folder, hour)
    place.mkdir(parents=True, exist_ok=True)
    path = place / name
    path.write_bytes(b"".join(lines))
    return path


def inputs(folder: Path, **changes: Any) -> StepInputs:
    """Inputs of a step that reads a landing folder."""
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {
        "now": TEN + timedelta(hours=5),
        "run_id": "test-run",
        "source": "replay",
        "partitions_start": START,
        "landing_folder": str(folder),
    }
    return StepInputs(**{**plain, **changes})


def pick_up(engine: Engine, folder: Path, hours: Sequence[datetime], **changes: Any) -> dict[Any, PartitionResult]:
    """Run the Bronze step over hours; its report by partition key."""
    result = bronze.work(engine, [hour_key(h) for h in hours], inputs(folder, **changes))
    return result.tables["bronze.raw_prices"].partitions


def stored(engine: Engine, *columns: str) -> pa.Table:
    """Columns of Bronze in order of coordinates."""
    rows = engine.store.read_arrow("bronze.raw_prices", columns=["topic_id", "offset", *columns])
    return rows.sort_by([("topic_id", "ascending"), ("offset", "ascending")])


def values(engine: Engine) -> list[str]:
    """Every stored value, sorted."""
    return sorted(engine.store.read_arrow("bronze.raw_prices", columns=["raw_json"]).column(0).to_pylist())


def red(partition: PartitionResult) -> dict[str, str]:
    """Checks that are not green, with what they say."""
    return {c.name: c.description for c in partition.checks if not c.passed}
