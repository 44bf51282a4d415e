"""What several tables declare alike: owners, lineage, hash chains, coordinates of the log."""

from __future__ import annotations

from collections.abc import Callable

from crypto_assets.contracts.model import Column as C
from crypto_assets.contracts.model import Rule

INGEST, TRANSFORM, ML, OPS = "team:ingest", "team:analytics", "team:ml", "team:operations"


def of(table: str) -> Callable[..., tuple[str, ...]]:
    """Function that builds lineage from a table's columns."""
    return lambda *columns: tuple(f"{table}.{column}" for column in columns)


def day(lineage: tuple[str, ...] = ()) -> C:
    """The Delta partition column `day`."""
    return C("day", "date", "UTC day of `hour`; the Delta partition.", nullable=False, lineage=lineage)


CHAIN = (
    C("chain_seq", "bigint", "Position of the row in its hash chain, from 1, in write order; null for rows written "
      "before chains were introduced."),
    C("chain_previous", "string", "Hash of the previous row in the chain, zeros for the first; null like chain_seq."),
    C("chain_commit", "bigint", "Number of the commit that wrote the row; the newest equals the table's transaction "
      "ledger/<table>. Null like chain_seq."),
    C("chain_commit_hash", "string", "Hash of all rows of that commit; null like chain_seq."),
)
LOG_COORDINATES = (
    C("topic", "string", "Kafka topic.", nullable=False),
    C("topic_id", "string", "Incarnation of the topic: a re-created topic gets a new id.", nullable=False),
    C("partition", "int", "Kafka partition.", nullable=False),
    C("offset", "bigint", "Kafka offset; first missing offset if kind = gap.", nullable=False),
)
LOG_RECORD = (
    *LOG_COORDINATES,
    C("kafka_timestamp", "timestamp", "Broker timestamp: when the record became available. Null for a gap."),
    C("message_key", "string", "Message key; coin_id for prices."),
    C("raw_json", "string", "Unmodified record value; null if it is not UTF-8 text."),
    C("raw_bytes", "binary", "Record value if it is not UTF-8 text, else null."),
    C("headers", "string", "Record headers as a JSON object with sorted keys."),
    C("arrival_hour", "timestamp", "Start of the hour whose offset range contains the record.", nullable=False),
)
LOG_RANGE = (
    C("kind", "string", "record, or gap for offsets lost to retention and accepted as lost.", nullable=False),
    C("range_start", "bigint", "First offset of the commit's range.", nullable=False),
    C("range_end", "bigint", "End (exclusive) of the commit's range.", nullable=False),
    C("seq", "bigint", "Sequence number of the commit within its topic and hour, from 1.", nullable=False),
    C("batch_id", "string", "Identifier of the write.", nullable=False),
    C("bronze_ingested_at", "timestamp", "When the record was written to this table.", nullable=False),
)
LOG_RULES = (
    Rule("offsets_in_range", "range_start <= offset AND offset < range_end", "A row lies within its commit's offset range.",
         blocking=True),
    Rule("known_kind", "kind IN ('record', 'gap')", "Rows are records or accepted gaps.", blocking=True),
    Rule("not_stamped_ahead", "kafka_timestamp IS NULL OR kafka_timestamp <= bronze_ingested_at + INTERVAL 60 SECONDS",
         "A record cannot arrive after it was stored; if it seems to, the broker's clock was ahead.", severity="warn"),
    Rule("no_gap", "kind <> 'gap'", "No records were lost to retention before they were read.", severity="warn"),
)
