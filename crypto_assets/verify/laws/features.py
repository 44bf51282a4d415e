"""The law on features: every column recomputed from 5-minute bars by window functions over a grid.

Where the product sums exact decimals in one joined kernel, this uses DuckDB's own windows: `median` and `mad` over
frames, lists multiplied with weights, the signal line as a kernel on the MACD rather than on prices.
"""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.base import Evidence, Law, compared, far, unequal

SLOT = "INTERVAL 5 MINUTES"
SIGMA_FLOOR, MAD_TO_SIGMA, MAD_PRESENT = 1e-5, 1.4826, 144
LONGEST_AGE_S = 600
LAGS = {"r5": 1, "r15": 3, "r1h": 12, "r24h": 288}
KERNEL, FAST, SLOW, SIGNAL = 130, 12, 26, 9
BAND = 20
LONGEST_RUN, MARKET_HALF_LIFE, ACTIVITY_HALF_LIFE = 288, 72, 12

ROUNDED = 1e-12
"""Tolerance for rounding to twelve decimals."""

TOLERANCES = {
    **dict.fromkeys((*LAGS, "r5_median", "s", "rv15m", "rv1h", "rv4h", "rv24h", "macd", "macd_signal", "macd_hist",
                     "r5_market", "s_market", "volume_change"), f"{ROUNDED}"),
    "price": "1e-12 * r.price", "staleness_s": "1e-9",
    # The logarithm's last bit, seen through the division by s; and a price's, by the width of its band.
    "rz": f"{ROUNDED} + 1e-14 / r.s", "rz_common": f"{ROUNDED} + 1e-14 / r.least_s",
    "common_activity": f"{ROUNDED}", "rsi14": "1e-7", "bollinger_b": "1e-9 + 1e-14 / r.relative_width",
}  # fmt: skip
"""Tolerance of a double beyond 1e-9 of its value, as SQL over the recomputed row."""

EXACT = ("window_start", "price_at", "sample_count", "basket_hash", "null_reason", "available_at", "is_complete",
         "day", "hour")  # fmt: skip

LATER = ("rv15m", "rv4h", "rv24h", "s_market", "unchanged_slots")
"""Columns that version 1 did not have."""


def features_law() -> Law:
    """Law: stored features equal those recomputed from closed bars.

    Rows are expected of every active coin, in every hour that has features, scores or closed 5-minute bars, for every
    slot up to the hour's newest closed bar; those before a coin's first bar have only nulls. Later slots are due once
    the hour can have been built with all of them: none of its bars was open at that time, and it lies before the two
    hours that a refresh covers. Hours of earlier versions lack the columns that came later, and what follows from these
    is as it was then; an hour in which no three coins had a rz looks like one from before `rz_common`, and likewise for
    `common_activity`.
    """
    exact = unequal((*EXACT, "unchanged_slots"))
    earlier = unequal(LATER, right="version_1") | {
        name: f"a.{name} IS DISTINCT FROM r.{name}_1" for name in ("null_reason", "available_at")
    }
    differs = {**{name: far(name, floor) for name, floor in TOLERANCES.items()}, **exact}
    differs |= {
        name: f"CASE WHEN version_1.hour IS NULL THEN {differs[name]} ELSE {before} END"
        for name, before in earlier.items()
    }
    differs["rz_common"] = f"version_2.hour IS NULL AND ({differs['rz_common']})"
    differs["common_activity"] = f"version_3.hour IS NULL AND ({differs['common_activity']})"
    differs["null_reason"] = (
        f"({differs['null_reason']}) AND (version_2.hour IS NULL OR a.null_reason IS DISTINCT FROM r.null_reason_2)"
    )
    table, key = "features.price_features", ("coin_id", "window_end")
    due, joins = (
        "coalesce(r.is_due, false)",
        " ".join(f"LEFT JOIN version_{n} ON version_{n}.hour = a.hour" for n in (1, 2, 3)),
    )
    rows = compared(table, key, differs, "no active coin or closed slot", due=due, joins=joins)
    return Law(
        "features_are_bars_recomputed",
        "every active coin has one feature row for every closed slot, and every column follows from its bars",
        (table, "gold.bars_5m"),
        f"""
        WITH hours AS (
            SELECT hour, max(window_end) FILTER (is_closed) AS closed_until, bool_or(NOT is_closed) AS was_open
            FROM "gold.bars_5m" GROUP BY hour
        ), version_1 AS (
            SELECT hour, {", ".join(f"NULL AS {name}" for name in LATER)}
            FROM "features.price_features" GROUP BY hour HAVING count(unchanged_slots) = 0
        ), version_2 AS (
            SELECT hour FROM "features.price_features" GROUP BY hour HAVING count(rz_common) = 0
        ), version_3 AS (
            SELECT hour FROM "features.price_features" GROUP BY hour HAVING count(common_activity) = 0
        ), recomputed AS (
            SELECT a.*, a.window_end <= h.closed_until OR (NOT coalesce(h.was_open, false) AND a.hour <
                   (SELECT max(hour) - INTERVAL 1 HOUR FROM "features.price_features")) AS is_due
            FROM audit_features a LEFT JOIN hours h USING (hour)
            WHERE a.hour IN (FROM audit_feature_hours)
        )
        {rows}
        """,
        covers={table: (*key, *differs)},
        recomputed="SQL from gold.bars_5m",
        prepare=_recompute,
    )


