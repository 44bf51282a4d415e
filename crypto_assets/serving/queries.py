"""The query catalogue: every question that the API, the page, the commands and SQL dashboards ask of the lake.

Belongs here: queries, declared once, in SQL that DuckDB and Spark both run. Does not belong here: classes and binding
(`serving.query`), engines (`serving.lake`), rendering.

Times: `until` is the newest row of the table where it is not given, and `now` the newest quote, so that a replay, whose
data are of another day, gives the same answers as a live home. Intervals are written as microseconds.
"""

# ruff: noqa: S608 - nothing but constants of this module is put into SQL

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from crypto_assets.contracts.model import Column
from crypto_assets.contracts.tables import TABLES
from crypto_assets.serving.query import Parameter, Query

HOUR_US = 3_600_000_000
LATE_US = 600_000_000
"""A leaderboard whose newest bar ends longer than this before a quote says nothing about the quote."""
WINKLER = 20
"""2 / alpha of a 90 % interval: what a miss costs in the Winkler score (Winkler 1972)."""

COIN = Parameter("coin", "string", None, "Coin id; null = every coin.")
UNTIL = Parameter("until", "timestamp", None, "End (inclusive); null = the newest row.")
NOW = Parameter("now", "timestamp", None, "Time that ages are counted to; null = the newest quote.")


def _hours(default: int) -> Parameter:
    return Parameter("hours", "bigint", default, "Length of the span in hours.", minimum=1)


def _days(default: int) -> Parameter:
    return Parameter("days", "bigint", default, "Length of the span in days.", minimum=1)


def _of(table: str, *names: str) -> tuple[Column, ...]:
    """Columns of a table's contract, without lineage."""
    return tuple(replace(TABLES[table].column(name), lineage=()) for name in names)


def _c(name: str, type_: str, description: str, unit: str = "") -> Column:
    return Column(name, type_, description, unit=unit)


CLOCK = "(SELECT coalesce(:now, max(last_updated_at)) AS now_at FROM gold.latest_prices) c"


def _end(table: str, column: str) -> str:
    """The end of the span, as a relation `s` of one row."""
    return f"(SELECT coalesce(:until, max({column})) AS until_at FROM {table}) s"


def _us(column: str) -> str:
    return f"unix_micros({column})"


