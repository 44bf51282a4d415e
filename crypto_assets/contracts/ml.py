"""Tables of models: what they find and forecast, how well, and which version serves."""

from __future__ import annotations

from collections.abc import Callable

from crypto_assets.contracts.columns import CHAIN, ML, day, of
from crypto_assets.contracts.model import Column as C
from crypto_assets.contracts.model import Rule, Table

_bar, _feature = of("gold.bars_5m"), of("features.price_features")
_forecast, _outlook = of("gold.price_predictions"), of("gold.volatility_forecasts")
_ANOMALY_INPUTS = _feature("rz", "r15", "r1h", "rv1h", "r5_market", "s")
_ALL_INPUTS = (*_ANOMALY_INPUTS, *_feature("s_market", "rz_common", "common_activity"))


def _forecast_of(horizons: str) -> tuple[C, ...]:
    """First columns of a ledger of forecasts: of what, from when, until when."""
    return (
        C("coin_id", "string", "Coin.", nullable=False, lineage=_feature("coin_id")),
        C("window_end", "timestamp", "End of the slot from which the forecast was made.", nullable=False,
          lineage=_feature("window_end")),
        C("horizon", "string", horizons, nullable=False),
        C("target_at", "timestamp", "window_end + horizon.", nullable=False, lineage=_feature("window_end")),
    )


def _scored(ledger: Callable[..., tuple[str, ...]], horizons: str) -> tuple[C, ...]:
    """First columns of a table that scores a ledger by day; `ledger` builds lineage from its columns."""
    return (
        C("day", "date", "UTC day of the target.", nullable=False, lineage=ledger("target_at")),
        C("day_start", "timestamp", "Start of `day`.", nullable=False, lineage=ledger("target_at")),
        C("coin_id", "string", "Coin.", nullable=False, lineage=ledger("coin_id")),
        C("horizon", "string", horizons, nullable=False, lineage=ledger("horizon")),
        C("model_name", "string", "Registered model.", nullable=False, lineage=ledger("model_name")),
        C("model_version", "string", "Version.", nullable=False, lineage=ledger("model_version")),
        C("mode", "string", "live or backfill; only live counts as skill.", nullable=False, lineage=ledger("mode")),
    )


_WRITTEN = (
    C("model_name", "string", "Registered model.", nullable=False),
    C("model_version", "string", "Model version used.", nullable=False),
    C("mode", "string", "live if written before target_at, else backfill.", nullable=False,
      lineage=_feature("window_end")),
    C("predicted_at", "timestamp", "When the forecast was written.", nullable=False),
    day(_feature("day")),
    C("hour", "timestamp", "Hour of the slot's start.", nullable=False, lineage=_feature("hour")),
    *CHAIN,
)
"""Last columns of a ledger of forecasts: by which version, when, and its place in the chain."""

_HONEST = Rule("mode_is_honest", "(mode = 'live') = (predicted_at < target_at)", "live means written before the outcome.",
               blocking=True)

