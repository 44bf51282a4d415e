"""The rules of a contract as expectations of a declarative pipeline, and as queries where there are none.

Databricks' pipelines know expectations (`expect_all`, `expect_all_or_fail`); open-source Spark 4.2 does not. Both take
the same conditions from here. A blocking rule fails the update, as it stops a write of the assets; every other rule
is counted and keeps its rows. Keys cannot be an expectation, which sees one row at a time: they are a query.

Belongs here: rendering, pure. Does not belong here: what a dataset is made of (`datasets`), the rules of the assets'
writes and checks (`crypto_assets.checks.rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crypto_assets.contracts.model import Table

FAIL, KEEP = "expect_all_or_fail", "expect_all"
"""Decorators of `pyspark.pipelines` on Databricks: stop the update, or only count."""
UNIQUE_KEY = "unique_key"


def expectations(table: Table) -> dict[str, dict[str, str]]:
    """Conditions that good rows fulfil, by decorator and name; Spark SQL that is true or false, never null.

    Args:
        table: Contract.

    Returns:
        Under `FAIL` a `<column>_not_null` for each column without nulls and every blocking rule, under `KEEP` every
        other rule.
    """
    required = {f"{c.name}_not_null": f"`{c.name}` IS NOT NULL" for c in table.columns if not c.nullable}
    blocking = {rule.name: table.condition(rule) for rule in table.rules if rule.blocking}
    others = {rule.name: table.condition(rule) for rule in table.rules if not rule.blocking}
    return {FAIL: required | blocking, KEEP: others}


def expected(dp: Any, table: Table, query: Callable[[], Any]) -> Callable[[], Any]:
    """A query function with a contract's expectations on it, as far as `dp` (`pyspark.pipelines`) knows any."""
    for name, conditions in expectations(table).items():
        decorator = getattr(dp, name, None)
        if decorator is not None and conditions:
            query = decorator(conditions)(query)
    return query


def violations(table: Table, name: str) -> str:
    """A query of one row: the number of rows of `name` that break each expectation, and of surplus rows by key.

    Args:
        table: Contract of the rows.
        name: Table or view in Spark, or `delta.` and a quoted path.
    """
    conditions: Mapping[str, str] = {k: v for found in expectations(table).values() for k, v in found.items()}
    key = ", ".join(f"`{column}`" for column in table.key)
    counts = [f"count_if(NOT {condition}) AS `{rule}`" for rule, condition in conditions.items()]
    counts.append(f"count(*) - count(DISTINCT struct({key})) AS `{UNIQUE_KEY}`")
    return f"SELECT {', '.join(counts)} FROM {name}"  # noqa: S608 - contracts, not input
