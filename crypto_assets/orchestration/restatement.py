"""Partitions that a late record restates: the graph's mappings, clipped to what is materialized.

Belongs here: the arithmetic over the asset graph, used by the restatement sensor and by `crypto-assets backfill
--dry-run`. Does not belong here: when it happens (`restatement_sensor`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
MODELS = (dg.AssetKey(["ml", "anomaly_model"]), dg.AssetKey(["ml", "price_model"]))


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
    view = AssetGraphView(
        temporal_context=TemporalContext(effective_dt=now, last_event_id=None), instance=instance, asset_graph=graph
    )
    touched = _materialized(instance, ORIGIN) & set(hours)
    found = {ORIGIN: touched}
    subsets = {ORIGIN: _subset(view, graph, ORIGIN, touched)} if touched else {}
    for key in restated():
        reached: set[str] = set()
        for parent, subset in subsets.items():
            if parent in graph.get(key).parent_keys:
                reached |= set(view.compute_child_subset(key, subset).expensively_compute_partition_keys())
        reached &= _materialized(instance, key)
        if reached:
            found[key] = reached
            subsets[key] = _subset(view, graph, key, reached)
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
    view = AssetGraphView(
        temporal_context=TemporalContext(effective_dt=now, last_event_id=None), instance=instance, asset_graph=graph
    )
    seen: dict[dg.AssetKey, dict[str, int]] = {}
    for model in MODELS:
        counts: Counter[str] = Counter()
        days = _materialized(instance, model)
        for hour in partitions.get(FEATURES, ()) if days else ():
            children = view.compute_child_subset(model, _subset(view, graph, FEATURES, {hour}))
            counts.update(days & set(children.expensively_compute_partition_keys()))
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


def _subset(view: AssetGraphView, graph: BaseAssetGraph, key: dg.AssetKey, keys: set[str]):
    definition = graph.get(key).partitions_def
    assert definition is not None
    return view.get_subset_from_partition_keys(key, definition, keys)
