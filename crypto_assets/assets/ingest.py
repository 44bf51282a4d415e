"""The two Kafka topics as observed assets, and what their checks look at.

Observations and evaluations come from the producer sensor; nothing here materializes.
"""

from __future__ import annotations

import dagster as dg

PRICES = dg.AssetKey(["kafka", "crypto_prices_raw"])
POLLS = dg.AssetKey(["kafka", "crypto_polls"])

SOURCE_CHECKS = {
    "source_answers": "The newest poll got an answer from the source; else the named failure.",
    "quotes_move": "The newest quote is younger than its freshness bound; else it is frozen at the source.",
    "no_coin_missing": "Every active coin was in the last three polls.",
    "delivered": "Every message of the newest poll was confirmed by Kafka.",
}
"""Checks of the prices topic by name, evaluated at every producer tick that polled."""


def specs() -> list[dg.AssetSpec]:
    """The topics as external assets."""
    common = {"group_name": "ingest", "owners": ["team:ingest"], "kinds": {"kafka"}, "tags": {"layer": "ingest"}}
    return [
        dg.AssetSpec(
            PRICES,
            description="Price messages, one per coin and changed quote, keyed by coin_id. 3 partitions, 7 days. "
            "Observed by the producer sensor: offsets, messages sent, credits left.",
            metadata={"partition_key": "coin_id", "message_format": "crypto-prices-raw, version 1 (JSON)"},
            code_version="1",
            **common,  # type: ignore[arg-type]
        ),
        dg.AssetSpec(
            POLLS,
            description="One message per look of the producer at the source, successful or not.",
            metadata={"message_format": "crypto-polls, version 1 (JSON)"},
            code_version="1",
            **common,  # type: ignore[arg-type]
        ),
    ]


def check_specs() -> list[dg.AssetCheckSpec]:
    """Checks that the producer sensor evaluates."""
    return [dg.AssetCheckSpec(name, asset=PRICES, description=text) for name, text in SOURCE_CHECKS.items()] + [
        dg.AssetCheckSpec("polls_recorded", asset=POLLS, description="The newest poll was itself recorded.")
    ]
