"""Classes for declaring tables, columns and rules; `tables.py` gathers the declarations. No rendering, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Grain = Literal["hour", "day"]
WriteMode = Literal["append_once", "replace_slice", "merge"]
Severity = Literal["error", "warn"]

MONEY = "decimal(38,18)"
"""Type of every price and amount in USD: 20 digits before the point, 18 after (a coin at 1e-18 USD is still exact)."""

CHAIN_COLUMNS = ("chain_seq", "chain_previous", "chain_commit", "chain_commit_hash")
"""Columns that the store fills in for tables with hash chains; see `Table.chain`."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: Column name, snake_case; includes the unit unless it is obvious.
        type: Spark SQL type text (`string`, `bigint`, `int`, `double`, `boolean`, `binary`, `date`, `timestamp`,
            `decimal(38,18)`, `array<string>`). Timestamps are UTC with microseconds.
        description: Meaning of the value, for the data dictionary and table comments.
        nullable: Null is allowed; `description` then gives the meaning of null.
        unit: Unit of the value (`USD`, `percent`, `seconds`, `log return`, ...), or empty.
        lineage: Upstream columns that determine the value or make it null, as `schema.table.column`. Columns that only
            filter, join, group or order rows are omitted. A count names the column that identifies what it counts.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    unit: str = ""
    lineage: tuple[str, ...] = ()


FINITE = "finite"
"""Name of the rule, added to every table with doubles, that none of them is NaN or infinite."""
_LARGEST = "1.7976931348623157e308"


@dataclass(frozen=True)
class Rule:
    """A row rule, written as the condition that *valid* rows satisfy.

    Args:
        name: snake_case; name of the asset check and of the table constraint.
        sql: Boolean expression in portable SQL over the table's columns. Null is a violation, as are NaN and infinities
            in the columns used, since `Table.condition` is evaluated. Write double literals as `5e-1`: `0.5` is a
            decimal, to which Sail casts the column, and NaN cannot be cast.
        description: Rationale.
        severity: `error` fails the check, `warn` only warns.
        blocking: Evaluated on the staged rows before the write; a violation aborts the commit.
    """

    name: str
    sql: str
    description: str
    severity: Severity = "error"
    blocking: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the lakehouse.

    Args:
        schema: `bronze`, `silver`, `gold`, `features`, `ml` or `ops`; also the first part of the asset key.
        name: Table name; the second part of the asset key.
        description: Two or three sentences for readers of the catalogue.
        columns: All columns, in order.
        key: Columns that identify a row; their uniqueness is checked.
        grain: Dagster partition: hour, day, or None for an unpartitioned table.
        write: The only `DeltaStore` verb allowed to write it.
        time_column: Timestamp column (start of the hour or day, UTC) used by slice predicates.
        partition_by: Delta partition columns.
        owner: Team, as Dagster's `team:...`.
        group: Dagster group.
        kinds: Dagster kinds.
        retention_days: Days that rows are kept, or None for no limit.
        rules: Row rules; non-null columns and key uniqueness are implied. A table with doubles also gets `FINITE`,
            which blocks except in append_once tables: there doubles are payload, and one record must never prevent
            later ones from being stored.
        code_version: Incremented when the meaning of the rows changes.
        chain: Text columns that partition the rows into hash chains, in write order; the table has `CHAIN_COLUMNS` and
            is insert-only. Empty for all other tables.
    """

    schema: str
    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    grain: Grain | None
    write: WriteMode
    owner: str
    group: str
    kinds: tuple[str, ...]
    time_column: str | None = None
    partition_by: tuple[str, ...] = ()
    retention_days: int | None = None
    rules: tuple[Rule, ...] = ()
    code_version: str = "1"
    chain: tuple[str, ...] = ()

    @property
    def chain_columns(self) -> tuple[str, ...]:
        """Columns that hold a row's position in its hash chain, as opposed to its contents."""
        return CHAIN_COLUMNS if self.chain else ()

    def __post_init__(self) -> None:
        doubles = [c.name for c in self.columns if c.type == "double"]
        if doubles and all(rule.name != FINITE for rule in self.rules):
            finite = Rule(
                FINITE,
                " AND ".join(map(_finite, doubles)),
                "NaN and infinities compare like numbers; unknown values are stored as null.",
                blocking=self.write != "append_once",
            )
            object.__setattr__(self, "rules", (*self.rules, finite))

    def condition(self, rule: Rule) -> str:
        """Portable SQL that is true for rows that satisfy a rule and false for all others, never null.

        All engines order NaN above every number, so `s >= 1e-5` is true for NaN. The condition therefore also requires
        every double used in the rule to be null or finite.
        """
        named = set(_WORD.findall(_TEXT.sub("", rule.sql)))
        doubles = [c.name for c in self.columns if c.type == "double" and c.name in named]
        parts = [f"({rule.sql})", *(map(_finite, doubles) if rule.name != FINITE else ())]
        return f"coalesce({' AND '.join(parts)}, false)"

    @property
    def full_name(self) -> str:
        """`schema.name`, the key of `TABLES` and the argument of every `DeltaStore` verb."""
        return f"{self.schema}.{self.name}"

    @property
    def asset_key(self) -> tuple[str, str]:
        """The Dagster asset key path."""
        return (self.schema, self.name)

    def column(self, name: str) -> Column:
        """Return the column called `name`.

        Raises:
            KeyError: The table has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.full_name} has no column {name!r}; it has {[c.name for c in self.columns]}")

    @property
    def column_names(self) -> list[str]:
        """All column names, in order."""
        return [c.name for c in self.columns]


_WORD = re.compile(r"[A-Za-z_]\w*")
_TEXT = re.compile(r"'(?:[^']|'')*'")


def _finite(name: str) -> str:
    """SQL that is true for null and finite values; unlike NaN tests, `abs` is spelled alike in every engine."""
    return f"({name} IS NULL OR abs({name}) <= {_LARGEST})"
