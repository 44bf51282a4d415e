"""The two topics as assets: reported by the producer sensor; *Observe* in the UI queries the log.

Observations and evaluations come from here and from the producer sensor; no step materializes a topic.
"""

# Dagster reads the annotations of check functions at run time, so this module has no `annotations` future import.
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from crypto_assets.log.errors import LogError
from crypto_assets.market.polls import CHECKS
from crypto_assets.orchestration.shell import code_references
from crypto_assets.producer import source_health
from crypto_assets.producer.loop import Producer

PRICES = dg.AssetKey(["kafka", "crypto_prices_raw"])
POLLS = dg.AssetKey(["kafka", "crypto_polls"])

KEYS = {"prices": PRICES, "polls": POLLS}
"""Asset keys by logical topic."""


def observed(landing: str | None = None, freshness: dg.FreshnessPolicy | None = None) -> dg.AssetsDefinition:
    """The topics as observable assets; keys are the same when records land in files.

    Args:
        landing: Folder of landed files if that is the transport; shown in the metadata.
        freshness: Policy if the producer sensor runs by itself.
    """
    where: dict[str, Any] = {"dagster/code_references": code_references(Producer.tick)}
    if landing is not None:
        where["transport"] = f"landing: JSON lines by date and hour below {landing}, not Kafka"
    common: Mapping[str, Any] = {
        "group_name": "ingest",
        "owners": ["team:ingest"],
        "kinds": {"kafka"},
        "tags": {"layer": "ingest"},
        "code_version": "1",
        "freshness_policy": freshness,
    }

    @dg.multi_observable_source_asset(
        name="topics",
        specs=[
            dg.AssetSpec(
                PRICES,
                description="Price messages, one per coin and changed quote, keyed by coin_id. 3 partitions, 7 days. "
                "The producer sensor reports every poll: messages sent, quotes that did not change.",
                metadata={"partition_key": "coin_id", "message_format": "crypto-prices-raw, version 1 (JSON)", **where},
                **common,
            ),
            dg.AssetSpec(
                POLLS,
                description="One message per poll of the source, successful or not.",
                metadata={"message_format": "crypto-polls, version 2 (JSON)", **where},
                **common,
            ),
        ],
        can_subset=True,
        required_resource_keys={"step_inputs"},
    )
    def topics(context: dg.AssetExecutionContext) -> Iterator[dg.ObserveResult]:
        settings = context.resources.step_inputs.settings
        for key, topic in ((PRICES, settings.prices_topic), (POLLS, settings.polls_topic)):
            if key in context.selected_asset_keys:
                try:
                    yield dg.ObserveResult(asset_key=key, metadata=source_health.extent(settings, topic))
                except LogError as error:
                    raise dg.Failure(str(error), allow_retries=False) from error

    return topics


def check_specs() -> list[dg.AssetCheckSpec]:
    """Specs of the checks that the producer sensor evaluates at every poll and the UI can run."""
    return [dg.AssetCheckSpec(name, asset=KEYS[topic], description=text) for name, (topic, text) in CHECKS.items()]


def checks() -> list[dg.AssetChecksDefinition]:
    """Executable checks of the topics; they judge the newest polls in the polls topic."""

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