def _recompute(evidence: Evidence) -> None:
    """Create `audit_features`, and the hours that must have them."""
    connection = evidence.connection
    connection.execute("""
        CREATE OR REPLACE TABLE audit_feature_hours AS
        SELECT DISTINCT hour FROM "features.price_features"
        UNION SELECT DISTINCT hour FROM "gold.anomalies"
        UNION SELECT DISTINCT hour FROM "gold.bars_5m" WHERE is_closed
    """)
    for query in (_PRICES, _RETURNS, _WINDOWS, _MARKET, _SCALES, _RUNS, _FEATURES):
        connection.execute(query)


_PRICES = f"""
CREATE OR REPLACE TEMP TABLE feature_prices AS
WITH bars AS (
    SELECT coin_id, window_end, close::DOUBLE AS close, last_event_at, sample_count, is_complete, available_at,
           volume_24h_usd::DOUBLE AS volume,
           INTERVAL 1 SECOND * least(2 * 300.0 / coalesce(expected_count, 1), {LONGEST_AGE_S}) AS lasts
    FROM "gold.bars_5m" WHERE is_closed AND granularity IN ('tick', '5m')
), ends AS (
    SELECT unnest(generate_series(
        least((SELECT min(window_end) FROM bars), (SELECT min(hour) + {SLOT} FROM "features.price_features")),
        greatest((SELECT max(window_end) FROM bars),
                 (SELECT time_bucket({SLOT}, covered_until - INTERVAL 60 SECONDS) FROM audit_clock)),
        {SLOT})) AS window_end
), coins AS (
    SELECT coin_id, active_from, active_to FROM audit_coins
    UNION ALL
    SELECT coin_id, NULL, NULL FROM (SELECT DISTINCT coin_id FROM "features.price_features")
    WHERE coin_id NOT IN (SELECT coin_id FROM audit_coins)
)
SELECT c.coin_id, e.window_end - {SLOT} AS window_start, e.window_end, b.sample_count, b.is_complete, b.available_at,
       b.volume, lag(b.volume) OVER slots AS volume_before,
       CASE WHEN e.window_end - b.last_event_at <= b.lasts THEN b.close
            WHEN b.close IS NULL AND e.window_end - lag(b.last_event_at) OVER slots <= lag(b.lasts) OVER slots
            THEN lag(b.close) OVER slots END AS price,
       CASE WHEN e.window_end - b.last_event_at <= b.lasts THEN b.last_event_at
            WHEN b.close IS NULL AND e.window_end - lag(b.last_event_at) OVER slots <= lag(b.lasts) OVER slots
            THEN lag(b.last_event_at) OVER slots END AS price_at
FROM coins c JOIN ends e
  ON e.window_end - {SLOT} >= coalesce(c.active_from, '-infinity')
 AND e.window_end - {SLOT} < coalesce(c.active_to, 'infinity')
LEFT JOIN bars b ON b.coin_id = c.coin_id AND b.window_end = e.window_end
WINDOW slots AS (PARTITION BY c.coin_id ORDER BY e.window_end)
"""

_RETURNS = f"""
CREATE OR REPLACE TEMP TABLE feature_returns AS
SELECT *, ln(price) AS x, price - lag(price) OVER slots AS step,
       {", ".join(f"ln(price) - lag(ln(price), {slots}) OVER slots AS {name}" for name, slots in LAGS.items())}
FROM feature_prices WINDOW slots AS (PARTITION BY coin_id ORDER BY window_end)
"""


def _weighted(column: str, n: int) -> str:
    """Mean of the kernel's slots with weights (1 - a)^k, a = 2 / (n + 1); it counts only if all are known.

    DuckDB multiplies lists even in the untaken branch of a CASE, so they are made complete.
    """
    raw = [(1 - 2 / (n + 1)) ** k for k in reversed(range(KERNEL))]
    weights = "[" + ", ".join(repr(w / sum(raw)) for w in raw) + "]::DOUBLE[]"
    return f"list_dot_product(list_resize(list(coalesce({column}, 0.0)) OVER kernel, {KERNEL}, 0.0), {weights})"


