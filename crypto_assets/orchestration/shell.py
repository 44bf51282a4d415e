"""The one shell around every step: a Dagster asset that calls `work` and reports its outcome.

Belongs here: turning cards and contracts into asset specs, a step's `Result` into events, and its exceptions into
outcomes. Does not belong here: which assets exist and how rows are computed (`assets`).
"""

# Dagster reads the annotations of asset functions at run time, so this module has no `annotations` future import.
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from crypto_assets.assets.card import ModelAsset, Step
from crypto_assets.checks import factories as checks
from crypto_assets.checks.rules import folded
from crypto_assets.contracts.model import Table
from crypto_assets.engine.base import (
    CheckOutcome,
    Result,
    StepFailed,
    StepInputs,
    TableResult,
    given,
)
from crypto_assets.orchestration.code_version import code_version
from crypto_assets.orchestration.partitions import mapping
from crypto_assets.storage.base import AuditFailed, SliceRefused, StorageError

REQUIRED_RESOURCES = {"engine", "step_inputs", "step_launcher"}

SLOT_ENDED = (
    dg.AutomationCondition.any_deps_updated().with_label("an input was updated").since_last_handled()
    & dg.AutomationCondition.cron_tick_passed("*/5 * * * *").with_label("a 5-minute slot ended").since_last_handled()
    & ~dg.AutomationCondition.missing().with_label("the first run was made by `demo` or `up`")
    & ~dg.AutomationCondition.any_deps_in_progress().with_label("no refresh is writing an input")
    & ~dg.AutomationCondition.in_progress().with_label("not running already")
)
"""Trigger of an asset in no job: it follows its inputs, at most once a slot."""


class StepOptions(dg.Config):
    """Launchpad options of a step; recorded in the run.

    Attributes:
        rebuild: Allow a closed slice to shrink to zero rows.
        accept_gap: Record trimmed offsets as a gap instead of failing.
        as_of: ISO time; inputs are read as they were known then.
    """

    rebuild: bool = False
    accept_gap: bool = False
    as_of: str | None = None


def code_references(work: Callable[..., object]) -> dg.CodeReferencesMetadataValue:
    """Target of the UI's *Code* link: the function that makes an asset."""
    code = work.__code__  # type: ignore[attr-defined]
    place = dg.LocalFileCodeReference(
        file_path=code.co_filename, line_number=code.co_firstlineno, label=f"{work.__module__}.{work.__qualname__}"
    )
    return dg.CodeReferencesMetadataValue(code_references=[place])


def asset_spec(
    asset: Table | ModelAsset,
    *,
    freshness: dg.FreshnessPolicy | None,
    table_uri: Callable[[str], str] | None = None,
    step: Step | None = None,
    made_by: Callable[..., object] | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
) -> dg.AssetSpec:
    """Dagster spec of a table or model: everything the UI shows before any run.

    Args:
        asset: Table or model.
        freshness: Its policy, if anything keeps it fresh.
        table_uri: Maps a table's full name to its location.
        step: Step that materializes it; None if no step does.
        made_by: Function that writes it then.
        partitions_def: Of the step.
    """
    metadata: dict[str, Any] = {}
    if isinstance(asset, Table):
        metadata = {
            **checks.column_metadata(asset),
            "dagster/table_name": asset.full_name,
            "retention": f"{asset.retention_days} days" if asset.retention_days else "for ever",
            "row_key": ", ".join(asset.key),
        }
        if table_uri is not None:
            metadata["dagster/uri"] = table_uri(asset.full_name)
    if (work := made_by if step is None else step.work) is not None:
        metadata["dagster/code_references"] = code_references(work)
    return dg.AssetSpec(
        dg.AssetKey(asset.asset_key),
        deps=[dg.AssetDep(dg.AssetKey(r.asset.split("/")), partition_mapping=mapping(r)) for r in step.reads]
        if step
        else [],
        description=asset.description,
        metadata=metadata,
        skippable=step is not None and (step.skippable or step.subset),
        group_name=asset.group,
        code_version=code_version(step, asset) if step else "1",
        owners=[asset.owner],
        kinds=set(asset.kinds),
        tags={"layer": asset.group},
        partitions_def=partitions_def,
        freshness_policy=freshness,
        automation_condition=SLOT_ENDED if step is not None and step.moved_by == "slot" else None,
    )


