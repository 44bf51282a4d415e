"""Laws on ledgers: the hash chains of forecasts and promotions.

Each row's hash is computed from its stored values. The next row of its chain must carry it, and every row of a commit
must carry the hash over that commit's rows; the newest commit must be the one in the Delta log's transaction. So a
rewritten, deleted, duplicated or inserted row is detected, also at the end of a chain.
"""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.contracts.model import Column, Table
from crypto_assets.contracts.tables import TABLES
from crypto_assets.verify.delta import quoted
from crypto_assets.verify.laws.base import Evidence, Law

LEDGERS = {
    "gold.price_predictions": "predictions",
    "gold.volatility_forecasts": "volatility",
    "ml.promotions": "promotions",
}
"""Tables whose rows form chains, with the short name in their laws."""

WRITTEN_AT = {
    "gold.price_predictions": "predicted_at",
    "gold.volatility_forecasts": "predicted_at",
    "ml.promotions": "decided_at",
}
PLACES = ("chain_seq", "chain_previous", "chain_commit")
DIGITS = 32


def chain_law(name: str) -> Law:
    """Law: every chain is complete, and ends at the commit named in the log.

    Rows older than the chains are counted in a note; none of them may be written later than the first chained row.
    """
    table, short = TABLES[name], LEDGERS[name]
    key = ", ".join(f"{quoted(k)}::VARCHAR" for k in table.key)
    return Law(
        f"{short}_chains_are_whole",
        f"rows of {name} are as they were written, none is missing, and the newest are those that the log names",
        (name,),
        f"""
        WITH hashed AS (
            SELECT *, concat_ws('/', {key}) AS row_key, {_hash(table)} AS own FROM "{name}" WHERE chain_seq IS NOT NULL
        ), linked AS (
            SELECT *, lag(own) OVER chain AS before, lag(chain_seq) OVER chain AS seq_before,
                   lag(chain_commit) OVER chain AS commit_before
            FROM hashed WINDOW chain AS (PARTITION BY {", ".join(table.chain)} ORDER BY chain_seq, own)
        ), commits AS (
            SELECT chain_commit, substr(sha256(string_agg(own, '' ORDER BY own)), 1, {DIGITS}) AS whole
            FROM hashed GROUP BY chain_commit
        )
        SELECT CASE WHEN chain_seq = seq_before THEN 'two rows with one number' ELSE 'rows missing before it' END
                   AS problem, row_key, chain_seq, chain_commit
        FROM linked WHERE chain_seq <> coalesce(seq_before, 0) + 1
        UNION ALL
        SELECT 'the row before is not as it was written', row_key, chain_seq, chain_commit
        FROM linked WHERE chain_seq = coalesce(seq_before, 0) + 1
          AND (chain_previous IS DISTINCT FROM coalesce(before, repeat('0', {DIGITS})) OR chain_commit < commit_before)
        UNION ALL
        SELECT 'its commit wrote other rows', min(row_key), min(chain_seq), chain_commit
        FROM hashed JOIN commits USING (chain_commit) WHERE chain_commit_hash IS DISTINCT FROM whole
        GROUP BY chain_commit
        UNION ALL
        SELECT 'has no commit', row_key, chain_seq, NULL FROM hashed WHERE chain_commit IS NULL
        UNION ALL
        SELECT 'the log names another newest commit: ' || coalesce(l.version::VARCHAR, 'none'), NULL, NULL, s.newest
        FROM audit_ledgers l, (SELECT max(chain_commit) AS newest FROM "{name}") s
        WHERE l.table_name = '{name}' AND l.version IS DISTINCT FROM s.newest
        UNION ALL
        SELECT 'stands beside the chains', concat_ws('/', {key}), NULL, NULL FROM "{name}"
        WHERE chain_seq IS NULL AND ({" OR ".join(f"{c} IS NOT NULL" for c in table.chain_columns)}
              OR {WRITTEN_AT[name]} > (SELECT min({WRITTEN_AT[name]}) FROM hashed))
        UNION ALL
        SELECT 'doubled', concat_ws('/', {key}), NULL, NULL FROM "{name}"
        GROUP BY {", ".join(quoted(k) for k in table.key)} HAVING count(*) > 1
        """,
        checked=f'SELECT count(chain_seq) FROM "{name}"',
        covers={name: tuple(table.column_names)},
        recomputed="hash chain",
        prepare=lambda evidence: _newest(evidence, name),
    )


def _newest(evidence: Evidence, name: str) -> str | None:
    """Fill `audit_ledgers` (newest commit by table); returns a note on rows outside of chains."""
    connection = evidence.connection
    version = evidence.stored[name].transactions.get(f"ledger/{name}")
    connection.execute("INSERT INTO audit_ledgers VALUES (?, ?)", [name, version])
    found = connection.execute(f'SELECT count(*) - count(chain_seq) FROM "{name}"').fetchone()
    outside = found[0] if found else 0
    return f"{outside:,} rows are older than the chains and not judged by them" if outside else None


def _hash(table: Table) -> str:
    """SQL of a row's hash: SHA-256 of `name=value` of every column with a value, the place in the chain last."""
    columns = [c for c in table.columns if c.name not in table.chain_columns]
    columns += [table.column(name) for name in PLACES]
    parts = ", ".join(f"'{c.name}=' || {_text(c)}" for c in columns)
    return f"substr(sha256(concat_ws(chr(31), {parts})), 1, {DIGITS})"


def _text(column: Column) -> str:
    value = quoted(column.name)
    if column.type == "timestamp":
        return f"epoch_us({value})::VARCHAR"
    if column.type == "double":
        return f"CAST({value} AS BIT)::VARCHAR"
    return f"{value}::VARCHAR"
