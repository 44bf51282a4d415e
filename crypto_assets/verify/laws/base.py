"""The shape of a law, and conditions that laws share.

Times are TIMESTAMPTZ in UTC. Every law is a query of the rows that break it, whose columns show what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.verify.delta import Snapshot, quoted

if TYPE_CHECKING:
    import duckdb

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
        tables: Tables that must exist for the law to be judged; others that the queries name count as empty if missing.
        broken: Query of the rows that break the law.
        checked: Query of one number, how many things were checked: by default, the rows of the first table.
        covers: Columns by table of which any change breaks this law.
        recomputed: Source of the comparison: `SQL from silver.prices`, `hash chain`, ...
        prepare: Creates the tables that the queries use beside the views; may return a note for the report.
    """

    name: str
    statement: str
    tables: tuple[str, ...]
    broken: str
    checked: str = field(default="", kw_only=True)
    covers: Mapping[str, Sequence[str]] = field(kw_only=True)
    recomputed: str = field(kw_only=True)
    prepare: Callable[[Evidence], str | None] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not self.checked:
            object.__setattr__(self, "checked", f"SELECT count(*) FROM {quoted(self.tables[0])}")  # noqa: S608


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
    evidence.connection.execute("INSERT INTO audit_stale VALUES (?, ?, ?)", [table, bool(newer), written.get(table)])
    return f"{', '.join(newer)} was written after it: judged again after its next run" if newer else None


def differing(pairs: Mapping[str, str]) -> str:
    """Expression of the names whose condition holds, each after a blank; empty text if none does.

    Args:
        pairs: Condition of a difference by the name that it is reported under.
    """
    return " || ".join(f"CASE WHEN {condition} THEN ' {name}' ELSE '' END" for name, condition in pairs.items())


def unequal(names: Iterable[str], left: str = "a", right: str = "r") -> dict[str, str]:
    """Conditions by column that two rows do not hold the same value; two nulls are the same."""
    return {n: f"{left}.{quoted(n)} IS DISTINCT FROM {right}.{quoted(n)}" for n in names}


def far(name: str, floor: str) -> str:
    """Condition that two doubles, stored and recomputed, differ by more than 1e-9 of the value and a floor (SQL)."""
    left, right = f"a.{quoted(name)}", f"r.{quoted(name)}"
    return f"({left} IS NULL) <> ({right} IS NULL) OR abs({left} - {right}) > 1e-9 * abs({right}) + ({floor})"


def compared(
    table: str,
    key: Sequence[str],
    differs: Mapping[str, str],
    stranger: str,
    *,
    due: str = "true",
    judged: str = "true",
    stored: str | None = None,
    joins: str = "",
) -> str:
    """Query of where a table and its recomputation disagree: missing, unexplained, differing and doubled rows.

    In all conditions `a` is the stored row and `r` that of the CTE `recomputed`.

    Args:
        table: The table.
        key: Columns that identify a row.
        differs: Condition of a difference by the name that it is reported under.
        stranger: Problem of a row that is not recomputed.
        due: Condition that a recomputed row must be stored.
        judged: Condition that a row is judged.
        stored: CTE with the stored rows; None = the whole table.
        joins: Joins of what the conditions use besides.
    """
    first, names, wrong = key[0], ", ".join(key), differing(differs)
    return f"""
        SELECT CASE WHEN a.{first} IS NULL THEN 'missing' WHEN r.{first} IS NULL THEN '{stranger}' ELSE 'differs' END
                   AS problem, {", ".join(f"coalesce(a.{k}, r.{k}) AS {k}" for k in key)},
               CASE WHEN a.{first} IS NULL OR r.{first} IS NULL THEN '' ELSE trim({wrong}) END AS columns
        FROM {stored or quoted(table)} a FULL JOIN recomputed r ON {" AND ".join(f"a.{k} = r.{k}" for k in key)} {joins}
        WHERE ({judged}) AND CASE WHEN a.{first} IS NULL THEN {due} ELSE r.{first} IS NULL OR {wrong} <> '' END
        UNION ALL
        SELECT 'doubled', {names}, '' FROM {quoted(table)} GROUP BY {names} HAVING count(*) > 1
    """  # noqa: S608 - every name is a constant of a law
