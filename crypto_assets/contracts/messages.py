"""The two Kafka message formats: prices, version 1, and polls, version 2 (version 1 is still accepted).

Belongs here: field names, headers, quarantine reasons, JSON Schemas. Does not belong here: building messages
(`market.payload`) or publishing them (`log.kafka.publisher`).
"""

from __future__ import annotations

from crypto_assets.source_facts import every_source

SCHEMA_VERSION = "1"
"""Version of price messages."""
POLL_SCHEMA_VERSION = "2"

REQUIRED = (
    "coin_id",
    "symbol",
    "price_usd",
    "market_cap_usd",
    "volume_24h_usd",
    "change_24h_pct",
    "change_7d_pct",
    "last_updated_at",
    "ingestion_timestamp",
)
NUMERIC = ("price_usd", "market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct")
SOURCE_PAYLOAD_LIMIT = 4096
MOST_CHARACTERS = 50_000
"""Maximum length of a price record in characters; longer ones are `not_json`. Ours have at most 9,000."""
MOST_NESTED = 100
"""Maximum number of objects and lists in a price record, including itself; beyond it, engines parse differently."""

HEADER_SCHEMA_VERSION = "schema_version"
HEADER_SOURCE = "source"
HEADER_POLL_ID = "poll_id"
HEADER_CADENCE = "cadence_s"
"""Effective poll interval in seconds; makes a bar's `expected_count` a function of Silver alone."""
HEADER_RECORDED_AT = "recorded_at"
HEADER_SHIFT_DAYS = "shift_days"
HEADER_SEAM = "seam"
HEADER_SENT_AT = "sent_at"
"""When the producer sent a record of a virtual home (UTC), whose broker timestamp is its virtual arrival. Landed files
have none: the same records sent again are the same file."""

QUARANTINE_REASONS = {
    "not_utf8": "the value is not UTF-8 text",
    "not_json": "the value is not a single RFC 8259 JSON object with distinct names, at most 50,000 characters and at "
    "most 100 objects and lists",
    "unknown_schema_version": f"the header schema_version is missing or not {SCHEMA_VERSION!r}",
    "missing_field": "a required field is missing (null counts only if the contract forbids it) or not text",
    "bad_number": "a numeric field is not a finite decimal number, or price_usd does not fit decimal(38,18)",
    "non_positive_price": "price_usd is zero or negative",
    "bad_timestamp": "last_updated_at is not an RFC 3339 time with a zone, in the years 1900 to 8999",
    "clock_skew": "last_updated_at is more than 60 s later than the record's arrival",
    "unknown_coin": "coin_id was not an active coin of the registry at that time",
    "too_late": "the event is too old to be restated, or before PARTITIONS_START",
}

CLOCK_SKEW_LIMIT_S = 60

_DECIMAL_TEXT = r"^-?[0-9]+(\.[0-9]+)?$"
_TIME_TEXT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"
_NULLABLE_DECIMAL = {"type": ["string", "null"], "pattern": _DECIMAL_TEXT}

PRICE_SCHEMA: dict = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "crypto-prices-raw, version 1",
    "type": "object",
    "required": list(REQUIRED),
    "additionalProperties": False,
    "properties": {
        "coin_id": {"type": "string", "minLength": 1},
        "symbol": {"type": "string", "minLength": 1},
        "name": {"type": ["string", "null"]},
        "price_usd": {"type": "string", "pattern": _DECIMAL_TEXT},
        **dict.fromkeys(NUMERIC[1:], _NULLABLE_DECIMAL),
        "last_updated_at": {"type": "string", "pattern": _TIME_TEXT},
        "ingestion_timestamp": {"type": "string", "pattern": _TIME_TEXT},
        "source_payload": {"type": ["string", "null"], "maxLength": SOURCE_PAYLOAD_LIMIT},
    },
}

POLL_OUTCOMES = ("ok", "rate_limited", "unauthorized", "bad_payload", "upstream_down", "unknown_coin")

_POLL_FIELDS: dict = {
    "poll_id": {"type": "string", "minLength": 1},
    "started_at": {"type": "string", "pattern": _TIME_TEXT},
    "finished_at": {"type": "string", "pattern": _TIME_TEXT},
    "source": {"enum": [facts.name for facts in every_source()]},
    "outcome": {"enum": list(POLL_OUTCOMES)},
    "http_status": {"type": ["integer", "null"]},
    "detail": {"type": ["string", "null"], "maxLength": 500},
    "coins_asked": {"type": "integer"},
    "coins_returned": {"type": "integer"},
    "coins_unchanged": {"type": "integer"},
    "coins_missing": {"type": "array", "items": {"type": "string"}},
    "age_s": {"type": ["number", "null"]},
    "latency_ms": {"type": "number"},
    "cadence_s": {"type": "number"},
    "credits_used": {"type": ["integer", "null"]},
    "credits_left": {"type": ["integer", "null"]},
    "delivered": {"type": "integer"},
}

POLL_SCHEMA_V1: dict = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "crypto-polls, version 1",
    "type": "object",
    "required": list(_POLL_FIELDS),
    "additionalProperties": False,
    "properties": _POLL_FIELDS,
}

_SINCE_2 = {
    "coins_absent": {"type": "array", "items": {"type": "string"}},
    "problems": {"type": "array", "items": {"type": "string"}},
    "nulled": {"type": "array", "items": {"type": "string"}},
    "quote_age_s": {"type": ["number", "null"]},
}
"""Coins missing from at least three consecutive replies; coins with unusable quotes, with reasons; quote fields nulled
because their number is out of range; age of the newest quote at the end of the poll, null without one."""

POLL_SCHEMA: dict = {
    **POLL_SCHEMA_V1,
    "title": "crypto-polls, version 2",
    "required": [*POLL_SCHEMA_V1["required"], *_SINCE_2],
    "properties": {**POLL_SCHEMA_V1["properties"], **_SINCE_2},
}
