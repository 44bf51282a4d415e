"""Which rows of a table satisfy a rule: its expressions, vetted and evaluated on DuckDB. Pure.

An expression sees the columns of one row and nothing else: no other row, table, file, clock or random number. Only then
does a back-test of stored rows find what the rule finds live, and a rules file can neither read nor change anything.
Vetting walks DuckDB's own parse tree and accepts a list of node types and functions.

Does not belong here: when a rule fires (`judgement`), how rows are read (`market`, `backtest`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crypto_assets.alerts.rules import Rule
from crypto_assets.contracts.arrow import empty_rows
from crypto_assets.contracts.model import MONEY, Table
from crypto_assets.contracts.tables import TABLES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class RowSet:
    """The rows of a table that rules judge.

    Args:
        slot: Column with the end of a row's slot.
        step: SQL of the longest time in seconds between two rows of a coin with nothing missing between them.
        final: SQL that is true once a row does not change any more.
        coin: Column of the coin; None if a row is about all coins.
        final_columns: Columns that `step` and `final` use.
    """

    slot: str
    step: str
    final: str = "true"
    coin: str | None = "coin_id"
    final_columns: tuple[str, ...] = ()


ROW_SETS: Mapping[str, RowSet] = {
    "gold.bars_1m": RowSet("window_end", "60", "is_closed", final_columns=("is_closed",)),
    "gold.bars_5m": RowSet("window_end", "300", "is_closed", final_columns=("is_closed",)),
    "gold.bars_1h": RowSet("window_end", "3600", "is_closed", final_columns=("is_closed",)),
    "gold.bars_1d": RowSet("window_end", "86400", "is_closed", final_columns=("is_closed",)),
    "features.price_features": RowSet("window_end", "300"),
    "gold.anomalies": RowSet("window_end", "300"),
    "ops.polls": RowSet(
        "finished_at", "3 * cadence_s", "kind = 'record'", coin=None, final_columns=("kind", "cadence_s")
    ),
}
"""Tables that rules can read: one row per slot, which stays. A poll may be missed without being a hole."""

NODES = frozenset(
    {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "CAST", "FUNCTION"}
)
REFUSED_NODES = {
    "WINDOW": "a window function sees other rows, also across a hole: use the columns r5, r15, r1h and r24h",
    "SUBQUERY": "a subquery reads other rows: use the columns of the row",
    "STAR": "name the columns",
    "PARAMETER": "there are no parameters: write the value",
    "LAMBDA": "there are no lambda functions",
}
OPERATORS = "+ - * / // % ** ^ || ~~ !~~ ~~* !~~*"
FUNCTIONS = (
    "abs sign round floor ceil trunc sqrt exp ln log2 log10 pow greatest least isnan isfinite isinf "
    "len length list_contains contains starts_with ends_with lower upper trim nullif ifnull coalesce if "
    "year month day hour minute isodow date_part epoch to_days to_hours to_minutes to_seconds"
)
"""Functions of one row's values alone; `interval 10 minutes` and the like are parsed as the last ones and `trunc`."""


@dataclass(frozen=True)
class Seen:
    """A row as a rule sees it.

    Args:
        slot: End of the row's slot (UTC).
        coin: Coin; empty if a row is about all coins.
        hit: Whether the rule holds.
        value: The rule's `value`; None without one, or if it is null or not finite.
        before: Slot of the coin's row before it among those given.
        step: Longest time to that slot with nothing missing between them.
        shown: Values of the columns that the alert shows.
    """

    slot: datetime
    coin: str
    hit: bool
    value: float | None
    before: datetime | None
    step: timedelta
    shown: Mapping[str, str]


def vet(rule: Rule) -> list[str]:
    """Problems of a rule's table and expressions, each with its fix; empty if there is none."""
    if rule.table not in ROW_SETS:
        near = get_close_matches(rule.table, ROW_SETS, 1)
        why = "" if rule.table not in TABLES else ", because its rows have no slot of their own or still change"
        advice = f"write {near[0]}" if near and not why else f"rules read {', '.join(sorted(ROW_SETS))}"
        return [f"table: {rule.table} cannot be read by rules{why}: {advice}"]
    problems = [*_refusals("when", rule.when, rule.table), *_refusals("value", rule.value or "0", rule.table)]
    problems += [f"show: {text}" for name in rule.show for text in _column_faults(name, TABLES[rule.table])]
    return problems or list(_type_problems(rule))