ANOMALIES = Table(
    "gold", "anomalies",
    "Anomaly score of every coin and closed 5-minute slot, by the model version effective at the time.",
    (
        C("coin_id", "string", "Coin.", nullable=False, lineage=_feature("coin_id")),
        C("symbol", "string", "Ticker symbol.", nullable=False),
        C("window_start", "timestamp", "Start of the slot.", nullable=False, lineage=_feature("window_start")),
        C("window_end", "timestamp", "End of the slot.", nullable=False, lineage=_feature("window_end")),
        C("anomaly_score", "double", "Score, higher = more anomalous; null if inputs are null. Of a version with several "
          "scores (algorithm union) the highest of score / threshold; else |rz| in own sigma, or the forest's score.",
          lineage=_ALL_INPUTS),
        C("threshold", "double", "Coin's threshold in that model version; 1 for several scores.", nullable=False),
        C("is_anomaly", "boolean", "Score above threshold; false if the score is null.", nullable=False,
          lineage=_ALL_INPUTS),
        C("detectors", "array<string>", "Scores above their thresholds, sorted: common, market, robust_z, isolation_forest. "
          "Null in rows from before there were several.", lineage=_ALL_INPUTS),
        C("z_threshold", "double", "Coin's threshold of |rz| (size_sigma); null if the version does not use it.",
          unit="own sigma"),
        C("market_score", "double", "|r5_market| / sqrt(s_market x max(s_market, 0.3 s)).",
          lineage=_feature("r5_market", "s_market", "s")),
        C("market_threshold", "double", "Coin's threshold of market_score; null if the version does not use it."),
        C("common_score", "double", "|rz_common| / sqrt(common_activity between 0.5 and 2): how far all coins move in the slot. |rz_common| "
          "of versions without `by_activity`; null in rows from before there was this score.",
          lineage=_feature("rz_common", "common_activity")),
        C("common_threshold", "double", "Coin's threshold of common_score; null if the version does not use it."),
        C("explanation", "string", "JSON list of the strongest features with their values, in the coin's own sigma.",
          lineage=_ANOMALY_INPUTS),
        C("size_sigma", "double", "|rz| of the slot, which is the score robust_z.", unit="own sigma",
          lineage=_feature("rz")),
        C("size_market_sigma", "double", "|r5_market| / s_market of the slot.", unit="market-relative sigma",
          lineage=_feature("r5_market", "s_market")),
        C("similar_windows", "string", "JSON list of the three nearest of the coin's 20 strongest windows before the version's "
          "cut-off: window_end, and distance of the inputs in own sigma. Null unless flagged.", lineage=_ALL_INPUTS),
        C("scope", "string", "Of a flag: coin_specific if market fired, market_wide if only common or robust_z did. Of a version "
          "with one score, or without market_score: market_wide if at least half of the other coins were flagged within "
          "5 min.", lineage=_ALL_INPUTS),
        C("suspicion", "string", "Data-quality suspicion: stale, frozen (the same price for longer than the coin's 28 days "
          "before the version's cut-off had it), single_sample, incomplete; or null.",
          lineage=_feature("price", "staleness_s", "unchanged_slots", "sample_count", "is_complete")),
        C("price", "double", "price(t).", unit="USD", lineage=_feature("price")),
        C("model_name", "string", "Registered model.", nullable=False),
        C("model_version", "string", "Model version used.", nullable=False),
        C("scored_at", "timestamp", "When the row was first scored.", nullable=False),
        C("latency_s", "double", "scored_at - window_end.", nullable=False, unit="seconds",
          lineage=_feature("window_end")),
        C("inference_ms", "double", "Time of the model call that scored the row: all coins and slots of a day, or of the "
          "part of it that the run covers. Null for rows scored before it was measured.", unit="milliseconds"),
        C("revision", "int", "0 initially; incremented when a restatement changes the row.", nullable=False),
        C("previous_is_anomaly", "boolean", "Flag before the restatement; null at revision 0."),
        day(_feature("day")),
        C("hour", "timestamp", "Hour of window_start.", nullable=False, lineage=_feature("hour")),
    ),
    key=("coin_id", "window_end"), grain="hour", write="replace_slice", time_column="hour", partition_by=("day",),
    owner=ML, group="ml", kinds=("scikitlearn", "deltalake", "gold"),
    rules=(Rule("flag_matches_score", "is_anomaly = (anomaly_score IS NOT NULL AND anomaly_score > threshold)",
                "The flag is derived from score and threshold.", blocking=True),
           Rule("score_present", "anomaly_score IS NOT NULL", "The slot could be scored.", severity="warn")),
)

