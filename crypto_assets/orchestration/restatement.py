"""Partitions that a late record restates: the graph's mappings, clipped to what is materialized.

Belongs here: the arithmetic over the asset graph, used by the restatement sensor and by `crypto-assets backfill
--dry-run`. Does not belong here: when it happens (`restatement_sensor`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime

import dagster as dg

from crypto_assets.assets.card import steps
from crypto_assets.contracts.slices import DAY, key_slice
from crypto_assets.contracts.tables import RAW_PRICES
from crypto_assets.dagster_private import (
    AssetGraphSubset,
    AssetGraphView,
    AssetKeyPartitionKey,
    BaseAssetGraph,
    TemporalContext,
)

ORIGIN = dg.AssetKey(["silver", "prices"])


def restated() -> list[dg.AssetKey]:
    """Assets that follow restated Silver hours, in flow order."""
    found = [dg.AssetKey(asset.split("/")) for step in steps() if step.restated for asset in step.assets]
    return [key for key in found if key != ORIGIN]


FEATURES = dg.AssetKey(["features", "price_features"])
MODELS = tuple(dg.AssetKey(asset.split("/")) for step in steps() if step.role == "train" for asset in step.assets)
"""What writes the table of promotions, which is not an asset."""


def expired(hours: Iterable[str], now: datetime) -> list[str]:
    """Hours that Bronze may no longer hold: late records are quarantined, and Silver refuses a rewrite.

    Args:
        hours: Hourly keys.
        now: Present time (UTC).
    """
    assert RAW_PRICES.retention_days is not None
    horizon = now - (RAW_PRICES.retention_days - 1) * DAY
    return sorted(h for h in hours if key_slice(h, "hour").start < horizon)


def affected(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, hours: Iterable[str], now: datetime
) -> dict[dg.AssetKey, list[str]]:
    """Materialized partitions that read the given Silver hours, by asset.

    Args:
        instance: Instance whose materialized partitions clip the answer.
        graph: Asset graph with the mappings.
        hours: Hourly keys of `silver/prices` that were touched.
        now: Time at which partitions are enumerated.

    Returns:
        Sorted partition keys by asset key, Silver included; empty when no touched hour was ever materialized.
    """
    view = graph_view(instance, graph, now)
    touched = _materialized(instance, ORIGIN) & set(hours)
    found = {ORIGIN: touched}
    for key in restated():
        parents = graph.get(key).parent_keys
        reached = {k for p, keys in found.items() if p in parents and keys for k in child_keys(view, p, keys, key)}
        found[key] = reached & _materialized(instance, key)
    return {key: sorted(keys) for key, keys in found.items() if keys}


def models_that_saw(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, partitions: Mapping[dg.AssetKey, Sequence[str]], now: datetime
) -> dict[dg.AssetKey, dict[str, int]]:
    """Count restated training hours by materialized model and day.

    Args:
        instance: Instance whose materialized partitions clip the answer.
        graph: Asset graph with the mappings.
        partitions: Restated partitions, from `affected`.
        now: Time at which partitions are enumerated.
    """
    view = graph_view(instance, graph, now)
    seen: dict[dg.AssetKey, dict[str, int]] = {}
    for model in MODELS:
        counts: Counter[str] = Counter()
        days = _materialized(instance, model)
        for hour in partitions.get(FEATURES, ()) if days else ():
            counts.update(days & child_keys(view, FEATURES, {hour}, model))
        if counts:
            seen[model] = dict(sorted(counts.items()))
    return seen


def request(graph: BaseAssetGraph, partitions: dict[dg.AssetKey, list[str]], tags: dict[str, str]) -> dg.RunRequest:
    """Request one backfill of exactly these partitions."""
    pairs = {AssetKeyPartitionKey(key, k) for key, keys in partitions.items() for k in keys}
    return dg.RunRequest.for_asset_graph_subset(
        AssetGraphSubset.from_asset_partition_set(pairs, graph, validate_time_range=False), tags=tags
    )


def _materialized(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[str]:
    return set(instance.get_materialized_partitions(key))


def graph_view(instance: dg.DagsterInstance, graph: BaseAssetGraph, now: datetime) -> AssetGraphView:
    """View of the graph that enumerates partitions at a time (UTC)."""
    context = TemporalContext(effective_dt=now, last_event_id=None)
    return AssetGraphView(temporal_context=context, instance=instance, asset_graph=graph)


def child_keys(view: AssetGraphView, parent: dg.AssetKey, keys: Set[str], child: dg.AssetKey) -> set[str]:
    """Partitions of an asset that read these of a partitioned parent."""
    definition = view.asset_graph.get(parent).partitions_def
    assert definition is not None
    subset = view.get_subset_from_partition_keys(parent, definition, set(keys))
    return set(view.compute_child_subset(child, subset).expensively_compute_partition_keys())
