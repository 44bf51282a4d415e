"""The one shell around every step: a Dagster asset that calls `work` and reports what came of it.

Belongs here: turning contracts into asset specs, a step's `Result` into events, and its exceptions into outcomes.
Does not belong here: which assets exist (the other modules of this folder) or how rows are made (`steps`).
"""

# Dagster reads the annotations of asset functions at run time, so this module has no `annotations` future import.
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from crypto_assets.checks import factories as checks
from crypto_assets.contracts.model import Grain
from crypto_assets.contracts.tables import TABLES
from crypto_assets.engine.base import (
    CheckOutcome,
    Markdown,
    NotEnoughData,
    Result,
    StepFailed,
    StepInputs,
    TableResult,
    given,
)
from crypto_assets.storage.base import AuditFailed, SliceRefused, StorageError

REQUIRED_RESOURCES = {"engine", "step_inputs", "step_launcher"}

Work = Callable[..., Result]


class StepOptions(dg.Config):
    """What a person may set in the launchpad; recorded in the run.

    Attributes:
        rebuild: Allow a closed slice to shrink to zero rows.
        accept_gap: Record trimmed offsets as a gap instead of failing.
        as_of: ISO time; inputs are read as they were known then.
    """

    rebuild: bool = False
    accept_gap: bool = False
    as_of: str | None = None


@dataclass(frozen=True)
class Described:
    """An asset that is no table: what `Table` would have said of it."""

    asset_key: tuple[str, str]
    description: str
    owner: str
    group: str
    kinds: tuple[str, ...]
    code_version: str = "1"
    scheduled: bool = True


@dataclass(frozen=True)
class Step:
    """One launchable step and the assets it materializes.

    Args:
        name: Op name.
        work: `work(engine, keys, inputs)`, or with `tables=` when the step can materialize a subset.
        assets: Tables by full name, or `Described` assets.
        deps: Upstream of every asset of the step.
        extra_checks: Checks that the step evaluates beside the contract's: name to description.
        reads_log: Logical topic (`prices`, `polls`) whose bounds the step needs.
        grain: Partitions of the step's assets: hour, day, or None.
        subset: Whether `work` takes `tables`.
        skippable: Whether the step may end without output (too little data): only red checks, no materialization.
        automation_condition: What moves the assets, where no job does.
        pool: Concurrency pool.
    """

    name: str
    work: Work
    assets: Sequence[str | Described]
    deps: Sequence[dg.AssetDep] = ()
    grain: Grain | None = "hour"
    extra_checks: Mapping[str, str] = field(default_factory=dict)
    reads_log: str | None = None
    subset: bool = False
    skippable: bool = False
    automation_condition: dg.AutomationCondition | None = None
    pool: str | None = None


def dep(key: str, mapping: dg.PartitionMapping | None = None) -> dg.AssetDep:
    """An upstream asset by `schema/name`, with a mapping where the default one is wrong."""
    return dg.AssetDep(dg.AssetKey(key.split("/")), partition_mapping=mapping)


def _describe(asset: str | Described) -> Described:
    if isinstance(asset, Described):
        return asset
    t = TABLES[asset]
    return Described(t.asset_key, t.description, t.owner, t.group, t.kinds, t.code_version, t.scheduled)


def full_name(asset: str | Described) -> str:
    """`schema.name` of a step's asset."""
    return asset if isinstance(asset, str) else ".".join(asset.asset_key)


def freshness_policies(
    windows: Callable[[str], tuple[timedelta, timedelta]],
) -> Callable[[str], dg.FreshnessPolicy]:
    """Dagster's policy of an asset by its `schema.name`, from the ages at which it is late and stale."""

    def policy(name: str) -> dg.FreshnessPolicy:
        warn, fail = windows(name)
        return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)

    return policy


