"""What every job has: its order as JSON, and its stages with what they took. Runs in the environments of the peers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.spent import spent

NUMBERS = ("price_usd", "market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct")
FIELDS = ("coin_id", "symbol", "name", "last_updated_at", "ingestion_timestamp", *NUMBERS)
HEADERS = ("source", "poll_id", "cadence_s")


@dataclass(frozen=True)
class Order:
    """What a job is to do.

    Args:
        servers: Kafka's `host:port`.
        topic: Topic to read from its beginning to its end.
        records: Records in it.
        bronze: Parquet files with the records, for jobs that begin there.
        out: Folder of the results; a stage writes Parquet below `<out>/<stage>`.
        start: First event time (UTC, `YYYY-MM-DD hh:mm:ss`).
        end: End of the event times, exclusive.
        cores: Cores to use.
    """

    servers: str
    topic: str
    records: int
    bronze: list[str]
    out: str
    start: str
    end: str
    cores: int

    def folder(self, stage: str) -> Path:
        """Folder of a stage's Parquet files, made if it is missing."""
        found = Path(self.out) / stage
        found.mkdir(parents=True, exist_ok=True)
        return found


def perform(**stages: Callable[[Order], None]) -> None:
    """Run stages in order and write `costs.json` below `out`: seconds and processor seconds by stage."""
    order = Order(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    costs = {}
    for name, work in stages.items():
        with spent() as taken:
            work(order)
        costs[name] = vars(taken)
    (Path(order.out) / "costs.json").write_text(json.dumps(costs), encoding="utf-8")
