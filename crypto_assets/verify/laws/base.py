"""The shape of a law, and conditions that laws share.

Times are TIMESTAMPTZ in UTC. Every law is a query of the rows that break it, whose columns show what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from crypto_assets.verify.delta import Snapshot

LOG_TABLES = {"bronze.raw_prices": "bronze", "ops.polls": "polls"}
"""Append-once tables that mirror a topic, with the short name in their laws."""


@dataclass(frozen=True)
class Evidence:
    """Evidence that laws may read: a view per table, and what is not in tables.

    Args:
        connection: DuckDB in UTC, with the views and the small tables of the audit.
        lake: Root of the tables.
        home: The home of the lake, for files beside it; None when only a lake was given.
        stored: State of every table that exists, by name.
    """

    connection: duckdb.DuckDBPyConnection
    lake: Path
    home: Path | None
    stored: Mapping[str, Snapshot]


@dataclass(frozen=True)
class Law:
    """A law: an invariant, with the query of its violations.

    Args:
        name: Name of the check.
        statement: What holds, for people.
        tables: Tables that must exist for the law to be judged.
        checked: Query of one number: how many things were checked.
        broken: Query of the rows that break the law.
        optional: Tables that the queries name and that may be missing; they then count as empty.
        covers: Columns by table of which any change breaks this law.
        recomputed: Source of the comparison: `SQL from silver.prices`, `hash chain`, ...
        prepare: Creates the tables that the queries use beside the views; may return a note for the report.
    """

    name: str
    statement: str
    tables: tuple[str, ...]
    checked: str
    broken: str
    optional: tuple[str, ...] = field(default=())
    covers: Mapping[str, Sequence[str]] = field(kw_only=True)
    recomputed: str = field(kw_only=True)
    prepare: Callable[[Evidence], str | None] | None = field(default=None, kw_only=True)


def written_since(evidence: Evidence, table: str, inputs: Sequence[str]) -> str | None:
    """Record in `audit_stale` when a table was last written, and whether an input was written after it.

    Args:
        evidence: Loaded evidence.
        table: Table that is rebuilt as a whole from its inputs.
        inputs: Its inputs.

    Returns:
        A note that names the newer inputs, or None: a table waiting for its next run is not judged by them.
    """
    written = {t: s.written_at for t in (table, *inputs) if (s := evidence.stored.get(t)) and s.written_at}
    newer = [t for t in inputs if t in written and table in written and written[t] > written[table]]
    evidence.connection.execute(
        "CREATE TABLE IF NOT EXISTS audit_stale (table_name VARCHAR, stale BOOLEAN, written_at TIMESTAMPTZ)"
    )
    evidence.connection.execute("INSERT INTO audit_stale VALUES (?, ?, ?)", [table, bool(newer), written.get(table)])
    return f"{', '.join(newer)} was written after it: judged again after its next run" if newer else None


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name + '"'


def differing(pairs: Mapping[str, str]) -> str:
    """Expression of the names whose condition holds, each after a blank; empty text if none does.

    Args:
        pairs: Condition of a difference by the name that it is reported under.
    """
    return " || ".join(f"CASE WHEN {condition} THEN ' {name}' ELSE '' END" for name, condition in pairs.items())