def _check_specs(
    step: Step, asset: Table | ModelAsset, partitions_def: dg.PartitionsDefinition | None = None
) -> list[dg.AssetCheckSpec]:
    table = asset if isinstance(asset, Table) else None
    return checks.specs(asset.asset_key, table, step.checks, partitions_def)


def build_step(
    step: Step,
    *,
    partitions_def: dg.PartitionsDefinition | None,
    freshness: dg.FreshnessPolicy | None = None,
    table_uri: Callable[[str], str] | None = None,
) -> dg.AssetsDefinition:
    """Build the Dagster assets of one step."""

    @dg.multi_asset(
        name=step.name,
        specs=[
            asset_spec(asset, freshness=freshness, table_uri=table_uri, step=step, partitions_def=partitions_def)
            for asset in step.makes
        ],
        check_specs=[spec for asset in step.makes for spec in _check_specs(step, asset, partitions_def)],
        can_subset=step.subset,
        required_resource_keys=REQUIRED_RESOURCES,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
    )
    def _asset(context: dg.AssetExecutionContext, config: StepOptions) -> Iterator[Any]:
        yield from run_step(step, context, config, partitioned=partitions_def is not None)

    return _asset


def run_step(step: Step, context: dg.AssetExecutionContext, config: StepOptions, *, partitioned: bool) -> Iterator[Any]:
    """Run a step's work within a Dagster step and yield its events.

    Raises:
        dg.Failure: An input is missing, expired or unreachable, a blocking rule failed, or a slice was refused; the
            message names it and the fix. Blocking evaluations are logged before.
    """
    keys: list[Any] = list(context.partition_keys) if partitioned else [None]
    selected = [a.full_name for a in step.makes if dg.AssetKey(a.asset_key) in context.selected_asset_keys]
    ran: dict[str, Any] = {}
    try:
        inputs: StepInputs = context.resources.step_inputs.build(
            now=datetime.now(UTC),
            run_id=context.run.run_id,
            keys=keys,
            reads_log=step.log,
            rebuild=config.rebuild,
            accept_gap=config.accept_gap,
            as_of=datetime.fromisoformat(config.as_of) if config.as_of else None,
            code_version=code_version(step, step.makes[0]),
        )
        arguments = {"tables": tuple(selected)} if step.subset else {}
        # A launched step has no launcher where its body runs; Pipes runs only the work remotely.
        launcher = context.resources.step_launcher
        if launcher is None:
            result = step.work(context.resources.engine, keys, inputs, **arguments)
        else:
            result = launcher.run(context, step.work, keys, inputs, arguments, ran)
    except AuditFailed as error:
        _log_blocking(context, step, error)
        raise dg.Failure(f"nothing was committed: {error}", ran, allow_retries=False) from error
    except (StepFailed, SliceRefused, StorageError) as error:
        raise dg.Failure(str(error), ran, allow_retries=False) from error
    facts = {"given": given(inputs.source, inputs.coins, inputs.anomaly_budget)}
    from crypto_assets.orchestration.event_log import together  # its storage takes a third of the start

    with together():
        yield from report(context, step, result, keys, facts)


def _log_blocking(context: dg.AssetExecutionContext, step: Step, error: AuditFailed) -> None:
    """Log the evaluations that stopped the write; with the failure alone the check's last state stays green."""
    for asset in step.makes:
        key = dg.AssetKey(asset.asset_key)
        if not isinstance(asset, Table) or key not in context.selected_asset_keys:
            continue
        declared, by_partition = {**checks.described(asset), **step.checks}, defaultdict(list)
        for partition, outcome in error.outcomes:  # type: ignore[misc]
            by_partition[partition].append(outcome)
        for partition, found in by_partition.items():
            for outcome in folded(asset, found):
                if outcome.name in declared:
                    _log_evaluation(context, checks.evaluation(outcome, key, partition))


