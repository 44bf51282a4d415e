"""Laws on bars, recomputed from Silver."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.base import Law, quoted

BAR_SECONDS = {"1m": 60, "5m": 300, "1h": 3_600, "1d": 86_400}
BAR_WIDTHS = {"1m": "1 MINUTE", "5m": "5 MINUTES", "1h": "1 HOUR", "1d": "1 DAY"}
FEEDS = {"1m": ("tick", "5m"), "5m": ("tick", "5m"), "1h": ("tick", "5m", "1h"), "1d": ("tick", "5m", "1h", "1d")}
"""Granularities of Silver rows in each bar table; coarser points are unknown in finer windows."""

_UNCOVERED = "b.window_end + INTERVAL 60 SECONDS > (SELECT covered_until FROM audit_clock)"


def bars_law(width: str) -> Law:
    """Law: stored bars equal bars recomputed from Silver; exact for decimals and counts, 1e-9 relative for doubles.

    Windows older than Silver's retention cannot be recomputed and are left out. An hour of Silver without any bar is
    missing its bars; a day is judged only once it has bars, since the running day has none. A bar's completeness is
    judged by its own `is_closed`, which may lag behind Bronze's coverage but never run ahead of it.
    """
    table = f'"gold.bars_{width}"'
    exact = ("open", "high", "low", "close", "volume_24h_usd", "market_cap_usd", "sample_count", "first_event_at",
             "last_event_at", "available_at", "granularity")  # fmt: skip
    span, unit = ("day_start", "day") if width == "1d" else ("hour", "hour")
    seconds = BAR_SECONDS[width]
    expected = f"CASE WHEN r.granularity = 'tick' THEN greatest(round({seconds} / r.cadence_s), 1)::BIGINT END"
    enough = f"r.granularity <> 'tick' OR coalesce(r.sample_count >= 0.8 * {expected}, false)"
    differs = " || ".join(
        [
            *(f"CASE WHEN b.{quoted(n)} IS DISTINCT FROM r.{quoted(n)} THEN ' {n}' ELSE '' END" for n in exact),
            *(f"CASE WHEN {_far(n)} THEN ' {n}' ELSE '' END" for n in ("price_avg", "price_vol", "range")),
            "CASE WHEN NOT list_contains(r.symbols, b.symbol) THEN ' symbol' ELSE '' END",
            f"CASE WHEN b.window_end <> b.window_start + INTERVAL {BAR_WIDTHS[width]} THEN ' window_end' ELSE '' END",
            f"CASE WHEN b.expected_count IS DISTINCT FROM {expected} THEN ' expected_count' ELSE '' END",
            f"CASE WHEN b.is_complete IS DISTINCT FROM (b.is_closed AND ({enough})) THEN ' is_complete' ELSE '' END",
            f"CASE WHEN b.is_closed AND {_UNCOVERED} THEN ' is_closed' ELSE '' END",
            "CASE WHEN b.day <> b.window_start::DATE THEN ' day' ELSE '' END",
            f"CASE WHEN b.{span} <> date_trunc('{unit}', b.window_start) THEN ' {span}' ELSE '' END",
        ]
    )
    built = "b.window_start IS NOT NULL" if width == "1d" else "true"
    return Law(
        f"bars_{width}_are_silver_recomputed",
        f"gold.bars_{width} equals the bars that Silver gives",
        (f"gold.bars_{width}", "silver.prices"),
        f"SELECT count(*) FROM {table}",
        f"""
        WITH samples AS (
            SELECT *, time_bucket(INTERVAL {BAR_WIDTHS[width]}, last_updated_at) AS window_start,
                   price_usd::DOUBLE AS price
            FROM "silver.prices" WHERE granularity IN {FEEDS[width]} AND hour NOT IN (FROM audit_excluded)
        ), recomputed AS (
            SELECT coin_id, window_start, arg_min(price_usd, last_updated_at) AS "open", max(price_usd) AS high,
                   min(price_usd) AS low, arg_max(price_usd, last_updated_at) AS "close", avg(price) AS price_avg,
                   stddev_samp(price) AS price_vol,
                   CASE WHEN count(*) > 1 THEN max(price_usd)::DOUBLE / min(price_usd)::DOUBLE - 1 END AS "range",
                   arg_max_null(volume_24h_usd, last_updated_at) AS volume_24h_usd,
                   arg_max_null(market_cap_usd, last_updated_at) AS market_cap_usd, count(*) AS sample_count,
                   arg_max_null(cadence_s, last_updated_at) AS cadence_s,
                   min(last_updated_at) AS first_event_at, max(last_updated_at) AS last_event_at,
                   max(available_at) AS available_at, list(DISTINCT symbol) AS symbols,
                   arg_max(granularity, list_position(['tick', '5m', '1h', '1d'], granularity)) AS granularity
            FROM samples GROUP BY coin_id, window_start
        ), stored AS (
            SELECT * FROM {table}
            WHERE window_start >= (SELECT silver_from FROM audit_clock)
              AND window_start NOT IN (SELECT time_bucket(INTERVAL {BAR_WIDTHS[width]}, hour) FROM audit_excluded)
              AND date_trunc('hour', window_start) NOT IN (FROM audit_excluded)
        ), days AS (SELECT DISTINCT window_start FROM stored)
        SELECT CASE WHEN b.coin_id IS NULL THEN 'missing' WHEN r.coin_id IS NULL THEN 'Silver has no sample'
                    ELSE 'differs' END AS problem,
               coalesce(b.coin_id, r.coin_id) AS coin_id, coalesce(b.window_start, r.window_start) AS window_start,
               CASE WHEN b.coin_id IS NULL OR r.coin_id IS NULL THEN '' ELSE trim({differs}) END AS columns
        FROM stored b FULL JOIN recomputed r ON b.coin_id = r.coin_id AND b.window_start = r.window_start
        WHERE (b.coin_id IS NULL AND {"r.window_start IN (FROM days)" if width == "1d" else built}
               AND r.window_start NOT IN (SELECT time_bucket(INTERVAL {BAR_WIDTHS[width]}, hour) FROM audit_excluded)
               AND r.window_start >= (SELECT silver_from FROM audit_clock))
           OR (b.coin_id IS NOT NULL AND (r.coin_id IS NULL OR {differs} <> ''))
        UNION ALL
        SELECT 'doubled', coin_id, window_start, '' FROM {table} GROUP BY coin_id, window_start HAVING count(*) > 1
        """,
        covers={
            f"gold.bars_{width}": (
                "coin_id",
                "symbol",
                "window_start",
                "window_end",
                *exact,
                "price_avg",
                "price_vol",
                "range",
                "expected_count",
                "is_closed",
                "is_complete",
                "day",
                span,
            )
        },
        recomputed="SQL from silver.prices",
    )


def _far(name: str) -> str:
    """Condition that two doubles differ by more than rounding.

    The sample deviation of nearly equal prices loses digits to cancellation, hence the second term.
    """
    left, right = f"b.{quoted(name)}", f"r.{quoted(name)}"
    floor = "1e-15" if name == "range" else "1e-12 * r.price_avg"
    return f"({left} IS NULL) <> ({right} IS NULL) OR abs({left} - {right}) > 1e-9 * abs({right}) + {floor}"
