"""The boards of the Databricks dashboard: which queries stand on which page, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable

from crypto_assets.serving import queries
from crypto_assets.serving.render import lakeview
from crypto_assets.serving.render.lakeview import EVERY, Page, Widget

PATH = "deploy/databricks/dashboards/crypto_assets.lvdash.json"
_COIN = "bitcoin"
"""A chart of prices shows one coin at first: those of others are a thousand times higher or lower."""

PAGES: tuple[Page, ...] = (
    Page(
        "prices",
        "Prices",
        (
            Widget("table", "Every coin now", queries.BOARD),
            Widget("line", "Price, 5-minute bars", queries.PRICE_LINE, ("high", "close", "low"), x="window_end"),
        ),
        {"coin": _COIN, "hours": "24"},
        whole=(queries.BOARD,),
    ),
    Page(
        "volume",
        "Volume",
        (
            Widget("line", "Rolling 24 h volume in USD", queries.VOLUME_TREND, ("volume_24h_usd",), x="window_end",
                   color="symbol"),
            Widget("table", "Volume against the same hour of the day before", queries.VOLUME_TREND),
        ),
        {"coin": EVERY, "hours": "168"},
    ),
    Page(
        "leaderboard",
        "Leaderboard",
        (
            Widget("bar", "Change over 24 h", queries.LEADERBOARD, ("change_24h",), x="symbol", width=3),
            Widget("bar", "Span between high and low of 24 h", queries.LEADERBOARD, ("range_24h",), x="symbol",
                   width=3),
            Widget("table", "Gainers and losers", queries.LEADERBOARD),
        ),
    ),
    Page(
        "anomalies",
        "Anomalies",
        (
            Widget("counter", "Flags in 24 h", queries.ANOMALY_RATE, ("flagged",), aggregate="SUM", width=2, height=3),
            Widget("bar", "Flags in 24 h per coin", queries.ANOMALY_RATE, ("flagged",), x="symbol", width=4, height=5),
            Widget("table", "Flagged slots", queries.RECENT_ANOMALIES),
            Widget("bar", "Scores", queries.SCORE_HISTOGRAM, ("slots",), x="score_from", color="model_version",
                   width=3),
            Widget("table", "Rate per coin", queries.ANOMALY_RATE, width=3),
        ),
        {"coin": EVERY, "hours": "168"},
    ),
    Page(
        "forecasts",
        "Forecasts",
        (
            Widget("line", "Forecast, 90 % interval and outcome", queries.FORECAST_FAN,
                   ("lower_90", "median", "upper_90", "outcome"), x="target_at"),
            Widget("table", "Coverage, width and Winkler score of the intervals", queries.INTERVAL_COVERAGE),
            Widget("bar", "Measured coverage of the 90 % intervals", queries.INTERVAL_COVERAGE, ("coverage_90",),
                   x="model_name", color="mode", width=3),
            Widget("line", "Winkler score of the intervals", queries.PREDICTION_ACCURACY, ("winkler_pct",), x="day",
                   color="model_name", width=3),
            Widget("line", "Skill against persistence", queries.PREDICTION_ACCURACY, ("skill",), x="day",
                   color="model_name", width=3),
            Widget("table", "Accuracy per day", queries.PREDICTION_ACCURACY),
            Widget("line", "Loss of volatility forecasts (QLIKE)", queries.VOLATILITY_ACCURACY,
                   ("qlike", "qlike_ewma", "qlike_last_value"), x="day"),
        ),
        {"coin": _COIN, "horizon": "1h", "hours": "24", "days": "7"},
    ),
    Page(
        "pipeline",
        "Pipeline",
        (
            Widget("table", "Metrics: newest measured hour and 24 h", queries.PIPELINE_HEALTH),
            Widget("table", "Firing alerts", queries.ALERTS_OPEN, width=4),
            Widget("counter", "Firing alerts", queries.ALERTS_OPEN, ("alert_id",), aggregate="COUNT", width=2,
                   height=3),
            Widget("table", "Credits of the source", queries.CREDITS_LEFT),
        ),
    ),
)  # fmt: skip


def files() -> dict[str, Callable[[], str]]:
    """Rendered files by path within a checkout."""
    return lakeview.files(PATH, PAGES)