def columns(rule: Rule) -> list[str]:
    """Columns that evaluating a rule needs, in the order of the contract."""
    rows = ROW_SETS[rule.table]
    needed = {rows.slot, *rows.final_columns, *_used(rule.when), *_used(rule.value or "0"), *rule.show}
    if rows.coin:
        needed.add(rows.coin)
    return [name for name in TABLES[rule.table].column_names if name in needed]


def evaluate(rule: Rule, rows: pa.Table) -> list[Seen]:
    """The rows that matter: each that the rule holds in, each first one after such, and every coin's first and last.

    Args:
        rule: A vetted rule.
        rows: Rows of its table, in any order, with at least `columns(rule)`.

    Returns:
        In order of slot and coin. Rows whose expression fails (a division by zero, a cast) do not satisfy it.
    """
    shown = list(rule.show) or _used(rule.when)
    query = _query(rule, shown)
    with _connection(rows) as connection:
        found = connection.execute(query).fetchall()
    return [
        Seen(
            _moment(slot),
            coin,
            hit,
            value,
            None if before is None else _moment(before),
            timedelta(seconds=step),
            dict(zip(shown, texts, strict=True)),
        )
        for slot, coin, hit, value, before, step, *texts in found
    ]


def days(rule: Rule, rows: pa.Table) -> dict[str, frozenset[date]]:
    """UTC days of the slots that a rule judges among rows, by coin."""
    found: dict[str, set[date]] = {}
    row_set = ROW_SETS[rule.table]
    query = f"""
    SELECT DISTINCT {row_set.coin or "''"}, (epoch_us({row_set.slot}) - 1) // 86400000000
    FROM rows WHERE coalesce({row_set.final}, false) AND {row_set.slot} IS NOT NULL
    """  # noqa: S608 - names are constants
    with _connection(rows) as connection:
        for coin, day in connection.execute(query).fetchall():
            found.setdefault(coin, set()).add((EPOCH + timedelta(days=day)).date())
    return {coin: frozenset(held) for coin, held in found.items()}


def _query(rule: Rule, shown: list[str]) -> str:
    rows = ROW_SETS[rule.table]
    # Expressions end with a line break, so that a comment at their end swallows nothing.
    value = f"TRY(CAST(({rule.value or 'NULL'}\n) AS DOUBLE))"
    texts = "".join(f", {_text(rule.table, name)} AS s{i}" for i, name in enumerate(shown))
    kept = "".join(f", s{i}" for i in range(len(shown)))
    return f"""
    WITH judged AS (
        SELECT {rows.coin or "''"} AS coin, epoch_us({rows.slot}) AS slot, coalesce(TRY(({rule.when}
            )), false) AS hit, {value} AS value, coalesce({rows.step}, 0) AS step{texts}
        FROM rows WHERE coalesce({rows.final}, false) AND {rows.slot} IS NOT NULL
    ), linked AS (
        SELECT *, lag(slot) OVER w AS before, lag(hit) OVER w AS hit_before, lead(slot) OVER w IS NULL AS is_last
        FROM judged WINDOW w AS (PARTITION BY coin ORDER BY slot)
    )
    SELECT slot, coin, hit, CASE WHEN isfinite(value) THEN value END, before, step{kept}
    FROM linked WHERE hit OR hit_before OR before IS NULL OR is_last ORDER BY slot, coin
    """  # noqa: S608 - names are constants, expressions are vetted


def _text(table: str, name: str) -> str:
    """SQL of a column's value as people read it."""
    kind = TABLES[table].column(name).type
    quoted = f'"{name}"'
    if kind == "double":
        quoted = f"CASE WHEN abs({quoted}) < 1e6 THEN printf('%.4g', {quoted}) ELSE CAST({quoted} AS VARCHAR) END"
    elif kind == MONEY:
        quoted = f"rtrim(rtrim(CAST({quoted} AS VARCHAR), '0'), '.')"
    elif kind == "array<string>":
        quoted = f"array_to_string({quoted}, ', ')"
    return f"coalesce(left(CAST({quoted} AS VARCHAR), 200), 'null')"


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