BOARD = Query(
    "board",
    "What every coin costs now, how it moved and how old that is, with the reason of every null.",
    f"""
SELECT p.coin_id, p.symbol, p.name, p.price_usd,
       CAST(p.change_1h_pct AS DOUBLE) AS change_1h_pct,
       CASE WHEN p.change_1h_pct IS NULL THEN concat('not reported by ', p.source) END AS change_1h_null,
       coalesce(CAST(p.change_24h_pct AS DOUBLE), 100 * l.change_24h) AS change_24h_pct,
       CASE WHEN p.change_24h_pct IS NULL AND l.change_24h IS NOT NULL THEN l.price_24h_ago_at END AS change_24h_since,
       CASE WHEN p.change_24h_pct IS NOT NULL OR l.change_24h IS NOT NULL THEN NULL
            WHEN l.coin_id IS NULL THEN concat('not reported by ', p.source, '; gold.leaderboard_24h has no row of it')
            WHEN l.is_late THEN concat('not reported by ', p.source, '; gold.leaderboard_24h is older')
            ELSE 'no bar within 10 min of 24 h ago' END AS change_24h_null,
       p.volume_24h_usd,
       CASE WHEN p.volume_24h_usd IS NULL THEN concat('not reported by ', p.source) END AS volume_24h_null,
       p.market_cap_usd,
       CASE WHEN p.market_cap_usd IS NULL THEN concat('not reported by ', p.source) END AS market_cap_null,
       p.last_updated_at,
       greatest(({_us("c.now_at")} - {_us("p.last_updated_at")}) / 1e6, 0e0) AS age_s,
       p.source
FROM gold.latest_prices p
CROSS JOIN {CLOCK}
LEFT JOIN (
  SELECT b.coin_id, {_us("b.window_end")} < {_us("q.last_updated_at")} - {LATE_US} AS is_late,
         CASE WHEN {_us("b.window_end")} >= {_us("q.last_updated_at")} - {LATE_US} THEN b.change_24h END AS change_24h,
         b.price_24h_ago_at
  FROM gold.leaderboard_24h b JOIN gold.latest_prices q ON q.coin_id = b.coin_id
) l ON l.coin_id = p.coin_id
WHERE :coin IS NULL OR p.coin_id = :coin
ORDER BY p.market_cap_usd DESC NULLS LAST, p.price_usd DESC, p.coin_id""",
    (
        *_of("gold.latest_prices", "coin_id", "symbol", "name", "price_usd"),
        _c("change_1h_pct", "double", "Change over 1 h, as the source reports it.", "percent"),
        _c("change_1h_null", "string", "Why change_1h_pct is null."),
        _c("change_24h_pct", "double", "Change over 24 h, as the source reports it, else from bars.", "percent"),
        _c(
            "change_24h_since",
            "timestamp",
            "Time of the price that bars gave for 24 h ago; null = the source's figure.",
        ),
        _c("change_24h_null", "string", "Why change_24h_pct is null."),
        *_of("gold.latest_prices", "volume_24h_usd"),
        _c("volume_24h_null", "string", "Why volume_24h_usd is null."),
        *_of("gold.latest_prices", "market_cap_usd"),
        _c("market_cap_null", "string", "Why market_cap_usd is null."),
        *_of("gold.latest_prices", "last_updated_at"),
        _c("age_s", "double", "Age of the quote at `now`.", "seconds"),
        *_of("gold.latest_prices", "source"),
    ),
    (COIN, NOW),
)

LATEST_PRICES = Query(
    "latest_prices",
    "The newest quote of every coin as the source reported it, with its age.",
    f"""
SELECT p.coin_id, p.symbol, p.name, p.price_usd, p.change_1h_pct, p.change_24h_pct, p.change_7d_pct,
       p.volume_24h_usd, p.market_cap_usd, p.last_updated_at, p.available_at,
       greatest(({_us("c.now_at")} - {_us("p.last_updated_at")}) / 1e6, 0e0) AS age_s, p.source
FROM gold.latest_prices p CROSS JOIN {CLOCK}
WHERE :coin IS NULL OR p.coin_id = :coin
ORDER BY p.coin_id""",
    (
        *_of(
            "gold.latest_prices",
            *("coin_id", "symbol", "name", "price_usd", "change_1h_pct", "change_24h_pct", "change_7d_pct"),
            *("volume_24h_usd", "market_cap_usd", "last_updated_at", "available_at"),
        ),
        _c("age_s", "double", "Age of the quote at `now`.", "seconds"),
        *_of("gold.latest_prices", "source"),
    ),
    (COIN, NOW),
)

PRICE_LINE = Query(
    "price_line",
    "The 5-minute bars of a span: its line, its candles and its holes, where windows are missing.",
    f"""
SELECT b.coin_id, b.symbol, b.window_end, b.open, b.high, b.low, b.close, b.price_avg, b.sample_count, b.is_complete
FROM gold.bars_5m b CROSS JOIN {_end("gold.bars_5m", "window_end")}
WHERE b.window_end <= s.until_at AND {_us("b.window_end")} > {_us("s.until_at")} - :hours * {HOUR_US}
  AND (:coin IS NULL OR b.coin_id = :coin)
ORDER BY b.coin_id, b.window_end""",
    _of(
        "gold.bars_5m",
        *("coin_id", "symbol", "window_end", "open", "high", "low", "close", "price_avg", "sample_count"),
        "is_complete",
    ),
    (COIN, UNTIL, _hours(24)),
)

