"""Laws on forecasts and their accuracy."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.anomalies import references
from crypto_assets.verify.laws.base import Law, compared, differing, far, unequal


def references_law() -> Law:
    """Law: forecasts refer to existing features and to versions that could not have seen the slot."""
    table, slot = '"gold.price_predictions"', "a.window_end - INTERVAL 5 MINUTES"
    return Law(
        "predictions_refer_rightly",
        "every forecast has its features, and a promoted version with cut-off and start of service before its slot",
        ("gold.price_predictions",),
        f"""
        {references(table, slot, "'price_' || a.horizon", ("a.horizon",))}
        UNION ALL
        SELECT 'no features', a.coin_id, a.window_end, a.horizon, a.model_version, NULL, NULL
        FROM {table} a ANTI JOIN "features.price_features" f ON f.coin_id = a.coin_id AND f.window_end = a.window_end
        """,
        covers={"gold.price_predictions": ("coin_id", "window_end", "model_version")},
        recomputed="references to features.price_features and ml.promotions",
    )


_SLOTS = "CASE p.horizon WHEN '5m' THEN 1 WHEN '1h' THEN 12 END"
_VALUES = {
    "target_at": f"p.target_at IS DISTINCT FROM p.window_end + ({_SLOTS}) * INTERVAL 5 MINUTES",
    "predicted_price": "abs(p.predicted_price - p.price * exp(p.predicted_return)) > 1e-9 * p.price",
    "lower_90": "p.lower_90 > p.predicted_price",
    "upper_90": "p.upper_90 < p.predicted_price",
    "median": "p.median NOT BETWEEN p.lower_90 AND p.upper_90",
    "coverage_7d": "p.coverage_7d NOT BETWEEN 0 AND 1",
    "coverage_28d": "p.coverage_28d NOT BETWEEN 0 AND 1",
    "skill_verdict": "p.skill_verdict NOT IN ('skill', 'no skill', 'not evaluated') OR "
                     "(p.skill_verdict <> 'skill' AND p.predicted_return <> 0)",
    "null_reason": "p.median IS NOT NULL AND "
                   "(p.null_reason IS NULL) <> (p.coverage_7d IS NOT NULL AND p.coverage_28d IS NOT NULL)",
    # Rows of the first version have none of what the second added.
    "tracked_lower": "(p.tracked_lower IS NULL) <> (p.median IS NULL)",
    "tracked_upper": "(p.tracked_upper IS NULL) <> (p.median IS NULL)",
    "model_name": "p.model_name <> 'price_' || p.horizon",
    "mode": "p.mode <> CASE WHEN p.predicted_at < p.target_at THEN 'live' ELSE 'backfill' END",
    "day": "p.day <> (p.window_end - INTERVAL 5 MINUTES)::DATE",
    "hour": "p.hour <> date_trunc('hour', p.window_end - INTERVAL 5 MINUTES)",
    "interval": f"f.price = p.price AND v.half IS NOT NULL AND (p.predicted_return <> 0 OR greatest("
                f"abs(ln(p.upper_90 / p.price) - v.half * f.s * sqrt({_SLOTS})), "
                f"abs(ln(p.price / p.lower_90) - v.half * f.s * sqrt({_SLOTS}))) > 1e-9)",
}  # fmt: skip
"""Condition of a difference by column: `p` the forecast, `f` its features, `v` the half width of a baseline's interval
in own sigmas."""


def values_law() -> Law:
    """Law: forecasts follow from row, features and baseline, as far as those determine them."""
    differs = differing(_VALUES)
    return Law(
        "predictions_are_consistent",
        "times, prices and mode of a forecast agree, the baseline's intervals follow from features, and every scored "
        "slot with price and scale has a forecast of each horizon",
        ("gold.price_predictions",),
        f"""
        WITH baselines AS (
            SELECT DISTINCT model, version, (metrics ->> '$.interval_sigma')::DOUBLE AS half FROM "ml.promotions"
            WHERE artifact_uri = 'builtin:v0'
        ), judged AS (
            SELECT p.coin_id, p.window_end, p.horizon, p.model_version, {differs} AS differs
            FROM "gold.price_predictions" p
            LEFT JOIN "features.price_features" f ON f.coin_id = p.coin_id AND f.window_end = p.window_end
            LEFT JOIN baselines v ON v.model = p.model_name AND v.version = p.model_version
        )
        SELECT 'differs' AS problem, coin_id, window_end, horizon, trim(differs) AS columns FROM judged
        WHERE differs <> ''
        UNION ALL
        SELECT 'missing', a.coin_id, a.window_end, h.horizon, ''
        FROM "gold.anomalies" a JOIN "features.price_features" f USING (coin_id, window_end)
        CROSS JOIN (VALUES ('5m'), ('1h')) h(horizon)
        WHERE a.revision = 0 AND f.price IS NOT NULL AND f.s IS NOT NULL
          AND NOT EXISTS (FROM "gold.price_predictions" p WHERE p.coin_id = a.coin_id AND p.window_end = a.window_end
                          AND p.horizon = h.horizon)
        """,
        covers={"gold.price_predictions": tuple(c for c in _VALUES if c not in ("interval", "lower_90", "upper_90"))},
        recomputed="SQL from features.price_features and ml.promotions",
    )


_OF_INTERVALS = ("winkler_pct", "width_pct", "below_lower", "below_median", "below_upper")


def accuracy_law() -> Law:
    """Law: accuracy equals the forecasts of a day compared with the actual closes.

    A target on midnight belongs to the day that ends there. Rows are expected of every day that has accuracy, or day
    bars, which the same job writes.
    """
    table, key = "gold.prediction_accuracy", ("day", "coin_id", "horizon", "model_version", "mode")
    differs = {
        **unequal(("day_start", "model_name", "forecasts", "without_outcome")),
        **{n: far(n, "1e-9") for n in ("mae_pct", "rmse_pct", "skill", "direction_hit", "coverage_90")},
    }
    # Days scored by the first version have none of these.
    earlier = " AND ".join(f"a.{n} IS NULL" for n in _OF_INTERVALS)
    differs |= {n: f"NOT ({earlier}) AND ({far(n, '1e-9')})" for n in _OF_INTERVALS}
    judged = "coalesce(a.day, r.day) IN (FROM days)"
    return Law(
        "accuracy_is_forecasts_scored",
        "every figure of accuracy follows from the forecasts and the closes of 5-minute bars",
        (table,),
        f"""
        WITH outcomes AS (
            SELECT (p.target_at - INTERVAL 1 MICROSECOND)::DATE AS day, p.* EXCLUDE (day),
                   ln(b.close::DOUBLE / p.price) AS came, b.close::DOUBLE AS close,
                   b.close::DOUBLE BETWEEN p.lower_90 AND p.upper_90 AS inside
            FROM "gold.price_predictions" p LEFT JOIN "gold.bars_5m" b
              ON b.coin_id = p.coin_id AND b.window_end = p.target_at AND b.is_closed
        ), recomputed AS (
            SELECT day, day::TIMESTAMP AT TIME ZONE 'UTC' AS day_start, coin_id, horizon, model_name, model_version,
                   mode,
                   count(came) AS forecasts, count(*) - count(came) AS without_outcome,
                   avg(abs(came - predicted_return)) * 100 AS mae_pct,
                   sqrt(avg((came - predicted_return) ^ 2)) * 100 AS rmse_pct,
                   1 - sum((came - predicted_return) ^ 2) / nullif(sum(CASE WHEN came IS NOT NULL THEN came ^ 2 END), 0)
                       AS skill,
                   avg(CASE WHEN came <> 0 AND predicted_return <> 0
                            THEN ((came > 0) = (predicted_return > 0))::INTEGER END) AS direction_hit,
                   avg(CASE WHEN came IS NOT NULL THEN inside::INTEGER END) AS coverage_90,
                   100 * avg(CASE WHEN close IS NOT NULL THEN (upper_90 - lower_90 + 20 * greatest(
                             lower_90 - close, close - upper_90, 0)) / price END) AS winkler_pct,
                   100 * avg(CASE WHEN close IS NOT NULL THEN (upper_90 - lower_90) / price END) AS width_pct,
                   avg((close < lower_90)::INTEGER) AS below_lower,
                   avg((close < median)::INTEGER) AS below_median,
                   avg((close <= upper_90)::INTEGER) AS below_upper
            FROM outcomes GROUP BY ALL
        ), days AS (
            SELECT day FROM "gold.prediction_accuracy" UNION SELECT day FROM "gold.bars_1d"
        )
        {compared(table, key, differs, "no such forecasts", judged=judged)}
        """,
        covers={table: (*key, *differs)},
        recomputed="SQL from gold.price_predictions and gold.bars_5m",
    )