_FORECAST_INPUTS = _feature("rz", "r15", "r1h", "r5_market", "macd_hist", "bollinger_b", "rsi14", "s")
_FORECAST = _feature("price") + _FORECAST_INPUTS
_WIDTH = _feature("r5", "rv15m", "rv1h", "rv4h", "rv24h")
PRICE_PREDICTIONS = Table(
    "gold", "price_predictions",
    "Insert-only forecast ledger; the rows of a coin, horizon and model form a hash chain. Live forecasts were written "
    "before their target time.",
    (
        *_forecast_of("5m or 1h."),
        C("price", "double", "price(t) the forecast starts from.", nullable=False, unit="USD",
          lineage=_feature("price")),
        C("predicted_return", "double", "Forecast of the log return.", nullable=False, unit="log return",
          lineage=_FORECAST_INPUTS),
        C("predicted_price", "double", "price x exp(predicted_return).", nullable=False, unit="USD", lineage=_FORECAST),
        C("lower_90", "double", "5 % quantile of the price.", nullable=False, unit="USD", lineage=_FORECAST + _WIDTH),
        C("upper_90", "double", "95 % quantile of the price.", nullable=False, unit="USD", lineage=_FORECAST + _WIDTH),
        C("median", "double", "Median of the price; null in rows of the first version.", unit="USD", lineage=_FORECAST + _WIDTH),
        C("tracked_lower", "double", "Log factor by which tracking has widened the lower half of the interval since it was "
          "calibrated; null in rows of the first version.", unit="log ratio", lineage=_FORECAST + _WIDTH),
        C("tracked_upper", "double", "The same of the upper half.", unit="log ratio", lineage=_FORECAST + _WIDTH),
        C("coverage_7d", "double", "Share of outcomes that intervals of this kind covered for this coin and horizon over "
          "the 7 days before the version's cut-off, none of which they had seen; null = unknown, see null_reason.",
          unit="ratio"),
        C("coverage_28d", "double", "The same over 28 days.", unit="ratio"),
        C("skill_verdict", "string", "Of predicted_price: skill, no skill, or not evaluated; null in rows of the first "
          "version."),
        C("null_reason", "string", "Why a coverage is null; null = none is, or a row of the first version."),
        *_WRITTEN,
    ),
    chain=("coin_id", "horizon", "model_name"),
    key=("coin_id", "window_end", "horizon", "model_version"), grain="hour", write="merge", time_column="hour",
    partition_by=("day",), owner=ML, group="ml", kinds=("scikitlearn", "deltalake", "gold"),
    rules=(
        Rule("interval_ordered", "lower_90 <= predicted_price AND predicted_price <= upper_90",
             "The interval contains the forecast.", blocking=True),
        Rule("median_within", "median IS NULL OR (lower_90 <= median AND median <= upper_90)",
             "The interval contains its median.", blocking=True),
        Rule("coverage_or_reason", "median IS NULL OR null_reason IS NOT NULL OR (coverage_7d IS NOT NULL AND "
             "coverage_28d IS NOT NULL)", "An unknown coverage has a reason.", blocking=True),
        _HONEST,
    ),
)

_ERROR = _forecast("price", "predicted_return") + _bar("close")
_INTERVAL = _forecast("lower_90", "upper_90", "price") + _bar("close")
PREDICTION_ACCURACY = Table(
    "gold", "prediction_accuracy",
    "Forecasts scored against outcomes, per day, coin, horizon, model version and mode.",
    (
        *_scored(_forecast, "5m or 1h."),
        C("forecasts", "bigint", "Forecasts with a known outcome.", nullable=False,
          lineage=_forecast("target_at") + _bar("close")),
        C("without_outcome", "bigint", "Forecasts whose outcome is unknown (no price at the target).", nullable=False,
          lineage=_forecast("target_at") + _bar("close")),
        C("mae_pct", "double", "Mean absolute error of the log return x 100.", unit="percent", lineage=_ERROR),
        C("rmse_pct", "double", "Root mean squared error x 100.", unit="percent", lineage=_ERROR),
        C("skill", "double", "1 - MSE / MSE of persistence; null without outcomes.", unit="ratio", lineage=_ERROR),
        C("direction_hit", "double", "Share of correct signs among non-zero forecasts and outcomes; null without any.",
          unit="ratio", lineage=_ERROR),
        C("coverage_90", "double", "Share of outcomes within the interval.", unit="ratio",
          lineage=_forecast("lower_90", "upper_90") + _bar("close")),
        C("winkler_pct", "double", "Mean interval score: width plus 20 x the miss, over the price x 100; lower is better. "
          "Null without outcomes, and in rows of the first version.", unit="percent", lineage=_INTERVAL),
        C("width_pct", "double", "Mean width of the interval over the price x 100; null as winkler_pct.", unit="percent",
          lineage=_INTERVAL),
        C("below_lower", "double", "Share of outcomes below the interval; 0.05 is promised. Null as winkler_pct.",
          unit="ratio", lineage=_INTERVAL),
        C("below_median", "double", "Share of outcomes below the median, of forecasts that have one; 0.5 is promised.",
          unit="ratio", lineage=_forecast("median") + _bar("close")),
        C("below_upper", "double", "Share of outcomes up to the interval's upper end; 0.95 is promised. Null as "
          "winkler_pct.", unit="ratio", lineage=_INTERVAL),
    ),
    key=("day", "coin_id", "horizon", "model_version", "mode"), grain="day", write="replace_slice",
    time_column="day_start", partition_by=("day",), owner=ML, group="ml", kinds=("python", "deltalake", "gold"),
    rules=(Rule("skill_at_most_one", "skill IS NULL OR skill <= 1", "Skill cannot exceed 1.", blocking=True),
           Rule("coverage_plausible", "coverage_90 IS NULL OR coverage_90 >= 5e-1",
                "A 90 % interval that covers under half of the outcomes is wrong.", severity="warn")),
)

