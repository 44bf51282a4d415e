"""The `Engine` protocol, and the inputs and results of steps.

Belongs here: `Engine`, `StepInputs`, `Result`. Does not belong here: Dagster, or any engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from crypto_assets.errors import ReportedError
from crypto_assets.market.coins import CoinRegistry
from crypto_assets.storage.base import LogBounds, OffsetRange, PartitionBounds
from crypto_assets.storage.store import DeltaStore

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


class Engine(Protocol):
    """A lazy Spark session, the tables, and the log. Creating one opens nothing."""

    store: DeltaStore

    @property
    def spark(self) -> SparkSession:
        """The session, started on first use; its time zone is UTC."""
        ...

    def frame(self, rows: pa.Table) -> DataFrame:
        """Arrow rows of any size as a frame, which must not outlive the process."""
        ...

    def read_log(self, topic: str, ranges: Sequence[OffsetRange]) -> Iterator[pa.Table]:
        """Read exact offset ranges of a Kafka topic in chunks of bounded memory.

        Columns: partition int32, offset int64, kafka_timestamp timestamp[us, UTC], message_key string,
        value binary, headers string (JSON object). A range ends by consumer position: holes are normal.

        Raises:
            LogUnavailable: The broker cannot be reached or a range has been trimmed.
        """
        ...

    def read_log_again(
        self, topic: str, incarnation: str, ranges: Sequence[OffsetRange]
    ) -> tuple[pa.Table | None, tuple[OffsetRange, ...]]:
        """Reread a few stored offsets and verify the topic's incarnation; see `log.kafka.reading.read_again`.

        Never by Spark's source, which reports no topic id, and whose job for a few records takes half a second.

        Raises:
            LogError: The topic's id has changed.
            LogError: The log cannot be queried, or ends before a range does.
        """
        from crypto_assets.log.kafka.reading import read_again  # of the log, a model's endpoint has no libraries

        return read_again(self.kafka_config(), topic, incarnation, ranges)

    def kafka_config(self) -> Mapping[str, Any]:
        """Options of librdkafka; holds the SASL password.

        Raises:
            StepFailed: This engine has no Kafka settings.
        """
        ...


@dataclass(frozen=True)
class Markdown:
    """Metadata rendered as markdown."""

    text: str


_BOUND = ("partition", "start", "end", "provisional", "log_start", "adopted_from")
"""Fields of `PartitionBounds` in JSON order."""


NO_COINS = CoinRegistry(())


@dataclass(frozen=True)
class StepInputs:
    """Everything a step needs beside tables: JSON below 64 kB, no secrets.

    Args:
        now: Time of the request (UTC); the only clock a step sees.
        run_id: Requesting run.
        source: Name of the home's source.
        partitions_start: First partition's start (UTC).
        bounds: Offset bounds by hourly partition key (ingest steps only).
        coins: Coins of the home, with their active times.
        anomaly_budget: Flags wanted per coin and day.
        accept_gap: Record a gap of trimmed offsets instead of failing.
        rebuild: Allow a closed slice to shrink to zero rows.
        as_of: Read inputs as they were known at this time; None = all.
        landing_folder: Folder of the topic's landed files, as steps see it; None = the log is Kafka's.
        params: Step-specific values (effective model versions, cut-offs, registry URI).
    """

    now: datetime
    run_id: str
    source: str
    partitions_start: datetime
    bounds: Mapping[str, LogBounds] = field(default_factory=dict)
    coins: CoinRegistry = NO_COINS
    anomaly_budget: float = 1.0
    accept_gap: bool = False
    rebuild: bool = False
    as_of: datetime | None = None
    landing_folder: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON text of all fields; times as ISO 8601, bounds as rows to keep ranges of several days small."""
        raw = asdict(replace(self, bounds={})) | {"coins": self.coins.to_records()}
        raw["bounds"] = {
            key: [b.topic, b.topic_id, [[int(getattr(p, n)) for n in _BOUND] for p in b.partitions]]
            for key, b in self.bounds.items()
        }
        return json.dumps(raw, default=lambda v: v.isoformat(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> StepInputs:
        """Rebuild from `to_json`."""
        raw = json.loads(text)
        for name in ("now", "partitions_start", "as_of"):
            raw[name] = datetime.fromisoformat(raw[name]) if raw[name] else None
        raw["coins"] = CoinRegistry.from_records(raw["coins"])
        raw["bounds"] = {
            key: LogBounds(
                topic, topic_id, tuple(PartitionBounds(p, s, e, bool(v), *rest) for p, s, e, v, *rest in rows)
            )
            for key, (topic, topic_id, rows) in raw["bounds"].items()
        }
        return cls(**raw)


def given(source: str, coins: CoinRegistry, anomaly_budget: float) -> str:
    """Digest of all step inputs other than tables, the log and partitions."""
    text = json.dumps([source, coins.to_records(), anomaly_budget], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class StepFailed(ReportedError):
    """A step cannot run: an input is missing, expired or unreachable. The message names it and the fix."""


class NotEnoughData(ReportedError):
    """Too little data for a model: nothing is materialized, and the check `enough_data` names what is missing."""

    def __init__(self, message: str, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.metadata = dict(metadata or {})


@dataclass(frozen=True)
class CheckOutcome:
    """One evaluation of one check; `description` states the result and, when red, the fix."""

    name: str
    passed: bool
    description: str = ""
    severity: Literal["error", "warn"] = "error"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class PartitionResult:
    """Outcome of a step for one partition of one table (key None for unpartitioned tables)."""

    rows: int
    data_version: str
    metadata: dict[str, Any] = field(default_factory=dict)
    checks: list[CheckOutcome] = field(default_factory=list)


@dataclass
class TableResult:
    """Outcome of a step for one table: by partition, and for the whole run."""

    partitions: dict[str | None, PartitionResult] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """Outcome of a step by `schema.table`. Unmaterialized tables are absent; their `checks` hold the reason."""

    tables: dict[str, TableResult] = field(default_factory=dict)
    skipped: dict[str, list[CheckOutcome]] = field(default_factory=dict)
