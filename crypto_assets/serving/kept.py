"""Which tables the service holds in memory, in what order, and for how long back.

Belongs here: the declaration. Does not belong here: reading and encoding (`held`), noticing commits (`follow`).
"""

from __future__ import annotations

from dataclasses import dataclass

from crypto_assets.contracts import tables as t
from crypto_assets.contracts.model import Column, Table

JSON_TEXT = {
    "gold.anomalies": ("explanation", "similar_windows"),
    "gold.latest_prices": ("covered_offsets",),
    "ml.promotions": ("metrics",),
}
"""Text columns that hold JSON: an answer embeds the value, not its text."""


@dataclass(frozen=True)
class Kept:
    """One table as it is held.

    Args:
        table: Its contract.
        order: Column by which rows are sorted within a group: a timestamp, a date or an integer.
        event: Timestamp of what a row describes, from which the age of the data is measured; None = no age.
        group: Column by which rows are looked up; None = one group with the empty name.
        hot_days: Days, counted from the newest with rows, whose rows stay in memory; None = all.
        known_at: Timestamp of when the row was first there, for times whose files are gone; None = cannot be known.
        newest_only: Only the newest Delta partition, an hour, is held at all.
        names: Columns of an answer's rows; None = all but those by which the table is stored.
    """

    table: Table
    order: str
    event: str | None = None
    group: str | None = "coin_id"
    hot_days: int | None = None
    known_at: str | None = None
    newest_only: bool = False
    names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Full name of the table."""
        return self.table.full_name

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of an answer's rows."""
        if self.names is not None:
            return tuple(self.table.column(name) for name in self.names)
        storage = {*self.table.partition_by, *self.table.chain_columns, self.table.time_column} - set(self.table.key)
        return tuple(c for c in self.table.columns if c.name not in storage)


def _bars(table: Table, hot_days: int | None) -> Kept:
    return Kept(table, "window_start", "last_event_at", hot_days=hot_days, known_at="available_at")


BARS = {
    "1m": _bars(t.BARS_1M, 2),
    "5m": _bars(t.BARS_5M, 14),
    "1h": _bars(t.BARS_1H, 180),
    "1d": _bars(t.BARS_1D, None),
}
"""Bars by interval."""

LATEST = Kept(t.LATEST_PRICES, "last_updated_at", "last_updated_at")
LEADERBOARD = Kept(t.LEADERBOARD, "rank", "window_end", group=None)
ANOMALIES = Kept(t.ANOMALIES, "window_end", "window_end", hot_days=7, known_at="scored_at")
PREDICTIONS = Kept(t.PRICE_PREDICTIONS, "window_end", "window_end", hot_days=3, known_at="predicted_at")
ACCURACY = Kept(t.PREDICTION_ACCURACY, "day_start", "day_start")
VOLATILITY = Kept(t.VOLATILITY_FORECASTS, "window_end", "window_end", hot_days=3, known_at="predicted_at")
VOLATILITY_ACCURACY = Kept(t.VOLATILITY_ACCURACY, "day_start", "day_start")
FEATURES = Kept(t.PRICE_FEATURES, "window_end", "window_end", hot_days=2, known_at="available_at")
PROMOTIONS = Kept(t.PROMOTIONS, "effective_from", group="model", known_at="decided_at")
METRICS = Kept(t.PIPELINE_METRICS, "hour", "hour", group="metric", hot_days=7)
ALERTS = Kept(t.ALERTS, "at", "at", group=None, known_at="at")
POLLS = Kept(
    t.POLLS,
    "kafka_timestamp",
    group=None,
    newest_only=True,
    names=(
        "started_at",
        "finished_at",
        "outcome",
        "coins_asked",
        "coins_returned",
        "coins_missing",
        "latency_ms",
        "cadence_s",
        "credits_used",
        "credits_left",
    ),
)

KEPT: dict[str, Kept] = {
    k.name: k
    for k in (
        LATEST, LEADERBOARD, *BARS.values(), ANOMALIES, PREDICTIONS, ACCURACY, VOLATILITY, VOLATILITY_ACCURACY,
        PROMOTIONS, METRICS, ALERTS, POLLS, FEATURES,
    )
}  # fmt: skip
"""Every held table, those first that a page asks for first."""
