"""Reparses Bronze's records by DuckDB and Python into the table `audit_records`."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from typing import TYPE_CHECKING

from crypto_assets.verify.delta import insert
from crypto_assets.verify.messages import MOST_CHARACTERS, NULL_ALLOWED, NUMBERS, read_message

if TYPE_CHECKING:
    import duckdb

PRICE_LIMIT = 10**15
CLOCK_SKEW_S = 60
EVIDENT = (
    "not_utf8", "not_json", "unknown_schema_version", "missing_field", "bad_number", "non_positive_price",
    "bad_timestamp", "clock_skew",
)  # fmt: skip
"""Reasons for quarantine visible in a record itself; the others need the registry or the clock of its time."""

BATCH = 10_000

_STRING = r'"[^"\\\x00-\x1f]*"'
_ESCAPE = r'\\["\\]'
_FLAT = rf'^\{{"[a-z0-9_]+":(null|{_STRING})(,"[a-z0-9_]+":(null|{_STRING}))*\}}$'
_NUMBER = r"^-?[0-9]{1,20}(\.[0-9]{1,18})?$"
_TIME = r"^(19|[2-8]\d)\d\d-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?Z$"
_SECONDS = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
_NEEDED = ("coin_id", "symbol", "price_usd", "last_updated_at", "ingestion_timestamp")
_FIELDS = tuple(dict.fromkeys((*_NEEDED, "name", *NUMBERS)))
_PARSED = ("sound", "coin_id", "symbol", "name", *NUMBERS, "last_updated_at", "ingestion_timestamp")
_PLACE = 'topic_id, "partition", "offset"'


def load_records(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `audit_records`: one row per record of Bronze, with its values and whether it can be a quote.

    Flat objects of texts and nulls, in the producer's layout, are read in SQL; every other record by
    `messages.read_message`, a batch at a time.
    """
    connection.execute(_READ_IN_SQL)
    _read_in_python(connection)
    connection.execute(_RECORDS)


def _simple() -> str:
    """Condition that SQL reads a flat record as Python would."""
    conditions = [
        "len(names) = len(list_distinct(names))",
        *(f"list_contains(names, '{n}')" for n in NULL_ALLOWED),
        *(f"coalesce({n}_text, '') <> ''" for n in _NEEDED),
        *(f"({n}_text IS NULL OR regexp_matches({n}_text, '{_NUMBER}'))" for n in NUMBERS),
        *(f"regexp_matches({n}_text, '{_TIME}')" for n in ("last_updated_at", "ingestion_timestamp")),
        "regexp_matches(symbol_text, '^[ -~]+$')",  # uppercase of other letters differs from Python's
    ]
    return " AND ".join(conditions)


def _exact(text: str) -> str:
    """SQL of the decimal of a plain number's text.

    By a narrow type where that holds all its digits: DuckDB casts text to more than 18 digits fifty times more slowly.
    """
    places = f"CASE WHEN contains({text}, '.') THEN length({text}) - instr({text}, '.') ELSE 0 END"
    narrow = (f"CASE WHEN {places} <= {n} THEN try_cast({text} AS DECIMAL(18,{n})) END::DECIMAL(38,18)" for n in (5, 8))
    return f"coalesce({', '.join(narrow)}, try_cast({text} AS DECIMAL(38,18)))"


