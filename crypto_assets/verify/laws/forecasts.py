"""Laws on forecasts and their accuracy."""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

from crypto_assets.verify.laws.anomalies import references
from crypto_assets.verify.laws.base import Law


def references_law() -> Law:
    """Forecasts refer to features that exist and to versions that could not have seen the slot."""
    table, slot = '"gold.price_predictions"', "a.window_end - INTERVAL 5 MINUTES"
    return Law(
        "predictions_refer_rightly",
        "every forecast has its features, and a promoted version with cut-off and start of service before its slot",
        ("gold.price_predictions",),
        f"SELECT count(*) FROM {table}",
        f"""
        {references(table, slot, "'price_' || a.horizon", ("a.horizon",))}
        UNION ALL
        SELECT 'no features', a.coin_id, a.window_end, a.horizon, a.model_version, NULL, NULL
        FROM {table} a ANTI JOIN "features.price_features" f ON f.coin_id = a.coin_id AND f.window_end = a.window_end
        """,
        ("features.price_features", "ml.promotions"),
        covers={"gold.price_predictions": ("coin_id", "window_end", "model_version")},
        recomputed="references to features.price_features and ml.promotions",
    )