VOLUME_TREND = Query(
    "volume_trend",
    "The rolling 24 h volume hour by hour, and against the same hour of the day before.",
    f"""
SELECT b.coin_id, b.symbol, b.window_end, b.volume_24h_usd,
       CAST(b.volume_24h_usd AS DOUBLE) / nullif(CAST(p.volume_24h_usd AS DOUBLE), 0e0) - 1 AS change_24h,
       CASE WHEN b.volume_24h_usd IS NULL THEN 'not reported by the source'
            WHEN p.coin_id IS NULL THEN 'no bar 24 h before'
            WHEN p.volume_24h_usd IS NULL THEN 'not reported by the source 24 h before'
            WHEN p.volume_24h_usd = 0 THEN 'no volume 24 h before' END AS null_reason
FROM gold.bars_1h b CROSS JOIN {_end("gold.bars_1h", "window_end")}
LEFT JOIN gold.bars_1h p ON p.coin_id = b.coin_id AND p.window_end = b.window_end - INTERVAL 24 HOURS
WHERE b.window_end <= s.until_at AND {_us("b.window_end")} > {_us("s.until_at")} - :hours * {HOUR_US}
  AND (:coin IS NULL OR b.coin_id = :coin)
ORDER BY b.coin_id, b.window_end""",
    (
        *_of("gold.bars_1h", "coin_id", "symbol", "window_end", "volume_24h_usd"),
        _c("change_24h", "double", "Volume over that of 24 h before, less 1.", "ratio"),
        _c("null_reason", "string", "Why volume or change is null."),
    ),
    (COIN, UNTIL, _hours(168)),
)

RECENT_ANOMALIES = Query(
    "recent_anomalies",
    "The newest flagged slots, with what made them stand out and what is suspicious about the data.",
    f"""
SELECT a.coin_id, a.symbol, a.window_end, a.anomaly_score, a.threshold, a.detectors, a.size_sigma, a.z_threshold,
       a.size_market_sigma, a.market_score, a.market_threshold, a.common_score, a.common_threshold, a.scope,
       a.suspicion, a.explanation,
       a.similar_windows, a.price, a.model_version, a.scored_at
FROM gold.anomalies a CROSS JOIN {_end("gold.anomalies", "window_end")}
WHERE a.is_anomaly AND a.window_end <= s.until_at
  AND {_us("a.window_end")} > {_us("s.until_at")} - :hours * {HOUR_US}
  AND (:coin IS NULL OR a.coin_id = :coin)
ORDER BY a.window_end DESC, a.anomaly_score DESC, a.coin_id""",
    _of(
        "gold.anomalies",
        *("coin_id", "symbol", "window_end", "anomaly_score", "threshold", "detectors", "size_sigma", "z_threshold"),
        *(
            "size_market_sigma",
            "market_score",
            "market_threshold",
            "common_score",
            "common_threshold",
            "scope",
            "suspicion",
            "explanation",
            "similar_windows",
        ),
        *("price", "model_version", "scored_at"),
    ),
    (COIN, UNTIL, _hours(24)),
)

ANOMALY_RATE = Query(
    "anomaly_rate_24h",
    "How many slots of the last 24 h were flagged per coin, to hold against the budget of flags a day.",
    f"""
SELECT a.coin_id, max(a.symbol) AS symbol, count(*) AS slots, count(a.anomaly_score) AS scored,
       CAST(sum(CASE WHEN a.is_anomaly THEN 1 ELSE 0 END) AS BIGINT) AS flagged,
       sum(CASE WHEN a.is_anomaly THEN 1e0 ELSE 0e0 END) / nullif(count(a.anomaly_score), 0) AS rate,
       CASE WHEN count(a.anomaly_score) = 0 THEN 'no slot had enough history for a score' END AS null_reason
FROM gold.anomalies a CROSS JOIN {_end("gold.anomalies", "window_end")}
WHERE a.window_end <= s.until_at AND {_us("a.window_end")} > {_us("s.until_at")} - 24 * {HOUR_US}
GROUP BY a.coin_id
ORDER BY a.coin_id""",
    (
        *_of("gold.anomalies", "coin_id", "symbol"),
        _c("slots", "bigint", "Slots of the 24 h."),
        _c("scored", "bigint", "Those with a score."),
        _c("flagged", "bigint", "Those flagged as anomalies."),
        _c("rate", "double", "flagged / scored.", "ratio"),
        _c("null_reason", "string", "Why the rate is null."),
    ),
    (UNTIL,),
)