def _log_evaluation(context: dg.AssetExecutionContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Store an evaluation of one partition; Dagster accepts it like an observation, but does not declare so."""
    context.log_event(evaluation)  # type: ignore[arg-type]


def report(
    context: dg.AssetExecutionContext,
    step: Step,
    result: Result,
    keys: Sequence[Any],
    facts: Mapping[str, Any] | None = None,
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Translate a `Result` into materializations and evaluations by partition, and one aggregate per check.

    Args:
        context: Context of the step.
        step: Step that ran.
        result: Its result.
        keys: Its partitions.
        facts: Metadata for every materialization.

    Yields:
        `MaterializeResult` per materialized asset; for a skipped asset only its failed checks, so that nothing counts
        as materialized.
    """
    for asset in step.makes:
        name, key = asset.full_name, dg.AssetKey(asset.asset_key)
        if key not in context.selected_asset_keys:
            continue
        declared = [s.name for s in _check_specs(step, asset)]
        if name in result.tables:
            table = result.tables[name]
            if isinstance(asset, Table):
                done = {k: replace(p, checks=folded(asset, p.checks)) for k, p in table.partitions.items()}
                table = replace(table, partitions=done)
            yield _materialized(context, key, table, keys, declared, facts or {})
        else:
            known = {**(facts or {}), "code_version": code_version(step, asset)}
            skipped = [replace(o, metadata={**o.metadata, **known}) for o in result.skipped.get(name, [])]
            yield from _aggregates(key, {None: _of_skipped(skipped, declared)}, declared)


def _of_skipped(outcomes: Sequence[CheckOutcome], declared: Sequence[str]) -> list[CheckOutcome]:
    """Check outcomes of a skipped asset: its own, and *not evaluated* for the others."""
    reasons = "; ".join(o.description for o in outcomes if not o.passed)
    skipped = {o.name for o in outcomes}
    rest = [
        CheckOutcome(name, False, f"not evaluated, nothing was materialized: {reasons}", "warn")
        for name in declared
        if reasons and name not in skipped
    ]
    return [*outcomes, *rest]


def _materialized(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    table: TableResult,
    keys: Sequence[Any],
    declared: Sequence[str],
    facts: Mapping[str, Any],
) -> dg.MaterializeResult:
    outcomes: dict[Any, Sequence[CheckOutcome]] = {k: p.checks for k, p in table.partitions.items()}
    for partition, done in table.partitions.items():
        if partition is None:
            continue
        context.add_asset_metadata(
            {"dagster/partition_row_count": done.rows, **checks.as_metadata(done.metadata)},
            key,
            partition_key=partition,
        )
        if context.has_partition_key:
            continue  # the results below are then that partition's own evaluations
        for outcome in done.checks:
            if outcome.name in declared:
                _log_evaluation(context, checks.evaluation(outcome, key, partition))
    rows = sum(p.rows for p in table.partitions.values())
    versions = [table.partitions[k].data_version for k in keys if k in table.partitions]
    metadata = {**facts, **checks.as_metadata(table.metadata), "source": context.resources.step_inputs.banner}
    if list(table.partitions) == [None]:
        metadata |= {"dagster/row_count": rows, **checks.as_metadata(table.partitions[None].metadata)}
    return dg.MaterializeResult(
        asset_key=key,
        metadata=metadata,
        data_version=dg.DataVersion(versions[0] if len(versions) == 1 else checks.coverage_version(versions)),
        check_results=list(_aggregates(key, outcomes, declared)),
    )


def _aggregates(
    key: dg.AssetKey, outcomes: Mapping[Any, Sequence[CheckOutcome]], declared: Iterable[str]
) -> Iterator[dg.AssetCheckResult]:
    """One result per declared check over all partitions; red with a message if it was not evaluated."""
    for name in declared:
        yield checks.aggregate(key, name, {p: o for p, outs in outcomes.items() for o in outs if o.name == name})