VOLATILITY_FORECASTS = Table(
    "gold", "volatility_forecasts",
    "Insert-only ledger of volatility forecasts: 1 h ahead from every slot, 24 h ahead from each full hour. The rows of a "
    "coin, horizon and model form a hash chain. Volatility is the root of the realised variance, the sum of squared "
    "5-minute log returns over the horizon; it is not annualised.",
    (
        *_forecast_of("1h or 24h."),
        C("volatility_pct", "double", "Forecast: 100 x root of the sum of squared 5-minute log returns from window_end to "
          "target_at.", nullable=False, unit="percent", lineage=_feature("r5", "s")),
        C("ewma_pct", "double", "The same if squared returns, of 6 own sigmas at most, go on as on average lately: exponential "
          "weights over 7 days that halve in twice the horizon.", nullable=False, unit="percent",
          lineage=_feature("r5", "s")),
        C("last_value_pct", "double", "The same if the horizon before window_end repeats itself: 100 x rv1h or rv24h; null "
          "where that is unknown.", unit="percent", lineage=_feature("rv1h", "rv24h")),
        *_WRITTEN,
    ),
    chain=("coin_id", "horizon", "model_name"),
    key=("coin_id", "window_end", "horizon", "model_version"), grain="hour", write="merge", time_column="hour",
    partition_by=("day",), owner=ML, group="ml", kinds=("python", "deltalake", "gold"),
    rules=(
        Rule("volatility_positive", "volatility_pct > 0 AND ewma_pct > 0", "A volatility is positive.", blocking=True),
        _HONEST,
        Rule("near_the_average", "volatility_pct <= 1e1 * ewma_pct AND ewma_pct <= 1e1 * volatility_pct",
             "A forecast ten times the recent average, or a tenth of it, comes from inputs that no training saw.",
             severity="warn"),
    ),
)