@contextmanager
def _connection(rows: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection without access to files or network, with the given rows as the only table.

    Timestamps are plain ones in UTC: DuckDB computes with zoned ones only by an extension that is not always there.
    """
    import duckdb
    import pyarrow as pa

    plain = [f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f for f in rows.schema]
    with duckdb.connect(config={"enable_external_access": False, "lock_configuration": True}) as connection:
        connection.register("rows", rows.cast(pa.schema(plain)))
        yield connection


# --- vetting --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _parsed(expression: str) -> dict[str, Any]:
    """DuckDB's parse tree of an expression as the only one of a query; not to be changed."""
    import duckdb

    with duckdb.connect(config={"enable_external_access": False}) as connection:
        text = f"SELECT ({expression}\n) FROM rows"  # noqa: S608 - it is parsed, not executed
        found = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    assert found is not None
    return json.loads(found[0])


def _refusals(key: str, expression: str, table: str) -> Iterator[str]:
    """What an expression says beyond the columns of a row."""
    tree = _parsed(expression)
    if tree["error"]:
        yield f"{key}: not an SQL expression: {tree['error_message']}"
        return
    node = tree["statements"][0]["node"] if len(tree["statements"]) == 1 else {}
    source = node.get("from_table", {})
    alone = (
        node.get("type") == "SELECT_NODE"
        and source.get("type") == "BASE_TABLE"
        and (source.get("table_name"), source.get("schema_name"), source.get("catalog_name")) == ("rows", "", "")
        and len(node["select_list"]) == 1
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and not any(node.get(part) for part in ("where_clause", "having", "qualify", "sample", "group_expressions"))
    )
    if not alone:
        yield f"{key}: is more than one expression: write what stands between SELECT and FROM"
        return
    yield from dict.fromkeys(f"{key}: {text}" for text in _faults(node["select_list"][0], TABLES[table]))


def _faults(node: dict[str, Any], table: Table) -> Iterator[str]:
    kind = node["class"]
    if kind not in NODES:
        yield REFUSED_NODES.get(kind, f"{kind.lower()} is not possible in a rule")
        return
    if kind == "COLUMN_REF":
        yield from _column_faults(".".join(node["column_names"]), table)
    if kind == "FUNCTION":
        name = node["function_name"]
        if name not in f"{OPERATORS} {FUNCTIONS}".split() or node["schema"] or node["catalog"]:
            yield f"function {name} is not possible in a rule; there are {', '.join(sorted(FUNCTIONS.split()))}"
    for child in _children(node):
        yield from _faults(child, table)


def _column_faults(name: str, table: Table) -> Iterator[str]:
    if name in table.column_names:
        return
    if name.lower() in ("current_timestamp", "current_date", "now", "today"):
        yield f"{name} is the clock, and a back-test would find something else: compare columns"
        return
    near = get_close_matches(name, table.column_names, 1)
    yield f"{table.full_name} has no column {name}: " + (
        f"write {near[0]}" if near else f"it has {', '.join(table.column_names)}"
    )


def _children(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Expressions directly below a node, in whatever field and nesting."""
    for value in node.values():
        stack = [value]
        while stack:
            item = stack.pop(0)
            if isinstance(item, dict):
                if isinstance(item.get("class"), str) and "type" in item:
                    yield item
                else:
                    stack = [*item.values(), *stack]
            elif isinstance(item, list):
                stack = [*item, *stack]


def _used(expression: str) -> list[str]:
    """Columns that an expression uses, in order."""

    def walk(node: dict[str, Any]) -> Iterator[str]:
        if node["class"] == "COLUMN_REF":
            yield node["column_names"][-1]
        for child in _children(node):
            yield from walk(child)

    return list(dict.fromkeys(walk(_parsed(expression)["statements"][0]["node"]["select_list"][0])))


def _type_problems(rule: Rule) -> Iterator[str]:
    """What binding the expressions to the contract's types finds."""
    import duckdb

    numbers = ("DOUBLE", "FLOAT", "DECIMAL", "HUGEINT", "BIGINT", "INTEGER", "SMALLINT", "TINYINT")
    with _connection(empty_rows(TABLES[rule.table])) as connection:
        for key, expression, wanted in (("when", rule.when, ("BOOLEAN",)), ("value", rule.value or "0", numbers)):
            query = f"SELECT typeof({expression}\n) FROM (SELECT 1) LEFT JOIN rows ON true"  # noqa: S608 - vetted
            try:
                found = connection.execute(query).fetchone()
            except duckdb.Error as error:
                yield f"{key}: {str(error).splitlines()[0]}"
                continue
            assert found is not None
            if found[0].partition("(")[0] not in wanted:
                yield f"{key}: is {found[0]}, and {'a condition' if key == 'when' else 'a number'} is expected"
