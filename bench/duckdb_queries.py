"""Bronze to Silver to bars as queries of DuckDB, from Parquet to Parquet; imports nothing of the product.

They are tuned as their users would tune them. Two types cost DuckDB 1.5 most of a query and are avoided: casting text
to a decimal of more than 18 digits takes 6 µs a value, fifty times a narrower one, so that `exact` casts narrow and
widens, with equal results; and a time with a zone goes through ICU, while all of these are UTC.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from bench.peers.job import FIELDS, HEADERS, NUMBERS

_EXACT = """coalesce(
  CASE WHEN contains(text, 'e') OR contains(text, 'E') THEN NULL
       WHEN instr(text, '.') = 0 OR length(text) - instr(text, '.') <= 5 THEN TRY_CAST(text AS DECIMAL(18,5))
  END::DECIMAL(38,18),
  CASE WHEN contains(text, 'e') OR contains(text, 'E') THEN NULL
       WHEN length(text) - instr(text, '.') <= 8 THEN TRY_CAST(text AS DECIMAL(18,8)) END::DECIMAL(38,18),
  TRY_CAST(text AS DECIMAL(38,18)))"""
"""A decimal of 18 places from text: through 18 digits where those hold it exactly, by the slow cast otherwise."""


def silver_query(start: str, end: str) -> str:
    """Typed quotes of [start, end), the first of every coin and time; the parameter is the list of files.

    Every record is parsed once, and no rule is applied but these: the least that the job can be.
    """
    shape, headers = (json.dumps(dict.fromkeys(names, "VARCHAR")) for names in (FIELDS, HEADERS))
    numbers = ", ".join(f"exact(v.{n}) AS {n}" for n in NUMBERS)
    return f"""
      WITH texts AS (
        SELECT from_json(raw_json, '{shape}') AS v, from_json(headers, '{headers}') AS h, kafka_timestamp, partition,
          "offset", topic_id
        FROM read_parquet(?) WHERE kind = 'record'),
      typed AS (
        SELECT v.coin_id AS coin_id, upper(v.symbol) AS symbol, v.name AS name, {numbers}, h.source AS source,
          h.poll_id AS poll_id, TRY_CAST(h.cadence_s AS DOUBLE) AS cadence_s, topic_id, partition, "offset",
          TRY_CAST(v.last_updated_at AS TIMESTAMP) AS last_updated_at,
          TRY_CAST(v.ingestion_timestamp AS TIMESTAMP) AS ingestion_timestamp, kafka_timestamp AS available_at
        FROM texts)
      SELECT *, date_trunc('hour', last_updated_at) AS hour FROM typed
      WHERE price_usd > 0
        AND last_updated_at >= '{start}' AND last_updated_at < '{end}'
      QUALIFY row_number() OVER (
        PARTITION BY coin_id, last_updated_at ORDER BY available_at, topic_id, partition, "offset") = 1"""


def bars_query() -> str:
    """OHLC, mean and deviation of five minutes; the parameter is the list of files."""
    return """
      SELECT coin_id, make_timestamp(epoch_us(last_updated_at) // 300000000 * 300000000) AS window_start,
        arg_min(price_usd, last_updated_at) AS open, max(price_usd) AS high, min(price_usd) AS low,
        arg_max(price_usd, last_updated_at) AS close, avg(price_usd) AS price_avg,
        stddev_samp(CAST(price_usd AS DOUBLE)) AS price_vol, arg_max(volume_24h_usd, last_updated_at) AS volume_24h_usd,
        arg_max(market_cap_usd, last_updated_at) AS market_cap_usd, arg_max(cadence_s, last_updated_at) AS cadence_s,
        count(*) AS sample_count, min(last_updated_at) AS first_event_at, max(last_updated_at) AS last_event_at,
        max(available_at) AS available_at
      FROM read_parquet(?) GROUP BY ALL"""


def connection(cores: int | None = None) -> duckdb.DuckDBPyConnection:
    """A database in memory, in UTC, with as many threads as cores (or as the machine has)."""
    found = duckdb.connect(config={"threads": cores} if cores else {})
    found.execute("SET TimeZone = 'UTC'")
    found.execute("SET enable_progress_bar = false")
    found.execute("SET preserve_insertion_order = false")
    found.execute(f"CREATE MACRO exact(text) AS {_EXACT}")
    return found


def write(database: duckdb.DuckDBPyConnection, query: str, target: Path, given: list[Any] | None = None) -> int:
    """Write a query's rows to Parquet and close the database; their number."""
    database.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet)", given or [])
    found = database.fetchone()
    database.close()
    assert found is not None
    return int(found[0])
