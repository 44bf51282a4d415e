"""Which law judges which column, and why some are judged by none: no column is left out unseen.

Belongs here: the list of all laws, and reasons for unjudged columns. Does not belong here: any law.
"""

from __future__ import annotations

from collections.abc import Mapping

from crypto_assets.contracts.tables import TABLES
from crypto_assets.verify.laws import (
    anomalies,
    bars,
    dims,
    features,
    files,
    forecasts,
    history,
    intervals,
    ledgers,
    log,
    operations,
    polls,
    presence,
    promotions,
    serving,
    silver,
    volatility,
)  # fmt: skip
from crypto_assets.verify.laws.base import LOG_TABLES, Law

_CLOCK = "the writer's own clock, which nothing else saw"

UNJUDGED: Mapping[str, Mapping[str, str]] = {
    "bronze.raw_prices": {
        "batch_id": "random; only that a batch has one is judged", "bronze_ingested_at": _CLOCK,
    },
    "silver.quarantine": {"detail": "text for people; the reasons are judged"},
    "gold.latest_prices": {"refreshed_at": _CLOCK},
    "gold.anomalies": dict.fromkeys(
        ("revision", "previous_is_anomaly"), "only the writer saw the row before; judged is that revision 0 has none"
    ),
    "ops.polls": {
        "batch_id": "random; only that a batch has one is judged", "bronze_ingested_at": _CLOCK,
    },
    "ops.alerts": {
        **dict.fromkeys(("severity", "summary"), "text and grade of its moment; the commit's mark is judged"),
        "value": "an expression of the rules file gave it; judged is that it belongs to a firing rule",
    },
}  # fmt: skip
"""Reason by column and table."""


def all_laws() -> list[Law]:
    """Every law on tables, in order of judgement; those on topics are judged as the log is read."""
    return [
        presence.presence_law(),
        files.files_law(),
        files.commits_law(),
        *(law for table in LOG_TABLES for law in log.log_laws(table)),
        *(log.topic_law(table) for table in LOG_TABLES),
        *silver.silver_laws(),
        history.history_law(),
        *(bars.bars_law(width) for width in bars.BAR_WIDTHS),
        serving.latest_law(),
        serving.coverage_law(),
        serving.leaderboard_law(),
        dims.coins_law(),
        dims.coin_spans_law(),
        dims.dates_law(),
        features.features_law(),
        anomalies.references_law(),
        anomalies.anomalies_law(),
        forecasts.references_law(),
        forecasts.values_law(),
        intervals.intervals_law(),
        forecasts.accuracy_law(),
        volatility.references_law(),
        volatility.values_law(),
        volatility.accuracy_law(),
        *(ledgers.chain_law(table) for table in ledgers.LEDGERS),
        promotions.promotions_law(),
        polls.polls_law(),
        operations.metrics_law(),
        operations.alert_identity_law(),
        operations.alert_transitions_law(),
    ]


def gaps() -> list[str]:
    """Columns of the contracts without law or reason, and reasons without need."""
    judged: dict[str, set[str]] = {}
    for law in all_laws():
        for table, columns in law.covers.items():
            judged.setdefault(table, set()).update(columns)
    found = []
    for name in sorted({*TABLES, *judged, *UNJUDGED}):
        columns = set(TABLES[name].column_names) if name in TABLES else set()
        mine, excused = judged.get(name, set()), set(UNJUDGED.get(name, {}))
        found += [f"{name}.{c} is judged by no law" for c in sorted(columns - mine - excused)]
        found += [f"{name}.{c} is judged and excused" for c in sorted(mine & excused)]
        found += [f"{name}.{c} is in no contract" for c in sorted((mine | excused) - columns)]
    return found