SCORE_HISTOGRAM = Query(
    "score_histogram",
    "How anomaly scores are distributed per model version, and where the flags begin.",
    f"""
SELECT model_version, bucket * :width AS score_from, (bucket + 1) * :width AS score_to, count(*) AS slots,
       CAST(sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS BIGINT) AS flagged
FROM (
  SELECT a.model_version, a.is_anomaly, CAST(floor(a.anomaly_score / :width) AS DOUBLE) AS bucket
  FROM gold.anomalies a CROSS JOIN {_end("gold.anomalies", "window_end")}
  WHERE a.anomaly_score IS NOT NULL AND a.window_end <= s.until_at
    AND {_us("a.window_end")} > {_us("s.until_at")} - :hours * {HOUR_US}
    AND (:coin IS NULL OR a.coin_id = :coin)
) scores GROUP BY model_version, bucket
ORDER BY model_version, score_from""",
    (
        *_of("gold.anomalies", "model_version"),
        _c("score_from", "double", "Lower bound (inclusive) of the bucket.", "own sigma or forest"),
        _c("score_to", "double", "Upper bound (exclusive).", "own sigma or forest"),
        _c("slots", "bigint", "Scores in the bucket."),
        _c("flagged", "bigint", "Those flagged as anomalies."),
    ),
    (COIN, UNTIL, _hours(168), Parameter("width", "double", 0.5, "Width of a bucket.", minimum=1e-6)),
)

LEADERBOARD = Query(
    "leaderboard_24h",
    "Coins by their change over 24 h of bars, with the span between high and low.",
    """
SELECT rank, coin_id, symbol, price_usd, price_24h_ago_usd, price_24h_ago_at, change_24h,
       CASE WHEN change_24h IS NULL THEN 'no bar within 10 min of 24 h ago' END AS null_reason,
       high_24h, low_24h, CAST(high_24h AS DOUBLE) / CAST(low_24h AS DOUBLE) - 1 AS range_24h,
       volume_24h_usd, window_end
FROM gold.leaderboard_24h
ORDER BY rank""",
    (
        *_of(
            "gold.leaderboard_24h",
            *("rank", "coin_id", "symbol", "price_usd", "price_24h_ago_usd", "price_24h_ago_at", "change_24h"),
        ),
        _c("null_reason", "string", "Why the change is null."),
        *_of("gold.leaderboard_24h", "high_24h", "low_24h"),
        _c("range_24h", "double", "high_24h / low_24h - 1: how far the coin moved.", "ratio"),
        *_of("gold.leaderboard_24h", "volume_24h_usd", "window_end"),
    ),
)

PREDICTION_ACCURACY = Query(
    "prediction_accuracy",
    "How good the forecasts of each day were, live ones apart from backfilled ones.",
    f"""
SELECT a.day, a.coin_id, a.horizon, a.model_name, a.model_version, a.mode, a.forecasts, a.without_outcome, a.mae_pct,
       a.rmse_pct, a.skill, a.direction_hit, a.coverage_90, a.winkler_pct, a.width_pct, a.below_lower, a.below_median,
       a.below_upper
FROM gold.prediction_accuracy a CROSS JOIN {_end("gold.prediction_accuracy", "day_start")}
WHERE a.day_start <= s.until_at AND {_us("a.day_start")} > {_us("s.until_at")} - :days * {24 * HOUR_US}
  AND (:coin IS NULL OR a.coin_id = :coin)
ORDER BY a.day DESC, a.coin_id, a.horizon, a.model_version, a.mode""",
    _of(
        "gold.prediction_accuracy",
        *("day", "coin_id", "horizon", "model_name", "model_version", "mode", "forecasts", "without_outcome"),
        *("mae_pct", "rmse_pct", "skill", "direction_hit", "coverage_90", "winkler_pct", "width_pct"),
        *("below_lower", "below_median", "below_upper"),
    ),
    (COIN, UNTIL, _days(7)),
)

