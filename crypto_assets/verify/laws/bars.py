"""Laws on bars, recomputed from Silver."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.base import Law, compared, far, unequal

BAR_SECONDS = {"1m": 60, "5m": 300, "1h": 3_600, "1d": 86_400}
BAR_WIDTHS = {"1m": "1 MINUTE", "5m": "5 MINUTES", "1h": "1 HOUR", "1d": "1 DAY"}
FEEDS = {"1m": ("tick", "5m"), "5m": ("tick", "5m"), "1h": ("tick", "5m", "1h"), "1d": ("tick", "5m", "1h", "1d")}
"""Granularities of Silver rows in each bar table; coarser points are unknown in finer windows."""


def bars_law(width: str) -> Law:
    """Law: stored bars equal bars recomputed from Silver; exact for decimals and counts, 1e-9 relative for doubles.

    Windows older than Silver's retention cannot be recomputed and are left out. An hour of Silver without any bar is
    missing its bars; a day is judged only once it has bars, since the running day has none. A bar's completeness is
    judged by its own `is_closed`, which may lag behind Bronze's coverage but never run ahead of it.
    """
    table, wide = f"gold.bars_{width}", f"INTERVAL {BAR_WIDTHS[width]}"
    exact = ("open", "high", "low", "close", "volume_24h_usd", "market_cap_usd", "sample_count", "first_event_at",
             "last_event_at", "available_at", "granularity")  # fmt: skip
    span, unit = ("day_start", "day") if width == "1d" else ("hour", "hour")
    # DuckDB's `greatest` passes over nulls, so that an unknown cadence would expect one sample.
    polled = "r.granularity = 'tick' AND r.cadence_s IS NOT NULL"
    expected = f"CASE WHEN {polled} THEN greatest(round({BAR_SECONDS[width]} / r.cadence_s), 1)::BIGINT END"
    enough = f"r.granularity <> 'tick' OR coalesce(r.sample_count >= 0.8 * {expected}, false)"
    differs = {
        **unequal(exact),
        # The sample deviation of nearly equal prices loses digits to cancellation.
        **{n: far(n, "1e-12 * r.price_avg") for n in ("price_avg", "price_vol")},
        "range": far("range", "1e-15"),
        "symbol": "NOT list_contains(r.symbols, a.symbol)",
        "window_end": f"a.window_end <> a.window_start + {wide}",
        "expected_count": f"a.expected_count IS DISTINCT FROM {expected}",
        "is_complete": f"a.is_complete IS DISTINCT FROM (a.is_closed AND ({enough}))",
        "is_closed": "a.is_closed AND a.window_end + INTERVAL 60 SECONDS > (SELECT covered_until FROM audit_clock)",
        "day": "a.day <> a.window_start::DATE",
        span: f"a.{span} <> date_trunc('{unit}', a.window_start)",
    }
    kept = "window_start >= (SELECT silver_from FROM audit_clock)"
    built = "r.window_start IN (SELECT window_start FROM stored)" if width == "1d" else "true"
    key = ("coin_id", "window_start")
    return Law(
        f"bars_{width}_are_silver_recomputed",
        f"{table} equals the bars that Silver gives",
        (table, "silver.prices"),
        f"""
        WITH samples AS (
            SELECT *, time_bucket({wide}, last_updated_at) AS window_start, price_usd::DOUBLE AS price
            FROM "silver.prices" WHERE granularity IN {FEEDS[width]}
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
        ), stored AS (SELECT * FROM "{table}" WHERE {kept})
        {compared(table, key, differs, "Silver has no sample", due=f"{built} AND r.{kept}", stored="stored")}
        """,
        covers={table: (*key, *differs)},
        recomputed="SQL from silver.prices",
    )
