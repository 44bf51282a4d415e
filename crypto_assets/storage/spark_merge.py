"""What `merge` does on Spark alone: MERGE on a key, and rows of a ledger behind its newest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from crypto_assets.contracts.model import Table
from crypto_assets.storage import ledger
from crypto_assets.storage.base import TableStore
from crypto_assets.storage.spark_conditions import Condition, newest_commit_is

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


def linked(store: TableStore, contract: Table, rows: pa.Table, version: int) -> tuple[pa.Table, Condition]:
    """Rows behind the newest of a version, and the condition that these are still the newest when it commits.

    Args:
        store: Store that holds the ledger.
        contract: Contract with `chain` columns.
        rows: New rows.
        version: Version of the table that the commit is made after.
    """
    from pyspark.sql import functions as F

    stored = store.read(contract.full_name, version=version).where("chain_seq IS NOT NULL")
    numbers = stored.groupBy(*contract.chain).agg(F.max("chain_seq").alias("chain_seq")).toArrow()
    newest = store.read_arrow(contract.full_name, where=ledger.rows_at(contract, numbers), version=version)
    return ledger.linked(contract, rows, newest, version + 1), newest_commit_is(ledger.newest_commit(newest))


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
