"""Laws on the dimensions: coins against the registry, days against the calendar."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.contracts.tables import DIM_COIN, DIM_DATE
from crypto_assets.verify.delta import quoted
from crypto_assets.verify.laws.base import Law, compared, differing, unequal


def coins_law() -> Law:
    """Law on coin versions, from `audit_coins`, by set operations where the product walks a list."""
    table, stranger = "gold.dim_coin", "the registry has no such version"
    differs = unequal(("symbol", "name", "aliases", "valid_to", "is_current", "is_active", "coin_key"))
    known = "(SELECT count(*) FROM audit_coins) > 0"
    return Law(
        "dim_coin_is_the_registry",
        "every coin of the registry has its versions with their spans and names, and there is no other",
        (table,),
        f"""
        WITH edges AS (
            SELECT coin_id, active_from AS valid_from FROM audit_coins
            UNION SELECT coin_id, active_to FROM audit_coins WHERE active_to IS NOT NULL
            UNION SELECT a.coin_id, a.until FROM audit_aliases a JOIN audit_coins c USING (coin_id)
            WHERE a.until > c.active_from AND (c.active_to IS NULL OR a.until < c.active_to)
        ), spans AS (
            SELECT *, lead(valid_from) OVER (PARTITION BY coin_id ORDER BY valid_from) AS valid_to FROM edges
        ), recomputed AS (
            SELECT s.coin_id, s.valid_from, s.valid_to, s.valid_to IS NULL AS is_current, c.name,
                   c.active_to IS NULL OR s.valid_from < c.active_to AS is_active,
                   strftime(s.valid_from, s.coin_id || '@%Y-%m-%dT%H:%M:%SZ') AS coin_key,
                   upper(coalesce((SELECT arg_min(a.old_symbol, a.until) FROM audit_aliases a
                                   WHERE a.coin_id = s.coin_id AND a.until > s.valid_from), c.symbol)) AS symbol,
                   coalesce((SELECT list(a.old_id ORDER BY a.until) FROM audit_aliases a
                             WHERE a.coin_id = s.coin_id), []::VARCHAR[]) AS aliases
            FROM spans s JOIN audit_coins c USING (coin_id)
        )
        {compared(table, ("coin_id", "valid_from"), differs, stranger, judged=known)}
        """,
        covers={table: DIM_COIN.column_names},
        recomputed="the coin registry",
    )


def coin_spans_law() -> Law:
    """Law on the spans of a coin's versions."""
    return Law(
        "dim_coin_spans_follow",
        "the versions of a coin follow one another without hole or overlap, and at most the last is open",
        ("gold.dim_coin",),
        """
        WITH chained AS (
            SELECT coin_id, valid_from, valid_to,
                   lead(valid_from) OVER (PARTITION BY coin_id ORDER BY valid_from, valid_to NULLS LAST) AS next_from
            FROM "gold.dim_coin"
        )
        SELECT CASE WHEN valid_to IS NULL OR valid_to > next_from THEN 'overlap' ELSE 'hole' END AS problem,
               coin_id, valid_from, valid_to, next_from
        FROM chained WHERE next_from IS NOT NULL AND valid_to IS DISTINCT FROM next_from
        """,
        covers={"gold.dim_coin": ("coin_id", "valid_from", "valid_to")},
        recomputed="its other rows",
    )


def dates_law() -> Law:
    """Law on `gold.dim_date`."""
    recomputed = {
        "date_key": "strftime(day, '%Y%m%d')::INTEGER",
        "year": "year(day)",
        "quarter": "quarter(day)",
        "month": "month(day)",
        "day_of_month": "day(day)",
        "iso_week": "weekofyear(day)",
        "iso_weekday": "isodow(day)",
        "is_weekend": "isodow(day) IN (6, 7)",
    }
    differs = differing({n: f"{quoted(n)} IS DISTINCT FROM {made}" for n, made in recomputed.items()})
    return Law(
        "dim_date_is_the_calendar",
        "every day from the first partition to the end of a year is there once, with the values of its date",
        ("gold.dim_date",),
        f"""
        WITH span AS (
            SELECT least(min(day), (SELECT partitions_start FROM audit_clock)) AS first_day,
                   last_day(make_date(year(max(day)), 12, 1)) AS last_day FROM "gold.dim_date"
        ), days AS (SELECT unnest(generate_series(first_day, last_day, INTERVAL 1 DAY))::DATE AS day FROM span)
        SELECT 'missing' AS problem, day, '' AS columns FROM days ANTI JOIN "gold.dim_date" USING (day)
        UNION ALL
        SELECT 'before the first partition', day, '' FROM "gold.dim_date"
        WHERE day < (SELECT partitions_start FROM audit_clock)
        UNION ALL
        SELECT 'doubled', day, '' FROM "gold.dim_date" GROUP BY day HAVING count(*) > 1
        UNION ALL
        SELECT 'differs', day, trim({differs}) FROM "gold.dim_date" WHERE {differs} <> ''
        """,
        covers={"gold.dim_date": DIM_DATE.column_names},
        recomputed="the calendar",
    )