VOLATILITY_ACCURACY = Query(
    "volatility_accuracy",
    "How good the volatility forecasts of each day were, and what an average and the last value would have lost.",
    f"""
SELECT a.day, a.coin_id, a.horizon, a.model_name, a.model_version, a.mode, a.forecasts, a.without_outcome, a.qlike,
       a.qlike_ewma, a.qlike_last_value, a.qlike_ratio, a.volatility_pct, a.outcome_pct
FROM gold.volatility_accuracy a CROSS JOIN {_end("gold.volatility_accuracy", "day_start")}
WHERE a.day_start <= s.until_at AND {_us("a.day_start")} > {_us("s.until_at")} - :days * {24 * HOUR_US}
  AND (:coin IS NULL OR a.coin_id = :coin)
ORDER BY a.day DESC, a.coin_id, a.horizon, a.model_version, a.mode""",
    _of(
        "gold.volatility_accuracy",
        *("day", "coin_id", "horizon", "model_name", "model_version", "mode", "forecasts", "without_outcome"),
        *("qlike", "qlike_ewma", "qlike_last_value", "qlike_ratio", "volatility_pct", "outcome_pct"),
    ),
    (COIN, UNTIL, _days(7)),
)

HORIZON = Parameter("horizon", "string", "1h", "Horizon of the forecasts.", choices=("5m", "1h"))

FORECAST_FAN = Query(
    "forecast_fan",
    "Forecasts with their 90 % interval, how well such intervals have held lately, and the price that came.",
    f"""
SELECT f.coin_id, f.window_end, f.target_at, f.price, f.predicted_price, f.skill_verdict, f.lower_90, f.median,
       f.upper_90, f.coverage_7d, f.coverage_28d, f.null_reason AS coverage_null,
       CAST(b.close AS DOUBLE) AS outcome,
       CASE WHEN b.close IS NULL THEN 'no closed bar ends at the target yet' END AS outcome_null,
       f.model_name, f.model_version, f.mode
FROM gold.price_predictions f CROSS JOIN {_end("gold.price_predictions", "window_end")}
LEFT JOIN gold.bars_5m b ON b.coin_id = f.coin_id AND b.window_end = f.target_at AND b.is_closed
WHERE f.window_end <= s.until_at AND {_us("f.window_end")} > {_us("s.until_at")} - :hours * {HOUR_US}
  AND f.horizon = :horizon AND (:coin IS NULL OR f.coin_id = :coin)
ORDER BY f.coin_id, f.target_at, f.model_version""",
    (
        *_of("gold.price_predictions", "coin_id", "window_end", "target_at", "price", "predicted_price"),
        *_of(
            "gold.price_predictions", "skill_verdict", "lower_90", "median", "upper_90", "coverage_7d", "coverage_28d"
        ),
        _c("coverage_null", "string", "Why a coverage is null; null = none is, or a row of the first version."),
        _c("outcome", "double", "Close of the closed bar that ends at target_at.", "USD"),
        _c("outcome_null", "string", "Why there is no outcome."),
        *_of("gold.price_predictions", "model_name", "model_version", "mode"),
    ),
    (COIN, HORIZON, UNTIL, _hours(24)),
)