def asset_spec(
    asset: str | Described,
    *,
    deps: Sequence[dg.AssetDep],
    partitions_def: dg.PartitionsDefinition | None,
    freshness: dg.FreshnessPolicy | None,
    table_uri: Callable[[str], str] | None,
    skippable: bool = False,
    automation_condition: dg.AutomationCondition | None = None,
) -> dg.AssetSpec:
    """The Dagster spec of a table or described asset: everything the UI shows before any run."""
    about = _describe(asset)
    metadata: dict[str, Any] = {}
    if isinstance(asset, str):
        table = TABLES[asset]
        metadata = {
            **checks.column_metadata(table),
            "dagster/table_name": asset,
            "retention": f"{table.retention_days} days" if table.retention_days else "for ever",
            "row_key": ", ".join(table.key),
        }
        if table_uri is not None:
            metadata["dagster/uri"] = table_uri(asset)
    return dg.AssetSpec(
        dg.AssetKey(about.asset_key),
        deps=list(deps),
        description=about.description,
        metadata=metadata,
        skippable=skippable,
        group_name=about.group,
        code_version=about.code_version,
        owners=[about.owner],
        kinds=set(about.kinds),
        tags={"layer": about.group},
        partitions_def=partitions_def,
        freshness_policy=freshness if about.scheduled else None,
        automation_condition=automation_condition,
    )


def _check_specs(
    step: Step, asset: str | Described, partitions_def: dg.PartitionsDefinition | None = None
) -> list[dg.AssetCheckSpec]:
    return checks.specs(_describe(asset).asset_key, TABLES.get(full_name(asset)), step.extra_checks, partitions_def)


def build_step(
    step: Step,
    *,
    partitions_def: dg.PartitionsDefinition | None,
    freshness: Callable[[str], dg.FreshnessPolicy | None],
    table_uri: Callable[[str], str] | None = None,
) -> dg.AssetsDefinition:
    """Build the Dagster assets of one step."""
    skippable = step.skippable or step.subset
    specs = [
        asset_spec(
            asset,
            deps=step.deps,
            partitions_def=partitions_def,
            freshness=freshness(full_name(asset)),
            table_uri=table_uri,
            skippable=skippable,
            automation_condition=step.automation_condition,
        )
        for asset in step.assets
    ]

    @dg.multi_asset(
        name=step.name,
        specs=specs,
        check_specs=[spec for asset in step.assets for spec in _check_specs(step, asset, partitions_def)],
        can_subset=step.subset,
        required_resource_keys=REQUIRED_RESOURCES,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
        pool=step.pool,
    )
    def _asset(context: dg.AssetExecutionContext, config: StepOptions) -> Iterator[Any]:
        yield from run_step(step, context, config, partitioned=partitions_def is not None)

    return _asset


def run_step(step: Step, context: dg.AssetExecutionContext, config: StepOptions, *, partitioned: bool) -> Iterator[Any]:
    """Run a step's work within a Dagster step and yield what came of it.

    Raises:
        dg.Failure: An input is missing, expired or unreachable, a blocking rule failed, or a slice was refused; the
            message names it and the fix. Blocking evaluations are logged before.
    """
    keys: list[Any] = list(context.partition_keys) if partitioned else [None]
    selected = [
        n for n in (full_name(a) for a in step.assets) if dg.AssetKey(n.split(".")) in context.selected_asset_keys
    ]
    ran: dict[str, Any] = {}
    try:
        inputs: StepInputs = context.resources.step_inputs.build(
            now=datetime.now(UTC),
            run_id=context.run.run_id,
            keys=keys,
            reads_log=step.reads_log,
            rebuild=config.rebuild,
            accept_gap=config.accept_gap,
            as_of=datetime.fromisoformat(config.as_of) if config.as_of else None,
        )
        arguments = {"tables": tuple(selected)} if step.subset else {}
        # A launched step has no launcher any more where its body runs; only Pipes runs the work alone elsewhere.
        elsewhere = context.resources.step_launcher
        if elsewhere is None:
            result = step.work(context.resources.engine, keys, inputs, **arguments)
        else:
            result = elsewhere.run(context, step.work, keys, inputs, arguments, ran)
    except AuditFailed as error:
        _log_blocking(context, step, error)
        raise dg.Failure(f"nothing was committed: {error}", ran, allow_retries=False) from error
    except (StepFailed, SliceRefused, StorageError) as error:
        raise dg.Failure(str(error), ran, allow_retries=False) from error
    facts = {"given": given(inputs.source, inputs.coins, inputs.anomaly_budget)}
    yield from report(context, step, result, keys, facts)


def _log_blocking(context: dg.AssetExecutionContext, step: Step, error: AuditFailed) -> None:
    """Show the evaluations that stopped the write; the failure alone would leave the check's last state green."""
    for asset in step.assets:
        key = dg.AssetKey(_describe(asset).asset_key)
        table = TABLES.get(full_name(asset))
        for partition, outcome in error.outcomes:  # type: ignore[misc]
            own = table is not None and (checks.belongs(outcome, table) or outcome.name in step.extra_checks)
            if own and key in context.selected_asset_keys:
                _log_evaluation(context, checks.evaluation(outcome, key, partition))


