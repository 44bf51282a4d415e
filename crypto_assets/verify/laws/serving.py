"""Laws on the tables of a board: newest quotes against Silver, the leaderboard against bars."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.contracts.tables import LEADERBOARD
from crypto_assets.verify.laws.base import Law, differing, unequal, written_since

_QUOTE = (
    "symbol", "name", "price_usd", "market_cap_usd", "volume_24h_usd", "change_1h_pct", "change_24h_pct",
    "change_7d_pct", "available_at", "source",
)  # fmt: skip
_BOARD = (
    "symbol", "price_usd", "price_24h_ago_usd", "price_24h_ago_at", "high_24h", "low_24h", "volume_24h_usd",
    "window_end", "rank",
)  # fmt: skip


def latest_law() -> Law:
    """Law on newest quotes as of the row's own coverage: a later refresh may be on its way."""
    differs = differing(unequal(_QUOTE, "l", "s"))
    known = 's.available_at <= (SELECT max(covered_until) FROM "gold.latest_prices")'
    return Law(
        "latest_prices_are_newest",
        "every coin that is polled has one row, and it is Silver's newest quote of what the table covers",
        ("gold.latest_prices", "silver.prices"),
        f"""
        WITH newest AS (
            SELECT s.coin_id, max(s.last_updated_at) AS last_updated_at FROM "silver.prices" s
            WHERE {known} GROUP BY s.coin_id
        ), polled AS (
            SELECT coin_id FROM audit_coins c
            WHERE (active_from IS NULL OR active_from <= (SELECT max(refreshed_at) FROM "gold.latest_prices"))
              AND (active_to IS NULL OR active_to > (SELECT max(refreshed_at) FROM "gold.latest_prices"))
        )
        SELECT 'missing' AS problem, n.coin_id, n.last_updated_at, '' AS columns
        FROM newest n SEMI JOIN polled USING (coin_id) ANTI JOIN "gold.latest_prices" l ON l.coin_id = n.coin_id
        UNION ALL
        SELECT 'doubled', coin_id, max(last_updated_at), '' FROM "gold.latest_prices"
        GROUP BY coin_id HAVING count(*) > 1
        UNION ALL
        SELECT CASE WHEN s.coin_id IS NULL THEN 'Silver has no such quote' WHEN n.last_updated_at > l.last_updated_at
                    THEN 'Silver has a newer one' ELSE 'differs' END,
               l.coin_id, l.last_updated_at, CASE WHEN s.coin_id IS NULL THEN '' ELSE trim({differs}) END
        FROM "gold.latest_prices" l
        LEFT JOIN "silver.prices" s ON s.coin_id = l.coin_id AND s.last_updated_at = l.last_updated_at
        LEFT JOIN newest n ON n.coin_id = l.coin_id
        WHERE l.last_updated_at >= (SELECT silver_from FROM audit_clock)
          AND (s.coin_id IS NULL OR n.last_updated_at > l.last_updated_at OR {differs} <> '')
        """,
        covers={"gold.latest_prices": ("coin_id", "last_updated_at", *_QUOTE)},
        recomputed="SQL from silver.prices",
    )


def coverage_law() -> Law:
    """`covered_until` is the time of a record below the offsets, and no record below them is later."""
    return Law(
        "latest_prices_cover_what_they_say",
        "covered_until is the newest time of the records below covered_offsets, and ages are counted from it",
        ("gold.latest_prices", "bronze.raw_prices"),
        """
        WITH claims AS (
            SELECT DISTINCT covered_until, covered_offsets, refreshed_at FROM "gold.latest_prices"
        ), ends AS (
            SELECT covered_offsets, covered_until, p.key::INTEGER AS "partition", p.value::BIGINT AS "end"
            FROM claims, json_each(covered_offsets::JSON) AS p
        ), incarnation AS (
            SELECT topic_id FROM "bronze.raw_prices" WHERE kind = 'record'
              AND kafka_timestamp = (SELECT max(covered_until) FROM claims) ORDER BY bronze_ingested_at DESC LIMIT 1
        ), reached AS (
            SELECT e.covered_offsets, e.covered_until, max(b.kafka_timestamp) AS newest
            FROM ends e JOIN "bronze.raw_prices" b ON b."partition" = e."partition" AND b."offset" < e."end"
            WHERE b.topic_id = (FROM incarnation) AND b.kind = 'record'
              AND b.kafka_timestamp <= b.bronze_ingested_at + INTERVAL 60 SECONDS GROUP BY ALL
        ), stored AS (
            SELECT "partition", max(range_end) AS "end" FROM "bronze.raw_prices"
            WHERE topic_id = (FROM incarnation) GROUP BY "partition"
        )
        SELECT 'age is not counted from covered_until' AS problem, coin_id AS subject, covered_until AS claimed,
               last_updated_at AS found
        FROM "gold.latest_prices"
        WHERE abs(age_s - date_diff('microsecond', last_updated_at, covered_until) / 1e6) > 1e-6 OR age_s IS NULL
        UNION ALL
        SELECT 'newest record below the offsets is of another time', c.covered_offsets, c.covered_until, r.newest
        FROM claims c LEFT JOIN reached r USING (covered_offsets, covered_until)
        WHERE c.covered_until >= (SELECT bronze_from + INTERVAL 1 DAY FROM audit_clock)
          AND (SELECT count(*) FROM "bronze.raw_prices" WHERE kind = 'record') > 0
          AND r.newest IS DISTINCT FROM c.covered_until
        UNION ALL
        SELECT 'offsets beyond what Bronze holds', 'partition ' || e."partition", e.covered_until, NULL
        FROM ends e LEFT JOIN stored s USING ("partition")
        WHERE EXISTS (FROM incarnation) AND e."end" > coalesce(s."end", 0)
          AND e.covered_until = (SELECT max(covered_until) FROM claims)
        UNION ALL
        SELECT 'written before it was covered', 'refreshed_at', max(covered_until), max(refreshed_at) FROM claims
        HAVING max(refreshed_at) < (SELECT max(refreshed_at) FROM claims WHERE covered_until =
                                    (SELECT max(covered_until) FROM claims))
        """,
        covers={"gold.latest_prices": ("covered_until", "covered_offsets", "age_s")},
        recomputed="SQL from bronze.raw_prices",
    )