INTERVAL_COVERAGE = Query(
    "interval_coverage",
    "Whether the 90 % intervals hold 90 % of the outcomes, how wide they are, and their Winkler score.",
    f"""
SELECT horizon, model_name, model_version, mode, count(*) AS forecasts, count(outcome) AS with_outcome,
       avg(CASE WHEN outcome IS NULL THEN NULL WHEN outcome BETWEEN lower_90 AND upper_90 THEN 1e0 ELSE 0e0 END)
         AS coverage_90,
       avg(CASE WHEN outcome IS NOT NULL THEN (upper_90 - lower_90) / price * 100 END) AS width_pct,
       avg(CASE WHEN outcome IS NOT NULL THEN
             (upper_90 - lower_90 + {WINKLER} * (greatest(lower_90 - outcome, 0e0) + greatest(outcome - upper_90, 0e0)))
             / price * 100 END) AS winkler_pct,
       avg(CASE WHEN outcome IS NULL THEN NULL WHEN outcome < lower_90 THEN 1e0 ELSE 0e0 END) AS below_lower,
       avg(CASE WHEN outcome IS NULL OR median IS NULL THEN NULL WHEN outcome < median THEN 1e0 ELSE 0e0 END)
         AS below_median,
       avg(CASE WHEN outcome IS NULL THEN NULL WHEN outcome <= upper_90 THEN 1e0 ELSE 0e0 END) AS below_upper,
       CASE WHEN count(outcome) = 0 THEN 'no outcome is known yet' END AS null_reason
FROM (
  SELECT f.horizon, f.model_name, f.model_version, f.mode, f.price, f.lower_90, f.median, f.upper_90,
         CAST(b.close AS DOUBLE) AS outcome
  FROM gold.price_predictions f CROSS JOIN {_end("gold.price_predictions", "target_at")}
  LEFT JOIN gold.bars_5m b ON b.coin_id = f.coin_id AND b.window_end = f.target_at AND b.is_closed
  WHERE f.target_at <= s.until_at AND {_us("f.target_at")} > {_us("s.until_at")} - :days * {24 * HOUR_US}
    AND (:coin IS NULL OR f.coin_id = :coin)
) scored
GROUP BY horizon, model_name, model_version, mode
ORDER BY horizon, model_name, model_version, mode""",
    (
        *_of("gold.price_predictions", "horizon", "model_name", "model_version", "mode"),
        _c("forecasts", "bigint", "Forecasts whose target lies in the span."),
        _c("with_outcome", "bigint", "Those with a known outcome; the measures are over them."),
        _c("coverage_90", "double", "Share of outcomes within the interval; 0.9 is promised.", "ratio"),
        _c("width_pct", "double", "Mean width of the interval over the price.", "percent"),
        _c("winkler_pct", "double", "Mean Winkler score over the price: width plus 20 x the miss; lower is better.",
           "percent"),
        _c("below_lower", "double", "Share of outcomes below the interval; 0.05 is promised.", "ratio"),
        _c("below_median", "double", "Share of outcomes below the median; 0.5 is promised. Null without medians.",
           "ratio"),
        _c("below_upper", "double", "Share of outcomes up to the interval's upper end; 0.95 is promised.", "ratio"),
        _c("null_reason", "string", "Why the measures are null."),
    ),
    (COIN, UNTIL, _days(7)),
)  # fmt: skip

PIPELINE_HEALTH = Query(
    "pipeline_health",
    "Each of the pipeline's own metrics: its newest measured hour, and the 24 h before it.",
    f"""
SELECT metric, unit, max(CASE WHEN n = 1 AND value IS NOT NULL THEN hour END) AS hour,
       max(CASE WHEN n = 1 THEN value END) AS value,
       max(CASE WHEN n = 1 THEN measured_over END) AS measured_over,
       avg(value) AS mean_24h, max(value) AS max_24h, count(value) AS hours_measured, count(*) AS hours,
       CASE WHEN count(value) = 0 THEN 'nothing to measure in these hours' END AS null_reason
FROM (
  SELECT m.metric, m.unit, m.hour, m.value, m.measured_over,
         row_number() OVER (
           PARTITION BY m.metric ORDER BY CASE WHEN m.value IS NULL THEN 1 ELSE 0 END, m.hour DESC) AS n
  FROM ops.pipeline_metrics m CROSS JOIN {_end("ops.pipeline_metrics", "hour")}
  WHERE m.hour <= s.until_at AND {_us("m.hour")} > {_us("s.until_at")} - 24 * {HOUR_US}
) recent
GROUP BY metric, unit
ORDER BY metric""",
    (
        *_of("ops.pipeline_metrics", "metric", "unit"),
        _c("hour", "timestamp", "Newest arrival hour of the 24 h with a value."),
        _c("value", "double", "Its value."),
        *_of("ops.pipeline_metrics", "measured_over"),
        _c("mean_24h", "double", "Mean of the hourly values of the 24 h."),
        _c("max_24h", "double", "Highest of them."),
        _c("hours_measured", "bigint", "Hours with a value."),
        _c("hours", "bigint", "Hours of the 24 h that the table holds."),
        _c("null_reason", "string", "Why there is no value."),
    ),
    (UNTIL,),
)

