"""Rereads landed files for the audit by separate code; the law that the table holds them.

Belongs here: one pass over the present contents of a landing folder, into DuckDB. Does not belong here:
`crypto_assets.log.files` and `assets.log_slices.landing`, whose reading the audit checks.
"""

# ruff: noqa: S608 - every name put into a query is a constant of the audit

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.errors import ReportedError
from crypto_assets.verify.delta import insert
from crypto_assets.verify.laws.base import LOG_TABLES, Law

if TYPE_CHECKING:
    import duckdb

_FIELDS = {"crypto_assets_landing", "timestamp", "key", "headers"}


class UnreadableFolderError(ReportedError):
    """The folder could not be read; the message names it."""


def load_folder(connection: duckdb.DuckDBPyConnection, short: str, folder: Path) -> tuple[int, list[str]]:
    """Read every complete file of a topic's folder.

    Creates the table `landed_<short>` (hour, file, sha256, line, changed, stamped, digest = MD5 of the value). A
    duplicated file is read once, in the first hour that has it.

    Args:
        connection: The audit's DuckDB.
        short: Suffix of the table.
        folder: The topic's folder.

    Returns:
        Number of records, and the incomplete files.

    Raises:
        UnreadableFolderError: It does not exist or a file cannot be read.
    """
    import pyarrow as pa

    if not folder.is_dir():
        raise UnreadableFolderError(f"landing folder {folder} does not exist; see CRYPTO_ASSETS_LANDING")
    rows: list[tuple[Any, ...]] = []
    unfinished: list[str] = []
    seen: set[str] = set()
    for path in sorted(folder.glob("????-??-??/??/*.jsonl")):
        hour = datetime.fromisoformat(f"{path.parent.parent.name}T{path.parent.name}:00:00+00:00")
        try:
            whole, status = path.read_bytes(), path.stat()
        except OSError as error:
            raise UnreadableFolderError(f"landed file {path}: {error}") from error
        if not whole.endswith(b"\n"):
            unfinished.append(f"{path.relative_to(folder)}")
            continue
        sha256 = hashlib.sha256(whole).hexdigest()
        if sha256 in seen:
            continue
        seen.add(sha256)
        changed = datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), UTC)
        for number, line in enumerate(whole[:-1].split(b"\n")):
            record = line.removesuffix(b"\r")
            if record.strip():
                stamped, digest = _record(record, hour)
                rows.append((hour, path.name, sha256, number, changed, stamped, digest))
    connection.execute(
        f"CREATE OR REPLACE TABLE landed_{short} (hour TIMESTAMPTZ, file VARCHAR, sha256 VARCHAR, line BIGINT,"
        " changed TIMESTAMPTZ, stamped TIMESTAMPTZ, digest VARCHAR)"
    )
    zoned, text = pa.timestamp("us", "UTC"), pa.string()
    types = {"hour": zoned, "file": text, "sha256": text, "line": pa.int64(), "changed": zoned, "stamped": zoned}
    insert(connection, f"landed_{short}", rows, {**types, "digest": text})
    return len(rows), unfinished


def folder_law(table: str) -> Law:
    """Law: every line of every complete file is stored once and unchanged.

    A line whose file changed after the newest write of the table is pending rather than missing; hours removed by
    retention are not judged.
    """
    short = LOG_TABLES[table]
    return Law(
        f"{short}_holds_the_landed_files",
        "every line of every whole landed file is stored once, with its value and time; nothing else is stored of it",
        (table,),
        f"""
        WITH stored AS (
            SELECT split_part(topic, '/', 3) AS sha256, arrival_hour, kafka_timestamp AS stamped,
                   coalesce(md5(raw_json), md5(raw_bytes), '') AS digest
            FROM "{table}" WHERE kind = 'record' AND topic LIKE 'landing:%'
        ), judged AS (
            SELECT * FROM landed_{short} WHERE hour >= (SELECT bronze_from FROM audit_clock)
        ), present AS (SELECT DISTINCT sha256 FROM judged)
        SELECT 'not stored' AS problem, j.hour, j.sha256, j.file, j.line::VARCHAR AS line
        FROM judged j
        WHERE NOT EXISTS (FROM stored s WHERE s.digest = j.digest
                          AND (j.stamped IS NULL OR s.stamped = j.stamped))
          AND j.changed <= (SELECT max(bronze_ingested_at) FROM "{table}")
        UNION ALL
        SELECT 'not in its file', s.arrival_hour, s.sha256, NULL, NULL
        FROM stored s JOIN present USING (sha256)
        WHERE NOT EXISTS (FROM judged j WHERE j.sha256 = s.sha256 AND j.digest = s.digest
                          AND (j.stamped IS NULL OR s.stamped = j.stamped))
        UNION ALL
        SELECT 'file stored in several hours', min(arrival_hour), sha256, NULL, count(DISTINCT arrival_hour)::VARCHAR
        FROM stored GROUP BY sha256 HAVING count(DISTINCT arrival_hour) > 1
        UNION ALL
        SELECT 'stored more often than landed', NULL, d.sha256, NULL, d.times::VARCHAR
        FROM (SELECT any_value(sha256) AS sha256, digest, count(*) AS times
              FROM stored JOIN present USING (sha256) GROUP BY digest) d
        JOIN (SELECT digest, count(*) AS times FROM judged GROUP BY digest) j USING (digest)
        WHERE d.times > j.times
        """,
        checked=f"SELECT count(*) FROM landed_{short}",
        covers={table: ("topic", "kafka_timestamp", "raw_json", "raw_bytes", "kind", "arrival_hour")},
        recomputed="landed files read again",
    )


def _record(line: bytes, hour: datetime) -> tuple[datetime | None, str]:
    """Time in a record's envelope, None for a raw message, and the MD5 of its value ('' without one)."""
    value: bytes | None = line
    stamped: datetime | None = None
    if b'"crypto_assets_landing"' in line:
        try:
            record = json.loads(line)
            names = set(record) if isinstance(record, dict) else set()
            extra = names - _FIELDS
            at = datetime.fromisoformat(record["timestamp"])
            early = at.tzinfo is not None and (at - hour).total_seconds() < 3600
            sound = names >= _FIELDS and len(extra) == 1 and type(record["crypto_assets_landing"]) is int
            sound = sound and record["crypto_assets_landing"] == 1 and isinstance(record["headers"], dict)
            sound = sound and isinstance(record["key"], (str, type(None)))
            if sound and early and extra == {"value"} and isinstance(record["value"], (str, type(None))):
                value = None if record["value"] is None else record["value"].encode()
                stamped = at.replace(microsecond=at.microsecond // 1000 * 1000)
            elif sound and early and extra == {"value_base64"}:
                value = base64.b64decode(record["value_base64"], validate=True)
                stamped = at.replace(microsecond=at.microsecond // 1000 * 1000)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # not an envelope: the line is the message
    return stamped, "" if value is None else hashlib.md5(value, usedforsecurity=False).hexdigest()
