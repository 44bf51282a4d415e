"""The two Kafka topics as observed assets, and what their checks look at.

Observations and evaluations come from the producer sensor; nothing here materializes.
"""

# Dagster reads the annotations of check functions at run time, so this module has no `annotations` future import.
from collections.abc import Iterator

import dagster as dg

from crypto_assets.producer import source_health

PRICES = dg.AssetKey(["kafka", "crypto_prices_raw"])
POLLS = dg.AssetKey(["kafka", "crypto_polls"])

SOURCE_CHECKS = {
    "source_answers": "The newest poll got an answer from the source; else the named failure.",
    "quotes_move": "The newest quote is younger than its freshness bound; else it is frozen at the source.",
    "no_coin_missing": "Every active coin was in the last three polls.",
    "delivered": "Every message of the newest poll was confirmed by Kafka.",
}
"""Checks of the prices topic by name, evaluated at every producer tick that polled."""


def specs(landing: str | None = None) -> list[dg.AssetSpec]:
    """The topics as external assets. They keep their keys when records land in files instead.

    Args:
        landing: Folder of landed files, when that is the transport; it is then in the metadata.
    """
    where = {} if landing is None else {"transport": f"landing: JSON lines by date and hour below {landing}, not Kafka"}
    common = {"group_name": "ingest", "owners": ["team:ingest"], "kinds": {"kafka"}, "tags": {"layer": "ingest"}}
    return [
        dg.AssetSpec(
            PRICES,
            description="Price messages, one per coin and changed quote, keyed by coin_id. 3 partitions, 7 days. "
            "Observed by the producer sensor: offsets, messages sent, credits left.",
            metadata={"partition_key": "coin_id", "message_format": "crypto-prices-raw, version 1 (JSON)", **where},
            code_version="1",
            **common,  # type: ignore[arg-type]
        ),
        dg.AssetSpec(
            POLLS,
            description="One message per poll of the source, successful or not.",
            metadata={"message_format": "crypto-polls, version 2 (JSON)", **where},
            code_version="1",
            **common,  # type: ignore[arg-type]
        ),
    ]


def check_specs() -> list[dg.AssetCheckSpec]:
    """Checks that the producer sensor evaluates at every poll, and that a person may run from the UI."""
    return [dg.AssetCheckSpec(name, asset=PRICES, description=text) for name, text in SOURCE_CHECKS.items()] + [
        dg.AssetCheckSpec("polls_recorded", asset=POLLS, description="The newest poll was itself recorded.")
    ]


def checks() -> list[dg.AssetChecksDefinition]:
    """The topics' checks as something that can be run: they then judge the newest polls in the polls topic."""

    @dg.multi_asset_check(
        name="source_checks",
        specs=check_specs(),
        required_resource_keys={"step_inputs"},
        description="Judges the newest polls as the topic holds them.",
    )
    def source_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        found = source_health.judge_newest(context.resources.step_inputs.settings)
        for spec in check_specs():
            passed, text = found.get(spec.name, (False, "not known: no recent poll that was answered is recorded"))
            yield dg.AssetCheckResult(asset_key=spec.asset_key, check_name=spec.name, passed=passed, description=text)

    return [source_checks]