CREDITS_LEFT = Query(
    "credits_left",
    "Credits left of the source's plan, how fast they go, and when they run out at that pace.",
    f"""
WITH clock AS (SELECT max(finished_at) AS until_at FROM ops.polls WHERE kind = 'record'),
day_of AS (
  SELECT p.source, count(*) AS polls_24h, CAST(sum(p.credits_used) AS BIGINT) AS credits_used_24h,
         max_by(p.credits_left, p.finished_at) AS credits_left, max(p.finished_at) AS polled_at
  FROM ops.polls p CROSS JOIN clock c
  WHERE p.kind = 'record' AND {_us("p.finished_at")} > {_us("c.until_at")} - 24 * {HOUR_US}
  GROUP BY p.source
)
SELECT source, polled_at, polls_24h, credits_used_24h, credits_left,
       credits_left / nullif(CAST(credits_used_24h AS DOUBLE), 0e0) AS days_left,
       CASE WHEN credits_left IS NULL THEN concat(source, ' has no metered credits')
            WHEN coalesce(credits_used_24h, 0) = 0 THEN 'no credits were used in 24 h' END AS null_reason
FROM day_of
ORDER BY source""",
    (
        *_of("ops.polls", "source"),
        _c("polled_at", "timestamp", "End of the newest poll."),
        _c("polls_24h", "bigint", "Polls of the 24 h before it."),
        _c("credits_used_24h", "bigint", "Credits that they used; null = none is metered."),
        *_of("ops.polls", "credits_left"),
        _c("days_left", "double", "credits_left over credits_used_24h: days until they are used up.", "days"),
        _c("null_reason", "string", "Why credits or days are null."),
    ),
)

ALERTS_OPEN = Query(
    "alerts_open",
    "Alerts that are firing now: those without a later recovery of their cause and partition.",
    """
WITH newest AS (
  SELECT a.*, row_number() OVER (
           PARTITION BY a.cause, coalesce(a.partition_key, '') ORDER BY a.at DESC, a.state) AS n
  FROM ops.alerts a
)
SELECT o.alert_id, o.cause, o.severity, o.asset, o.check_name, o.partition_key, o.summary, o.at, o.delivered_at,
       o.attempts, o.rule, o.coin_id, o.value
FROM newest o WHERE o.n = 1 AND o.state = 'firing'
ORDER BY o.at DESC, o.alert_id""",
    _of(
        "ops.alerts",
        *("alert_id", "cause", "severity", "asset", "check_name", "partition_key", "summary", "at", "delivered_at"),
        *("attempts", "rule", "coin_id", "value"),
    ),
)

CATALOGUE: Mapping[str, Query] = {
    query.name: query
    for query in (
        BOARD, LATEST_PRICES, PRICE_LINE, VOLUME_TREND, LEADERBOARD, RECENT_ANOMALIES, ANOMALY_RATE, SCORE_HISTOGRAM,
        FORECAST_FAN, INTERVAL_COVERAGE, PREDICTION_ACCURACY, VOLATILITY_ACCURACY, PIPELINE_HEALTH, CREDITS_LEFT,
        ALERTS_OPEN,
    )
}  # fmt: skip
"""Every query by name, in the order of `docs/querying.md`."""
