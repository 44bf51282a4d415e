"""MERGE of rows on a contract's key, by Spark."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crypto_assets.contracts.model import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def upsert(rows: DataFrame, name: str, contract: Table, scope: str | None) -> None:
    """Insert rows, or update those whose key is stored.

    Args:
        rows: Rows with the contract's columns.
        name: Quoted name of the table.
        contract: Its contract.
        scope: Condition that holds every stored row that could have one of the keys; None = the whole table.
    """
    from pyspark.sql import functions as F

    target, source = contract.name, rows.alias("_new")
    same = [F.col(f"_new.`{k}`").eqNullSafe(F.col(f"{target}.`{k}`")) for k in contract.key]
    condition = same[0]
    for part in same[1:]:
        condition = condition & part
    if scope:
        condition = condition & F.expr(re.sub(r"\b(\w+) ([<>]=)", rf"{target}.\1 \2", scope))
    source.mergeInto(name, condition).whenMatched().updateAll().whenNotMatched().insertAll().merge()
