"""Contracts as Dagster asset checks: specs, evaluations, aggregates, and a table's metadata in the UI.

Belongs here: translating contracts and outcomes into Dagster's classes. Does not belong here: evaluating anything
(`checks.rules`), or deciding what a red check stops (the steps audit before they write).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from crypto_assets.checks.rules import CONTRACT, parts
from crypto_assets.contracts import render
from crypto_assets.contracts.model import Rule, Table
from crypto_assets.contracts.slices import key_spans
from crypto_assets.engine.base import CheckOutcome, Markdown

HAS_ROWS = "has_rows"
NAMED = 10
"""Maximum number of failing partition runs that an aggregate names; all are counted."""


def described(table: Table) -> dict[str, str]:
    """Descriptions of a table's checks, by name: its blocking rules as one, and each that only warns.

    Partitioned tables have `has_rows`; an unpartitioned one may rightly be empty.
    """
    found: dict[str, str] = {}
    if table.grain is not None:
        found[HAS_ROWS] = f"The {table.grain} has rows; an empty one is recorded, and red with the reason."
    required = ", ".join(c.name for c in table.columns if not c.nullable)
    blocking = [
        f"`not_null`: no null in {required}.",
        f"`unique_key`: no two rows share ({', '.join(table.key)}).",
        *(f"`{rule.name}`: {_text(rule)}" for rule in table.rules if rule.blocking),
    ]
    found[CONTRACT] = "All rules without which nothing is written. " + " ".join(blocking)
    found |= {rule.name: _text(rule) for rule in table.rules if not rule.blocking}
    return found


def _text(rule: Rule) -> str:
    return f"{rule.description} A good row fulfils: {rule.sql}"


def specs(
    asset_key: Sequence[str],
    table: Table | None,
    extra: Mapping[str, str] | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
) -> list[dg.AssetCheckSpec]:
    """Check specs of one asset.

    Args:
        asset_key: Path of the asset's key.
        table: Contract, or None for a model, which has only the extra checks.
        extra: Checks that the step evaluates beside the contract's, name to description.
        partitions_def: Partitions of the asset: a run of one partition then evaluates that partition's checks.

    Returns:
        Specs in display order. `blocking` tells the UI which ones stop a write; the stop itself is the audit of the
        staged rows, because Dagster's flag does not reach other runs.

    Raises:
        ValueError: An extra check has the name of one of the contract's.
    """
    key = dg.AssetKey(list(asset_key))
    own = described(table) if table is not None else {}
    both = sorted({*own, *(parts(table) if table is not None else ())} & set(extra or {}))
    if both:
        raise ValueError(f"extra check(s) {both} of {key.to_user_string()} have names of the contract's own checks")
    return [
        dg.AssetCheckSpec(
            name,
            asset=key,
            description=text,
            blocking=name == CONTRACT,
            metadata={"severity": _severity(table, name)} if name in own else None,
            partitions_def=partitions_def,
        )
        for name, text in {**own, **(extra or {})}.items()
    ]


def evaluation(outcome: CheckOutcome, asset_key: dg.AssetKey, partition: str | None) -> dg.AssetCheckEvaluation:
    """An outcome as the event that Dagster stores and shows per partition."""
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=outcome.name,
        passed=outcome.passed,
        severity=_dagster_severity(outcome),
        description=outcome.description or None,
        metadata=as_metadata(outcome.metadata),
        blocking=bool(outcome.metadata.get("blocking")),
        partition=partition,
    )


def aggregate(asset_key: dg.AssetKey, name: str, outcomes: Mapping[str | None, CheckOutcome]) -> dg.AssetCheckResult:
    """One result of a check over all partitions of a run, naming the failing ones.

    The severity is that of the worst failure. A declared check that was not evaluated is red, since otherwise it could
    never fail.
    """
    if not outcomes:
        return dg.AssetCheckResult(
            asset_key=asset_key, check_name=name, passed=False, description="this run did not evaluate the check"
        )
    if list(outcomes) == [None]:
        only = outcomes[None]
        return dg.AssetCheckResult(
            asset_key=asset_key,
            check_name=name,
            passed=only.passed,
            severity=_dagster_severity(only),
            description=only.description or None,
            metadata=as_metadata(only.metadata),
        )
    red = {str(key): o for key, o in outcomes.items() if not o.passed}
    metadata: dict[str, Any] = {"partitions": len(outcomes), "failing_partitions": len(red)}
    for count in ("violations", "rows"):
        if all(count in o.metadata for o in outcomes.values()):
            metadata[count] = sum(o.metadata[count] for o in outcomes.values())
    if not red:
        message = (
            next(iter(outcomes.values())).description if len(outcomes) == 1 else f"holds in {len(outcomes)} partitions"
        )
    else:
        shown = sorted(red)[:NAMED]
        spans = key_spans(red)
        more = f" and {len(spans) - NAMED} more" if len(spans) > NAMED else ""
        where = f"{', '.join(spans[:NAMED])}{more}"
        message = f"red in {len(red)} of {len(outcomes)} partitions: {where}. {red[shown[0]].description}"
        metadata["failing"] = dg.MetadataValue.json({key: red[key].description for key in shown})
    worst_is_error = any(o.severity == "error" for o in red.values())
    severity = dg.AssetCheckSeverity.ERROR if worst_is_error or not red else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        asset_key=asset_key, check_name=name, passed=not red, severity=severity, description=message, metadata=metadata
    )


def coverage_version(versions: Sequence[str]) -> str:
    """Data version of a run over several partitions: a digest of theirs, in key order."""
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:32]


def column_metadata(table: Table) -> dict[str, Any]:
    """Column schema and lineage of a table as Dagster metadata, the lineage also as markdown."""
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn(
                c.name,
                type=c.type,
                description=f"{c.description} [{c.unit}]" if c.unit else c.description,
                constraints=dg.TableColumnConstraints(nullable=c.nullable, unique=table.key == (c.name,)),
            )
            for c in table.columns
        ],
        constraints=dg.TableConstraints(other=[f"{rule.name}: {rule.sql}" for rule in table.rules]),
    )
    metadata: dict[str, Any] = {"dagster/column_schema": schema}
    lineage = {
        c.name: [dg.TableColumnDep(asset_key=dg.AssetKey(key), column_name=column) for *key, column in named]
        for c in table.columns
        if (named := [text.split(".") for text in c.lineage])
    }
    if lineage:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(lineage)
        metadata["column_lineage_table"] = dg.MetadataValue.md(render.lineage_markdown(table))
    return metadata


def _severity(table: Table | None, name: str) -> str:
    if name == HAS_ROWS:
        return "warn"
    rules = table.rules if table is not None else ()
    return next((rule.severity for rule in rules if rule.name == name), "error")


def _dagster_severity(outcome: CheckOutcome) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.WARN if outcome.severity == "warn" else dg.AssetCheckSeverity.ERROR


def as_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values in types that Dagster stores: numbers, booleans and text unchanged, containers as JSON, the rest as text.

    Absent values are left out, and `blocking`, which an evaluation has as a field.
    """
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or name == "blocking":
            continue
        if isinstance(value, Mapping):
            plain[name] = dg.MetadataValue.json({str(k): v for k, v in value.items()})
        elif isinstance(value, (list, tuple, set, frozenset)):
            listed = sorted(value, key=str) if isinstance(value, (set, frozenset)) else list(value)
            plain[name] = dg.MetadataValue.json(listed)
        elif isinstance(value, Markdown):
            plain[name] = dg.MetadataValue.md(value.text)
        elif isinstance(value, (bool, int, float, str, dg.MetadataValue)):
            plain[name] = value
        else:
            plain[name] = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return plain
