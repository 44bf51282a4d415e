"""The vocabulary in which tables are declared: columns, rules, tables.

Belongs here: the frozen classes that `tables.py` fills in. Does not belong here: any table, any rendering, any I/O.
"""

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
"""Columns that the store fills in for tables whose rows form hash chains; see `Table.chain`."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: Column name, snake_case; a unit is part of the name where it is not obvious.
        type: Spark SQL type text (`string`, `bigint`, `int`, `double`, `boolean`, `binary`, `date`, `timestamp`,
            `decimal(38,18)`, `array<string>`). Timestamps are UTC with microseconds.
        description: What the value means, for the data dictionary and table comments.
        nullable: Whether null is allowed; `description` then says what null means.
        unit: Unit of the value (`USD`, `percent`, `seconds`, `log return`, ...), or empty.
        lineage: Upstream columns that determine the value, as `schema.table.column`: those it is computed from, and
            those that make it null. What only filters, joins, groups or orders rows is left out. A count names the
            column that identifies what is counted.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    unit: str = ""
    lineage: tuple[str, ...] = ()


FINITE = "finite"
"""Name of the rule that every table with doubles has: none of them is NaN or infinite."""
_LARGEST = "1.7976931348623157e308"


@dataclass(frozen=True)
class Rule:
    """A rule on rows, written as the condition that a *good* row fulfils.

    Args:
        name: snake_case; becomes the name of the asset check and of the table constraint.
        sql: Boolean expression in portable SQL over the table's columns. Null counts as a violation, and so does NaN
            or an infinity in a column that it names: `Table.condition` is what is evaluated. A double is compared with
            `5e-1`, not `0.5`: that is a decimal, to which Sail casts the column, and NaN cannot be cast.
        description: Why the rule exists.
        severity: `error` fails the check, `warn` only warns.
        blocking: Evaluated on the staged frame before the write; a violation commits nothing.
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
        description: Two or three sentences for people.
        columns: All columns, in order.
        key: Columns that identify a row; `unique` on them is checked.
        grain: Dagster partition: hour, day, or None for an unpartitioned table.
        write: The `DeltaStore` verb that may write it.
        time_column: Timestamp column (start of the hour or day, UTC) that a slice predicate selects on.
        partition_by: Delta partition columns.
        owner: Team, as Dagster's `team:...`.
        group: Dagster group.
        kinds: Dagster kinds.
        retention_days: Days that rows are kept, or None for ever.
        rules: Row rules; non-null columns and key uniqueness need not be repeated. A table with doubles also gets
            `FINITE`, which blocks unless the table is appended to once: there doubles are payload, and a record must
            never keep those behind it from being stored.
        code_version: Raised when the meaning of the rows changes.
        chain: Text columns whose equal values make rows one hash chain, in the order of writing; the table has
            `CHAIN_COLUMNS` and takes inserts only. Empty for all other tables.
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
        """Columns that say where a row stands in its chain, not what it says."""
        return CHAIN_COLUMNS if self.chain else ()

    def __post_init__(self) -> None:
        doubles = [c.name for c in self.columns if c.type == "double"]
        if doubles and all(rule.name != FINITE for rule in self.rules):
            finite = Rule(
                FINITE,
                " AND ".join(map(_finite, doubles)),
                "NaN and infinities compare as numbers, and no unknown value is stored as one of them.",
                blocking=self.write != "append_once",
            )
            object.__setattr__(self, "rules", (*self.rules, finite))

    def condition(self, rule: Rule) -> str:
        """Portable SQL that is true for rows that keep a rule and false for all others, never null.

        Engines differ in how NaN compares, and agree that it is greater than all numbers: `s >= 1e-5` holds for it.
        So a rule is only kept by rows whose doubles, as far as it names them, are null or finite.
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
    """SQL that is true for null and for finite values: no engine lacks `abs`, and each knows NaN by another name."""
    return f"({name} IS NULL OR abs({name}) <= {_LARGEST})"
