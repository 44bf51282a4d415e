"""Bronze's records parsed a second time, by DuckDB's JSON functions: the table `audit_records`."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

PRICE_LIMIT = 10**15
CLOCK_SKEW_S = 60
EVIDENT = (
    "not_utf8", "not_json", "unknown_schema_version", "missing_field", "bad_number", "non_positive_price",
    "bad_timestamp", "clock_skew",
)  # fmt: skip
"""Reasons for quarantine that a record shows by itself; the others need the registry or the clock of its time."""

_PLAIN = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
_TIME = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$"
_MONEY = "DECIMAL(38,18)"
NUMBERS = ("price_usd", "market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct")
_NEEDED = ("coin_id", "symbol", "price_usd", "last_updated_at", "ingestion_timestamp")
_PRESENT = ("market_cap_usd", "volume_24h_usd", "change_24h_pct", "change_7d_pct")


def _number(name: str) -> str:
    return f"CASE WHEN regexp_matches({name}_text, '{_PLAIN}') THEN try_cast({name}_text AS {_MONEY}) END AS {name}"


def _time(name: str) -> str:
    text = f"{name}_text"
    return f"CASE WHEN regexp_matches({text}, '{_TIME}') THEN try_cast(upper({text}) AS TIMESTAMPTZ) END AS {name}"


def _texts() -> str:
    names = dict.fromkeys((*_NEEDED, *NUMBERS))
    return ", ".join(f"json ->> '$.{n}' AS {n}_text" for n in names)


def _well_formed() -> str:
    """Condition that a parsed record is what the message contract asks for, as far as it shows by itself."""
    conditions = [
        "json IS NOT NULL",
        "version = '1'",
        "coalesce(source, '') <> ''",
        *(f"coalesce({n}_text, '') <> ''" for n in _NEEDED),
        "json_type(json, '$.symbol') NOT IN ('OBJECT', 'ARRAY')",
        *(f"list_contains(json_keys(json), '{n}')" for n in _PRESENT),
        *(f"({n}_text IS NULL OR {n} IS NOT NULL)" for n in NUMBERS),
        f"price_usd > 0 AND price_usd < {PRICE_LIMIT}",
        "last_updated_at IS NOT NULL AND ingestion_timestamp IS NOT NULL AND kafka_timestamp IS NOT NULL",
        f"last_updated_at <= kafka_timestamp + INTERVAL {CLOCK_SKEW_S} SECONDS",
        "event_hour IS NOT DISTINCT FROM date_trunc('hour', last_updated_at)",
    ]
    return " AND ".join(f"({c})" for c in conditions)


PARSED_RECORDS = f"""
CREATE OR REPLACE TABLE audit_records AS
WITH raw AS (
    SELECT topic_id, "partition", "offset", kafka_timestamp, arrival_hour, event_hour, headers,
           CASE WHEN json_valid(raw_json) AND json_type(raw_json) = 'OBJECT'
                 AND len(json_keys(raw_json)) = len(list_distinct(json_keys(raw_json))) THEN raw_json::JSON END AS json
    FROM "bronze.raw_prices" WHERE kind = 'record'
), texts AS (
    SELECT *, {_texts()},
           headers ->> '$.schema_version' AS version, headers ->> '$.source' AS source,
           headers ->> '$.poll_id' AS poll_id, headers ->> '$.cadence_s' AS cadence_text,
           CASE WHEN json_type(json, '$.name') NOT IN ('OBJECT', 'ARRAY') THEN json ->> '$.name' END AS name
    FROM raw
), typed AS (
    SELECT * EXCLUDE (headers), {", ".join(_number(n) for n in NUMBERS)},
           {_time("last_updated_at")}, {_time("ingestion_timestamp")},
           CASE WHEN try_cast(cadence_text AS DOUBLE) > 0 THEN try_cast(cadence_text AS DOUBLE) END AS cadence_s
    FROM texts
)
SELECT t.topic_id, t."partition", t."offset", t.kafka_timestamp, t.arrival_hour,
       coalesce(a.coin_id, t.coin_id_text) AS coin_id, upper(t.symbol_text) AS symbol, t.name, t.last_updated_at,
       {", ".join(f"t.{n}" for n in NUMBERS)}, t.ingestion_timestamp, t.source, t.cadence_s, t.poll_id,
       coalesce({_well_formed()}, false) AS well_formed,
       q."offset" IS NOT NULL AS quarantined,
       date_trunc('hour', t.last_updated_at) IN (FROM audit_excluded) AS excluded
FROM typed t
LEFT JOIN audit_aliases a ON a.old_id = t.coin_id_text AND t.last_updated_at < a.until
LEFT JOIN (SELECT DISTINCT topic_id, "partition", "offset" FROM "silver.quarantine") q
       ON q.topic_id = t.topic_id AND q."partition" = t."partition" AND q."offset" = t."offset"
"""
"""Bronze parsed again, by other means than Silver: one row a record, with whether it can be a quote."""
