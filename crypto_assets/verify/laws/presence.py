"""The law on dropped or emptied tables: tables whose rows others prove must still have them."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.base import Law

MADE_TOGETHER = (
    ("gold.bars_1m", "gold.bars_5m", "gold.bars_1h"),
    ("features.price_features", "gold.anomalies", "gold.latest_prices", "ops.pipeline_metrics"),
    ("gold.bars_1d", "gold.dim_coin", "gold.dim_date", "gold.leaderboard_24h"),
)
"""Tables filled by the same work: if two of a group have rows, all of them have."""

SHOWN_BY = {
    "bronze.raw_prices": "SELECT count(*) FROM \"silver.prices\" WHERE granularity = 'tick' "
                         "AND hour > (SELECT bronze_from + INTERVAL 1 DAY FROM audit_clock)",
    "ops.polls": "SELECT count(*) FROM \"ops.pipeline_metrics\" WHERE metric = 'polls_ok_rate' AND measured_over > 0 "
                 "AND hour > (SELECT bronze_from + INTERVAL 1 DAY FROM audit_clock)",
    "silver.prices": 'SELECT count(*) FROM "gold.bars_1h" WHERE hour > (SELECT silver_from + INTERVAL 1 DAY '
                     "FROM audit_clock)",
    "gold.bars_5m": 'SELECT count(*) FROM "features.price_features" WHERE price IS NOT NULL',
    "gold.bars_1h": 'SELECT count(*) FROM "gold.bars_1d"',
    "features.price_features": 'SELECT (SELECT count(*) FROM "gold.anomalies") '
                               '+ (SELECT count(*) FROM "gold.price_predictions") '
                               '+ (SELECT count(*) FROM "gold.volatility_forecasts")',
    "gold.price_predictions": 'SELECT count(*) FROM "gold.prediction_accuracy"',
    "gold.prediction_accuracy": 'SELECT count(*) FROM "gold.price_predictions" '
                                "WHERE (target_at - INTERVAL 1 MICROSECOND)::DATE "
                                'IN (SELECT day FROM "gold.bars_1d")',
    "gold.volatility_forecasts": 'SELECT count(*) FROM "gold.volatility_accuracy"',
    "gold.volatility_accuracy": 'SELECT count(*) FROM "gold.volatility_forecasts" '
                                "WHERE (target_at - INTERVAL 1 MICROSECOND)::DATE "
                                'IN (SELECT day FROM "gold.bars_1d")',
    "ml.promotions": 'SELECT (SELECT count(*) FROM "gold.anomalies") + (SELECT count(*) FROM "gold.price_predictions")',
}  # fmt: skip
"""Query per table of the number of other tables' rows that depend on it."""


def presence_law() -> Law:
    """Law: no table is missing or empty that others show to have had rows.

    Only the lake is queried: a run's own record of its tables would not be independent evidence.
    """
    shown = " UNION ALL ".join(
        f"SELECT '{table}' AS table_name, ({query}) AS rows_elsewhere" for table, query in SHOWN_BY.items()
    )
    groups = ", ".join(f"({i}, '{table}')" for i, group in enumerate(MADE_TOGETHER) for table in group)
    tables = {*SHOWN_BY, *(t for group in MADE_TOGETHER for t in group)}
    return Law(
        "tables_are_there",
        "no table is missing or empty that the rows of others were made from or with",
        (),
        f"""
        WITH grouped AS (
            SELECT g.made_with, g.table_name, p.rows FROM (VALUES {groups}) g(made_with, table_name)
            JOIN audit_presence p USING (table_name)
        ), wanted AS (
            SELECT table_name, rows_elsewhere, 'rows made from it' AS evidence FROM ({shown}) WHERE rows_elsewhere > 0
            UNION ALL
            SELECT g.table_name, sum(o.rows)::BIGINT, 'rows made with it: ' || string_agg(o.table_name, ', ')
            FROM grouped g JOIN grouped o ON o.made_with = g.made_with AND o.table_name <> g.table_name AND o.rows > 0
            GROUP BY g.table_name HAVING count(*) >= 2
        )
        SELECT CASE WHEN p.present THEN 'table is empty' ELSE 'table does not exist' END AS problem, table_name,
               max(w.rows_elsewhere) AS "rows", any_value(w.evidence) AS evidence
        FROM wanted w JOIN audit_presence p USING (table_name) WHERE p.rows = 0
        GROUP BY p.present, table_name
        """,
        checked=f"SELECT {len(tables)}",
        covers=dict.fromkeys(sorted(tables), ()),
        recomputed="rows of other tables",
    )
