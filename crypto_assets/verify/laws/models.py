"""Laws on references of scores and forecasts to the features and versions they were made from."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from collections.abc import Sequence

from crypto_assets.verify.laws.base import Law


def model_laws() -> list[Law]:
    """Anomalies and predictions refer to features that exist and to versions that could not have seen the slot."""
    return [
        Law(
            "anomalies_refer_rightly",
            "every anomaly has its features, and a promoted version with cut-off and start of service before its slot",
            ("gold.anomalies",),
            'SELECT count(*) FROM "gold.anomalies"',
            _references('"gold.anomalies"', "a.window_start", "'anomaly'"),
            ("features.price_features", "ml.promotions"),
            covers={"gold.anomalies": ("coin_id", "window_end", "model_version")},
            recomputed="references to features.price_features and ml.promotions",
        ),
        Law(
            "predictions_refer_rightly",
            "every forecast has its features, and a promoted version with cut-off and start of service before its slot",
            ("gold.price_predictions",),
            'SELECT count(*) FROM "gold.price_predictions"',
            _references(
                '"gold.price_predictions"', "a.window_end - INTERVAL 5 MINUTES", "'price_' || a.horizon", ["a.horizon"]
            ),
            ("features.price_features", "ml.promotions"),
            covers={"gold.price_predictions": ("coin_id", "window_end", "model_version")},
            recomputed="references to features.price_features and ml.promotions",
        ),
    ]


def _references(table: str, slot: str, model: str, also: Sequence[str] = ()) -> str:
    shown = ", ".join(["a.coin_id", "a.window_end", *also, "a.model_version"])
    return f"""
    SELECT CASE WHEN f.coin_id IS NULL THEN 'no features'
                WHEN p.version IS NULL THEN 'unknown version'
                WHEN p.decision <> 'promoted' THEN 'version was not promoted'
                WHEN p.cutoff > {slot} THEN 'cut-off after the slot'
                ELSE 'version not yet in service' END AS problem, {shown}, p.cutoff, p.effective_from
    FROM {table} a
    LEFT JOIN (SELECT DISTINCT coin_id, window_end FROM "features.price_features") f
           ON f.coin_id = a.coin_id AND f.window_end = a.window_end
    LEFT JOIN "ml.promotions" p ON p.version = a.model_version AND p.model = {model}
    WHERE f.coin_id IS NULL
       OR (p.version IS NULL AND a.model_version <> 'v0')
       OR p.decision <> 'promoted' OR p.cutoff > {slot} OR p.effective_from > {slot}
    """