def _log_evaluation(context: dg.AssetExecutionContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Store an evaluation of one partition: Dagster takes it as it takes observations, but does not declare that."""
    context.log_event(evaluation)  # type: ignore[arg-type]


def report(
    context: dg.AssetExecutionContext,
    step: Step,
    result: Result,
    keys: Sequence[Any],
    facts: Mapping[str, Any] | None = None,
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Translate a `Result`: one materialization event a partition, one evaluation a partition and check, one aggregate.

    Args:
        context: Of the step.
        step: What ran.
        result: What came of it.
        keys: Its partitions.
        facts: Metadata of every materialization.

    Yields:
        `MaterializeResult` per materialized asset; for a skipped asset only its failed checks, so that nothing counts
        as materialized.
    """
    for asset in step.assets:
        name, key = full_name(asset), dg.AssetKey(_describe(asset).asset_key)
        if key not in context.selected_asset_keys:
            continue
        declared = [s.name for s in _check_specs(step, asset)]
        if name in result.tables:
            yield _materialized(context, key, result.tables[name], keys, declared, facts or {})
        else:
            known = {**(facts or {}), "code_version": _describe(asset).code_version}
            said = [replace(o, metadata={**o.metadata, **known}) for o in result.skipped.get(name, [])]
            yield from _aggregates(key, {None: _of_skipped(said, declared)}, declared)


def _of_skipped(outcomes: Sequence[CheckOutcome], declared: Sequence[str]) -> list[CheckOutcome]:
    """What a skipped asset's checks say: its own outcomes, and of the others that there was nothing to evaluate."""
    reasons = "; ".join(o.description for o in outcomes if not o.passed)
    said = {o.name for o in outcomes}
    rest = [
        CheckOutcome(name, False, f"not evaluated, nothing was materialized: {reasons}", "warn")
        for name in declared
        if reasons and name not in said
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
            {"dagster/partition_row_count": done.rows, **_plain(done.metadata)}, key, partition_key=partition
        )
        if context.has_partition_key:
            continue  # the results below are then that partition's own evaluations
        for outcome in done.checks:
            if outcome.name in declared:
                _log_evaluation(context, checks.evaluation(outcome, key, partition))
    rows = sum(p.rows for p in table.partitions.values())
    versions = [table.partitions[k].data_version for k in keys if k in table.partitions]
    metadata: dict[str, Any] = {**facts, **_plain(table.metadata), "source": context.resources.step_inputs.banner}
    if list(table.partitions) == [None]:
        metadata |= {"dagster/row_count": rows, **_plain(table.partitions[None].metadata)}
    return dg.MaterializeResult(
        asset_key=key,
        metadata=metadata,
        data_version=dg.DataVersion(versions[0] if len(versions) == 1 else checks.coverage_version(versions)),
        check_results=list(_aggregates(key, outcomes, declared)),
    )


def _aggregates(
    key: dg.AssetKey, outcomes: Mapping[Any, Sequence[CheckOutcome]], declared: Iterable[str]
) -> Iterator[dg.AssetCheckResult]:
    """One result per declared check over all partitions; a check that was not evaluated is red and says so."""
    for name in declared:
        yield checks.aggregate(key, name, {p: o for p, outs in outcomes.items() for o in outs if o.name == name})


def _listed(value: Any) -> Any:
    """A container as JSON can hold it; sets in order of their text."""
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else list(value)


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata values that Dagster stores as they are; containers become JSON."""
    plain: dict[str, Any] = {}
    for name, value in metadata.items():
        if value is None:
            continue
        if isinstance(value, (Mapping, list, tuple, set, frozenset)):
            plain[name] = dg.MetadataValue.json(_listed(value))
        elif isinstance(value, Markdown):
            plain[name] = dg.MetadataValue.md(value.text)
        elif isinstance(value, datetime):
            plain[name] = value.isoformat()
        else:
            plain[name] = value
    return plain


__all__ = [
    "Described",
    "NotEnoughData",
    "Step",
    "StepOptions",
    "asset_spec",
    "build_step",
    "dep",
    "full_name",
    "report",
]