def _frame(name: str, slots: int, to: str = "CURRENT ROW") -> str:
    return f"{name} AS (PARTITION BY coin_id ORDER BY window_end ROWS BETWEEN {slots} PRECEDING AND {to})"


_WINDOWS = f"""
CREATE OR REPLACE TEMP TABLE feature_windows AS
WITH first AS (
    SELECT *, CASE WHEN count(x) OVER kernel = {KERNEL}
                   THEN {_weighted("x", FAST)} - {_weighted("x", SLOW)} END AS macd,
           CASE WHEN count(price) OVER band = {BAND} THEN avg(price) OVER band END AS mean,
           CASE WHEN count(price) OVER band = {BAND} THEN stddev_pop(price) OVER band END AS deviation,
           max(price) OVER band = min(price) OVER band AS flat,
           CASE WHEN count(r5) OVER three = 3 THEN sqrt(sum(r5 * r5) OVER three) END AS rv15m,
           CASE WHEN count(r5) OVER hour = 12 THEN sqrt(sum(r5 * r5) OVER hour) END AS rv1h,
           CASE WHEN count(r5) OVER four_hours = 48 THEN sqrt(sum(r5 * r5) OVER four_hours) END AS rv4h,
           CASE WHEN count(r5) OVER to_now >= {MAD_PRESENT} THEN sqrt(288 * avg(r5 * r5) OVER to_now) END AS rv24h,
           CASE WHEN count(step) OVER fortnight = 14 THEN sum(greatest(step, 0)) OVER fortnight END AS gain,
           CASE WHEN count(step) OVER fortnight = 14 THEN sum(abs(step)) OVER fortnight END AS moved,
           CASE WHEN count(r5) OVER past >= {MAD_PRESENT} THEN median(r5) OVER past END AS r5_median,
           CASE WHEN count(r5) OVER past >= {MAD_PRESENT}
                THEN greatest({MAD_TO_SIGMA} * mad(r5) OVER past, {SIGMA_FLOOR}) END AS s,
           max(available_at) OVER reach AS inputs_available_at,
           CASE WHEN r5 IS NOT NULL THEN max(available_at) OVER three END AS return_available_at
    FROM feature_returns
    WINDOW {_frame("kernel", KERNEL - 1)}, {_frame("band", BAND - 1)}, {_frame("hour", 11)},
           {_frame("fortnight", 13)}, {_frame("past", 288, "1 PRECEDING")}, {_frame("reach", 311)},
           {_frame("three", 2)}, {_frame("four_hours", 47)}, {_frame("to_now", 287)}
)
SELECT *, CASE WHEN count(macd) OVER kernel = {KERNEL}
               THEN {_weighted("macd", SIGNAL)} END AS macd_signal
FROM first WINDOW {_frame("kernel", KERNEL - 1)}
"""

_MARKET = """
CREATE OR REPLACE TEMP TABLE feature_market AS
SELECT m.coin_id, m.window_end, median(o.r5) AS r5_others, m.r5 - median(o.r5) AS r5_market
FROM feature_returns m JOIN feature_returns o ON o.window_end = m.window_end AND o.coin_id <> m.coin_id
WHERE m.r5 IS NOT NULL AND o.r5 IS NOT NULL
GROUP BY m.coin_id, m.window_end, m.r5 HAVING count(*) >= 2
"""

_NEWEST_FIRST = "list_resize(list_reverse(list({}) OVER past), 288, 0.0)"


def _mean_square(column: str, half_life: float) -> str:
    """EWMA of a column squared over the 288 slots before, of those that are known."""
    ages = "[" + ", ".join(repr(0.5 ** (age / half_life)) for age in range(1, 289)) + "]::DOUBLE[]"
    return (
        f"list_dot_product({_NEWEST_FIRST.format(f'coalesce({column} ** 2, 0.0)')}, {ages}) "
        f"/ list_dot_product({_NEWEST_FIRST.format(f'if({column} IS NULL, 0.0, 1.0)')}, {ages})"
    )


_SCALES = f"""
CREATE OR REPLACE TEMP TABLE feature_scales AS
WITH baskets AS (
    SELECT window_end, max(return_available_at) AS available_at,
           substr(sha256(coalesce(string_agg(coin_id, ',' ORDER BY coin_id) FILTER (r5 IS NOT NULL), '')), 1, 16)
               AS basket_hash
    FROM feature_windows GROUP BY window_end
)
SELECT coin_id, window_end, b.basket_hash, b.available_at AS basket_available_at, m.r5_market,
       max(b.available_at) OVER reach AS market_available_at,
       CASE WHEN count(m.r5_market) OVER past >= {MAD_PRESENT}
            THEN greatest({SIGMA_FLOOR}, sqrt({_mean_square("m.r5_market", MARKET_HALF_LIFE)})) END AS s_market,
       CASE WHEN count(m.r5_market) OVER past >= {MAD_PRESENT}
            THEN sqrt(greatest({SIGMA_FLOOR**2!r}, {_mean_square("m.r5_others", ACTIVITY_HALF_LIFE)})
                      / greatest({SIGMA_FLOOR**2!r}, avg(m.r5_others ** 2) OVER past)) END AS common_activity
FROM feature_windows w JOIN baskets b USING (window_end) LEFT JOIN feature_market m USING (coin_id, window_end)
WINDOW {_frame("past", 288, "1 PRECEDING")}, {_frame("reach", 288)}
"""