_LOSS = _feature("rv1h", "rv24h")
VOLATILITY_ACCURACY = Table(
    "gold", "volatility_accuracy",
    "Volatility forecasts scored against the realised volatility of their horizon, per day, coin, horizon, model version and "
    "mode. Loss: QLIKE of the variances, x - ln x - 1 with x = outcome / forecast; 0 is perfect, less is better.",
    (
        *_scored(_outlook, "1h or 24h."),
        C("forecasts", "bigint", "Forecasts with a known outcome: rv1h or rv24h of the features at the target.",
          nullable=False, lineage=_outlook("target_at") + _LOSS),
        C("without_outcome", "bigint", "Forecasts whose outcome is unknown (no or too few returns in the horizon).",
          nullable=False, lineage=_outlook("target_at") + _LOSS),
        C("qlike", "double", "Mean QLIKE of the forecasts; null without outcomes.",
          lineage=_outlook("volatility_pct") + _LOSS),
        C("qlike_ewma", "double", "Of ewma_pct; null as qlike.", lineage=_outlook("ewma_pct") + _LOSS),
        C("qlike_last_value", "double", "Of last_value_pct, over the forecasts that have one; null without any.",
          lineage=_outlook("last_value_pct") + _LOSS),
        C("qlike_ratio", "double", "qlike over the lower of qlike_ewma and qlike_last_value; below 1, the model is better "
          "than both. Null without outcomes.", unit="ratio",
          lineage=_outlook("volatility_pct", "ewma_pct", "last_value_pct") + _LOSS),
        C("volatility_pct", "double", "Mean forecast, over those with an outcome.", unit="percent",
          lineage=_outlook("volatility_pct") + _LOSS),
        C("outcome_pct", "double", "Mean realised volatility.", unit="percent", lineage=_LOSS + _outlook("target_at")),
    ),
    key=("day", "coin_id", "horizon", "model_version", "mode"), grain="day", write="replace_slice",
    time_column="day_start", partition_by=("day",), owner=ML, group="ml", kinds=("python", "deltalake", "gold"),
    rules=(Rule("loss_not_negative", "(qlike IS NULL OR qlike >= 0) AND (qlike_ewma IS NULL OR qlike_ewma >= 0)",
                "QLIKE has its minimum, 0, at the outcome.", blocking=True),
           Rule("loss_plausible", "qlike IS NULL OR qlike <= 1e1",
                "Over a day, a mean loss above 10 means variances that are wrong by an order of magnitude.",
                severity="warn")),
)

_LEARNT = _ALL_INPUTS + _feature(
    *("unchanged_slots", "price", "r5", "r5_median", "rv15m", "rv4h", "rv24h", "macd_hist", "bollinger_b", "rsi14")
)
PROMOTIONS = Table(
    "ml", "promotions",
    "Promotion decisions on model versions. Scoring uses the version effective at the scored hour; the registry alias "
    "is derived from this table. Insert-only; the rows of a model form a hash chain.",
    (
        C("model", "string", "anomaly, price_5m, price_1h, volatility_1h or volatility_24h.", nullable=False),
        C("version", "string", "Registry version; v0 = baseline.", nullable=False),
        C("algorithm", "string", "Algorithm of the version.", nullable=False, lineage=_LEARNT),
        C("cutoff", "timestamp", "Training used no later data.", nullable=False),
        C("effective_from", "timestamp", "Start of service if promoted.", nullable=False),
        C("decision", "string", "promoted or rejected by the gate of a training. By a person: promoted_by_hand, which the "
          "next version that a training promotes replaces, or rolled_back, which none does.", nullable=False, lineage=_LEARNT),
        C("provisional", "boolean", "Calibrated on fewer than 28 days.", nullable=False, lineage=_LEARNT),
        C("why", "string", "Reason, with the figures compared.", nullable=False, lineage=_LEARNT),
        C("metrics", "string", "JSON of every metric compared.", nullable=False, lineage=_LEARNT),
        C("artifact_uri", "string", "Folder of the model files, relative to the home; absolute on a volume.", nullable=False),
        C("artifact_sha256", "string", "Content hash of the artifact.", nullable=False, lineage=_LEARNT),
        C("content_hash", "string", "Hash of the learnt parameters; equal data and code give an equal hash.", nullable=False,
          lineage=_LEARNT),
        C("run_id", "string", "MLflow run.", nullable=False),
        C("decided_at", "timestamp", "When the decision was made.", nullable=False),
        *CHAIN,
    ),
    chain=("model",),
    key=("model", "version", "effective_from", "decision"), grain=None, write="merge", owner=ML, group="ml",
    kinds=("python", "deltalake"),
    rules=(Rule("known_decision", "decision IN ('promoted', 'rejected', 'promoted_by_hand', 'rolled_back')",
                "There are four decisions.", blocking=True),
           Rule("serves_after_cutoff", "effective_from >= cutoff", "A version serves only after its cut-off.",
                blocking=True)),
)
