"""The law on stored replies of the source's archive: their own points, and Silver's use of them."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.base import Law, differing

_DIFFERENCES = {
    "day": "first_at < day_start OR last_at >= day_start + INTERVAL 1 DAY",
    "day_start": "day_start <> day::TIMESTAMP AT TIME ZONE 'UTC'",
    "points": "points <> counted",
    "granularity": "granularity <> CASE WHEN gap IS NULL OR gap > INTERVAL 3 HOURS THEN '1d' "
                   "WHEN gap > INTERVAL 15 MINUTES THEN '1h' ELSE '5m' END",
    "source": "sources <> [] AND NOT list_contains(sources, source)",
    "raw_json": "NOT json_valid(raw_json)",
}  # fmt: skip


def history_law() -> Law:
    """Law: a reply's points lie in its day, match its count and spacing, and are in Silver where they belong.

    Points of days that Silver can no longer write, because Bronze has expired, are not checked.
    """
    differs = differing(_DIFFERENCES)
    return Law(
        "history_is_of_its_days",
        "stored replies hold the points of their day, spaced as recorded, and Silver has each one in a slot without a "
        "live sample",
        ("bronze.market_history",),
        f"""
        WITH points AS (
            SELECT coin_id, day, make_timestamptz(((p ->> 0)::DOUBLE)::BIGINT * 1000) AS made_at,
                   (p ->> 1)::DOUBLE AS price
            FROM (SELECT coin_id, day, unnest(from_json(raw_json::JSON -> '$.prices', '["JSON"]')) AS p
                  FROM "bronze.market_history" WHERE json_valid(raw_json))
        ), spaced AS (
            SELECT *, made_at - lag(made_at) OVER (PARTITION BY coin_id, day ORDER BY made_at) AS gap FROM points
        ), measured AS (
            SELECT coin_id, day, count(*) AS counted, min(made_at) AS first_at, max(made_at) AS last_at,
                   list_sort(list(gap) FILTER (gap IS NOT NULL)) AS gaps
            FROM spaced GROUP BY ALL
        ), used AS (
            SELECT coin_id, day, list(DISTINCT source) AS sources FROM "silver.prices" WHERE granularity <> 'tick'
            GROUP BY ALL
        ), judged AS (
            SELECT h.*, coalesce(m.counted, 0) AS counted, m.first_at, m.last_at, coalesce(u.sources, []) AS sources,
                   gaps[len(gaps) // 2 + 1] AS gap
            FROM "bronze.market_history" h
            LEFT JOIN measured m ON m.coin_id = h.coin_id AND m.day = h.day
            LEFT JOIN used u ON u.coin_id = h.coin_id AND u.day = h.day
        )
        SELECT 'differs' AS problem, coin_id, day, NULL::TIMESTAMPTZ AS made_at, trim({differs}) AS columns
        FROM judged WHERE {differs} <> ''
        UNION ALL
        SELECT 'doubled', coin_id, day, NULL, '' FROM "bronze.market_history" GROUP BY coin_id, day HAVING count(*) > 1
        UNION ALL
        SELECT 'point that Silver lacks', p.coin_id, p.day, p.made_at, ''
        FROM points p
        WHERE p.price > 0 AND p.made_at > (SELECT bronze_from + INTERVAL 1 DAY FROM audit_clock)
          AND (p.coin_id, p.day) IN (SELECT (coin_id, day) FROM "silver.prices")
          AND NOT EXISTS (FROM "silver.prices" s WHERE s.coin_id = p.coin_id AND s.last_updated_at = p.made_at)
          AND NOT EXISTS (FROM "silver.prices" s WHERE s.coin_id = p.coin_id AND s.granularity = 'tick'
                          AND time_bucket(INTERVAL 5 MINUTES, s.last_updated_at)
                              = time_bucket(INTERVAL 5 MINUTES, p.made_at))
        """,
        covers={"bronze.market_history": ("coin_id", *_DIFFERENCES)},
        recomputed="its own points, Silver",
    )