_RUNS = f"""
CREATE OR REPLACE TEMP TABLE feature_runs AS
WITH runs AS (
    SELECT *, count(*) FILTER (price IS NULL OR step IS DISTINCT FROM 0.0) OVER
           (PARTITION BY coin_id ORDER BY window_end) AS run
    FROM feature_returns
)
SELECT coin_id, window_end, CASE WHEN price IS NULL THEN 0 ELSE
       least({LONGEST_RUN}, row_number() OVER (PARTITION BY coin_id, run ORDER BY window_end)) END AS unchanged_slots
FROM runs
"""

_FEATURES = """
CREATE OR REPLACE TABLE audit_features AS
WITH finished AS (
    SELECT w.* EXCLUDE (sample_count, is_complete, available_at),
           epoch_us(w.window_end) / 1e6 - epoch_us(w.price_at) / 1e6 AS staleness_s,
           coalesce(w.sample_count, 0) AS sample_count, coalesce(w.is_complete, false) AS is_complete,
           (w.r5 - w.r5_median) / w.s AS rz,
           CASE WHEN w.moved = 0 THEN 50 ELSE 100 * w.gain / w.moved END AS rsi14,
           w.macd - w.macd_signal AS macd_hist,
           CASE WHEN w.flat AND w.mean IS NOT NULL THEN 0.5
                WHEN w.deviation > 0 THEN (w.price - w.mean) / (4 * w.deviation) + 0.5 END AS bollinger_b,
           CASE WHEN w.deviation > 0 THEN w.deviation / w.mean ELSE 1 END AS relative_width,
           m.r5_market, m.s_market, m.common_activity, u.unchanged_slots, m.basket_hash,
           greatest(w.inputs_available_at, m.market_available_at) AS available_at,
           greatest(w.inputs_available_at, m.basket_available_at) AS available_at_1,
           CASE WHEN w.volume > 0 AND w.volume_before > 0 THEN ln(w.volume / w.volume_before) END AS volume_change,
           date_trunc('hour', w.window_start) AS hour, w.window_start::DATE AS day
    FROM feature_windows w JOIN feature_scales m USING (coin_id, window_end)
    JOIN feature_runs u USING (coin_id, window_end)
), compared AS (
    SELECT *, min(s) OVER slot AS least_s,
           CASE WHEN rz IS NOT NULL AND count(rz) OVER slot >= 3 THEN median(rz) OVER slot END AS rz_common
    FROM finished WINDOW slot AS (PARTITION BY window_end)
), reasons AS (
    SELECT *, r5 IS NOT NULL AND r5_market IS NULL AS few_1,
        price IS NOT NULL AND (s IS NULL OR rv1h IS NULL OR rsi14 IS NULL OR macd IS NULL OR macd_signal IS NULL
                               OR bollinger_b IS NULL) AS short_1,
        CASE WHEN price IS NULL THEN 'stale_price' END AS stale,
        concat_ws(',',
            CASE WHEN price IS NOT NULL AND (r5 IS NULL OR r15 IS NULL OR r1h IS NULL OR r24h IS NULL)
                 THEN 'no_lag' END,
            CASE WHEN volume_change IS NULL THEN 'no_volume' END) AS others,
        r5 IS NOT NULL AND r5_market IS NULL OR price IS NOT NULL AND s IS NOT NULL AND s_market IS NULL AS few_2,
        nullif(concat_ws(',', nullif(others, ''),
                         CASE WHEN short_1 OR (price IS NOT NULL AND (rv4h IS NULL OR rv24h IS NULL))
                              THEN 'short_history' END, stale), '') AS rest
    FROM compared
)
SELECT *,
    nullif(concat_ws(',', CASE WHEN few_1 THEN 'few_coins' END, nullif(others, ''),
                     CASE WHEN short_1 THEN 'short_history' END, stale), '') AS null_reason_1,
    nullif(concat_ws(',', CASE WHEN few_2 THEN 'few_coins' END, rest), '') AS null_reason_2,
    nullif(concat_ws(',', CASE WHEN few_2 OR rz IS NOT NULL AND rz_common IS NULL THEN 'few_coins' END, rest), '')
        AS null_reason
FROM reasons
"""