def leaderboard_law() -> Law:
    """Law on `gold.leaderboard_24h`; one older than its bars is judged by its next run."""
    pairs = unequal(_BOARD, "b")
    pairs["change_24h"] = "(b.change_24h IS NULL) <> (r.change_24h IS NULL) OR abs(b.change_24h - r.change_24h) > 1e-9"
    differs = differing(pairs)
    return Law(
        "leaderboard_is_bars_recomputed",
        "the board has every coin with a bar in its 27 hours once, with its 24 h of bars and its rank",
        ("gold.leaderboard_24h", "gold.bars_5m"),
        f"""
        WITH horizon AS (
            SELECT date_trunc('hour', max(window_end) - INTERVAL 1 MICROSECOND) + INTERVAL 1 HOUR AS until
            FROM "gold.leaderboard_24h"
        ), bars AS (
            SELECT * FROM "gold.bars_5m", horizon
            WHERE hour >= until - INTERVAL 27 HOURS AND hour < until
        ), newest AS (
            SELECT coin_id, max(window_end) AS window_end FROM bars GROUP BY coin_id
        ), aged AS (
            SELECT x.*, n.window_end AS newest_end, n.window_end - x.window_end AS age,
                   n.window_end - x.window_start AS start_age
            FROM bars x JOIN newest n USING (coin_id)
        ), summed AS (
            SELECT coin_id, any_value(newest_end) AS window_end,
                   arg_min(symbol, age) AS symbol, arg_min("close", age) AS price_usd,
                   arg_min_null(volume_24h_usd, age) AS volume_24h_usd,
                   arg_min({{moment: last_event_at, usd: "close"}}, age)
                       FILTER (age BETWEEN INTERVAL 24 HOURS AND INTERVAL 1450 MINUTES) AS older,
                   arg_max({{moment: first_event_at, usd: "open"}}, start_age)
                       FILTER (start_age BETWEEN INTERVAL 1430 MINUTES AND INTERVAL 24 HOURS) AS younger,
                   max(high) FILTER (age < INTERVAL 24 HOURS) AS high_24h,
                   min(low) FILTER (age < INTERVAL 24 HOURS) AS low_24h
            FROM aged GROUP BY coin_id
        ), changed AS (
            SELECT *, coalesce(older.moment, younger.moment) AS price_24h_ago_at,
                   coalesce(older.usd, younger.usd) AS price_24h_ago_usd,
                   price_usd::DOUBLE / coalesce(older.usd, younger.usd)::DOUBLE - 1 AS change_24h
            FROM summed
        ), recomputed AS (
            SELECT *, row_number() OVER (ORDER BY round(change_24h, 12) DESC NULLS LAST, coin_id) AS rank FROM changed
        )
        SELECT CASE WHEN b.coin_id IS NULL THEN 'missing' WHEN r.coin_id IS NULL THEN 'no bar of this coin'
                    ELSE 'differs' END AS problem,
               coalesce(b.coin_id, r.coin_id) AS coin_id, b.window_end,
               CASE WHEN b.coin_id IS NULL OR r.coin_id IS NULL THEN '' ELSE trim({differs}) END AS columns
        FROM "gold.leaderboard_24h" b FULL JOIN recomputed r ON b.coin_id = r.coin_id
        WHERE NOT (SELECT stale FROM audit_stale WHERE table_name = 'gold.leaderboard_24h')
          AND (b.coin_id IS NULL OR r.coin_id IS NULL OR {differs} <> '')
        UNION ALL
        SELECT 'doubled', coin_id, max(window_end), '' FROM "gold.leaderboard_24h" GROUP BY coin_id HAVING count(*) > 1
        UNION ALL
        SELECT 'older than the bars', min(coin_id), max(window_end), '' FROM "gold.leaderboard_24h"
        HAVING max(window_end) < (SELECT max(window_end) FROM "gold.bars_5m")
           AND NOT (SELECT stale FROM audit_stale WHERE table_name = 'gold.leaderboard_24h')
        """,
        covers={"gold.leaderboard_24h": LEADERBOARD.column_names},
        recomputed="SQL from gold.bars_5m",
        prepare=lambda evidence: written_since(evidence, "gold.leaderboard_24h", ("gold.bars_5m",)),
    )
