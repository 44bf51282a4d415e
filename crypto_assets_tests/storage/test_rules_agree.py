"""Every rule of every contract gives one verdict: in the audit before a commit, in Spark's SQL, in CHECK constraints.

The rows are generated from the contracts, so a new rule or column is covered when it is declared.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from crypto_assets.checks import rules
from crypto_assets.contracts.arrow import arrow_schema, spark_schema
from crypto_assets.contracts.model import FINITE, Column, Rule, Table
from crypto_assets.contracts.tables import TABLES
from crypto_assets.databricks.deploy.unity import check_constraints
from crypto_assets.databricks.pipeline.expectations import FAIL, KEEP, expectations

AT = datetime(2024, 1, 1, 5, tzinfo=UTC)
PLAIN: dict[str, Any] = {
    "string": "x",
    "int": 1,
    "bigint": 1,
    "double": 1.0,
    "boolean": True,
    "binary": b"x",
    "date": date(2024, 1, 1),
    "timestamp": AT,
    "array<string>": ["x"],
    "decimal(38,18)": Decimal(1),
}
NOT_FINITE = (math.nan, -math.nan, math.inf, -math.inf)


def variants(column: Column) -> list[Any]:
    """Values of a column that an engine could judge in its own way."""
    found: list[Any] = [None] if column.nullable else []
    if column.type == "double":
        found += [*NOT_FINITE, -0.0, 5e-324, 1.7976931348623157e308, -1e-9]
    if column.type == "timestamp":
        found += [AT - timedelta(days=1), AT + timedelta(days=1)]
    if column.type in ("int", "bigint", "decimal(38,18)"):
        found += [0, -1]
    return found


def judged(table: Table) -> tuple[pa.Table, list[tuple[str, Any]]]:
    """A plain row, and one row for each variant of each column; what was varied of each."""
    plain = {c.name: PLAIN[c.type] for c in table.columns}
    varied: list[tuple[str, Any]] = [("", None), *((c.name, v) for c in table.columns for v in variants(c))]
    rows = [plain | ({name: value} if name else {}) for name, value in varied]
    return pa.Table.from_pylist(rows, schema=arrow_schema(table)), varied


def in_the_audit(table: Table, rows: pa.Table) -> dict[str, list[bool]]:
    """By rule, whether each row keeps it, as `rules.violates` says."""
    kept = ", ".join(f'NOT ({rules.violates(table, r)}) AS "{r.name}"' for r in table.rules)
    connection = rules.connection()
    connection.register("judged", rows)
    try:
        return pa.table(connection.execute(f"SELECT {kept} FROM judged").to_arrow_table()).to_pydict()
    finally:
        connection.unregister("judged")


WITH_RULES = sorted(name for name, table in TABLES.items() if table.rules)


@pytest.mark.parametrize("name", WITH_RULES)
def test_the_audit_and_the_engine_judge_alike_and_never_say_null(name: str, spark):
    table = TABLES[name]
    rows, varied = judged(table)
    found = in_the_audit(table, rows)
    stated = {k: v for conditions in expectations(table).values() for k, v in conditions.items()}
    frame = spark.createDataFrame(rows, spark_schema(table)).selectExpr(
        *[f"{stated[r.name]} AS `{r.name}`" for r in table.rules]
    )
    engine = frame.toArrow().to_pydict()
    for rule in table.rules:
        wrong = [(v, a, e) for v, a, e in zip(varied, found[rule.name], engine[rule.name], strict=True) if a is not e]
        assert wrong == [], f"{rule.name}: (varied, audit, engine)"


@pytest.mark.engine("local")
@pytest.mark.parametrize("name", WITH_RULES)
def test_no_rule_is_kept_by_a_row_with_nan_or_an_infinity_in_a_column_that_it_names(name: str):
    table = TABLES[name]
    rows, varied = judged(table)
    found = in_the_audit(table, rows)
    doubles = {c.name for c in table.columns if c.type == "double"}
    assert (FINITE in found) == bool(doubles)
    for rule in table.rules:
        for (column, value), kept in zip(varied, found[rule.name], strict=True):
            odd = column in doubles and value is not None and not math.isfinite(value)
            if odd and (rule.name == FINITE or column in rule.sql.replace("(", " ").replace(")", " ").split()):
                assert not kept, f"{rule.name} passes {column} = {value}"


@pytest.mark.engine("local")
def test_expectations_constraints_and_audit_are_of_the_same_rules():
    for table in TABLES.values():
        blocking = [r for r in table.rules if r.blocking]
        added = check_constraints(table)[1::2]
        assert all(f"CHECK ({table.condition(r)})" in text for r, text in zip(blocking, added, strict=True))
        stated = expectations(table)
        assert {r.name for r in blocking} <= set(stated[FAIL])
        assert set(stated[KEEP]) == {r.name for r in table.rules if not r.blocking}


@pytest.mark.engine("local")
def test_a_rule_of_a_new_table_sees_nan_without_saying_so():
    table = Table(
        "gold", "toy", "", (Column("k", "string", ""), Column("x", "double", ""), Column("y", "double", "")),
        key=("k",), grain=None, write="merge", owner="", group="", kinds=(),
        rules=(Rule("x_positive", "x > 0 AND k <> 'y'", "", blocking=True),),
    )  # fmt: skip
    values = [1.0, *NOT_FINITE, None]
    rows = pa.table({"k": [str(i) for i in range(6)], "x": values, "y": [0.0] * 6})
    outcomes = {o.name: o for o in rules.evaluate(table, rows, [None])[None]}
    assert outcomes["x_positive"].metadata["violations"] == 5
    assert outcomes[FINITE].metadata["violations"] == 4
    y = pa.table({"k": [str(i) for i in range(6)], "x": [1.0] * 6, "y": values})
    outcomes = {o.name: o for o in rules.evaluate(table, y, [None])[None]}
    assert outcomes["x_positive"].passed, "the word in its text is no column"
    assert [o.name for o in rules.blocking(list(outcomes.values()))] == [FINITE]