_READ_IN_SQL = f"""
CREATE OR REPLACE TABLE audit_parsed AS
WITH flat AS (
    SELECT {_PLACE}, raw_json,
           CASE WHEN length(raw_json) <= {MOST_CHARACTERS}
                 AND regexp_matches(regexp_replace(raw_json, '{_ESCAPE}', '', 'g'), '{_FLAT}') THEN raw_json END AS json
    FROM "bronze.raw_prices" WHERE kind = 'record'
), members AS (
    SELECT {_PLACE}, json_keys(json) AS names, json ->> [{", ".join(f"'$.{n}'" for n in _FIELDS)}] AS found
    FROM flat WHERE json IS NOT NULL
), texts AS (
    SELECT {_PLACE}, names, {", ".join(f"found[{i}] AS {n}_text" for i, n in enumerate(_FIELDS, 1))} FROM members
)
SELECT {_PLACE},
       last_updated_at IS NOT NULL AND ingestion_timestamp IS NOT NULL AS sound, * EXCLUDE ({_PLACE})
FROM (
    SELECT {_PLACE}, coin_id_text AS coin_id, upper(symbol_text) AS symbol, name_text AS name,
           {", ".join(f"{_exact(f'{n}_text')} AS {n}" for n in NUMBERS)},
           try_cast(last_updated_at_text AS TIMESTAMPTZ) AS last_updated_at,
           try_cast(ingestion_timestamp_text AS TIMESTAMPTZ) AS ingestion_timestamp
    FROM texts WHERE {_simple()}
)
"""


def _read_in_python(connection: duckdb.DuckDBPyConnection) -> None:
    import pyarrow as pa

    rest = connection.cursor()
    found = rest.execute(
        f'SELECT {_PLACE}, raw_json FROM "bronze.raw_prices" b ANTI JOIN audit_parsed s USING ({_PLACE}) '
        "WHERE kind = 'record' AND raw_json IS NOT NULL"
    )
    zoned, money, whole = pa.timestamp("us", "UTC"), pa.decimal128(38, 18), pa.int64()
    parsed = (pa.bool_(), *(pa.string(),) * 3, *(money,) * len(NUMBERS), zoned, zoned)
    types = {"topic_id": pa.string(), "partition": whole, "offset": whole, **dict(zip(_PARSED, parsed, strict=True))}
    while batch := found.fetchmany(BATCH):
        rows = []
        for *place, text in batch:
            m = read_message(text)
            values = (m.sound, m.coin_id, m.symbol, m.name, *m.numbers, m.last_updated_at, m.ingestion_timestamp)
            rows.append((*place, *values))
        insert(connection, "audit_parsed", rows, types)


def _well_formed() -> str:
    """Condition that a record fulfils the message contract, as far as the record itself shows."""
    conditions = [
        "s.sound",
        "version = '1'",
        "coalesce(source, '') <> ''",
        f"s.price_usd > 0 AND s.price_usd < {PRICE_LIMIT}",
        "b.kafka_timestamp IS NOT NULL",
        f"s.last_updated_at <= b.kafka_timestamp + INTERVAL {CLOCK_SKEW_S} SECONDS",
        "b.event_hour IS NOT DISTINCT FROM date_trunc('hour', s.last_updated_at)",
    ]
    return " AND ".join(f"({c})" for c in conditions)


_RECORDS = f"""
CREATE OR REPLACE TABLE audit_records AS
WITH bronze AS (
    SELECT {_PLACE}, kafka_timestamp, arrival_hour, event_hour,
           headers ->> '$.schema_version' AS version, headers ->> '$.source' AS source,
           headers ->> '$.poll_id' AS poll_id, headers ->> '$.cadence_s' AS cadence_text
    FROM "bronze.raw_prices" WHERE kind = 'record'
)
SELECT b.topic_id, b."partition", b."offset", b.kafka_timestamp, b.arrival_hour,
       coalesce(a.coin_id, s.coin_id) AS coin_id, s.symbol, s.name, s.last_updated_at,
       {", ".join(f"s.{n}" for n in NUMBERS)}, s.ingestion_timestamp, b.source, b.poll_id,
       CASE WHEN regexp_matches(cadence_text, '{_SECONDS}') THEN nullif(cadence_text::DOUBLE, 0) END AS cadence_s,
       coalesce({_well_formed()}, false) AS well_formed,
       q."offset" IS NOT NULL AS quarantined
FROM bronze b
LEFT JOIN audit_parsed s USING ({_PLACE})
LEFT JOIN audit_aliases a ON a.old_id = s.coin_id AND s.last_updated_at < a.until
LEFT JOIN (SELECT DISTINCT {_PLACE} FROM "silver.quarantine") q USING ({_PLACE})
"""
"""The records with their headers, former ids mapped to their coin, and whether they are in quarantine."""
