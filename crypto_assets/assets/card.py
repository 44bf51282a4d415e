"""Cards: a step's outputs, inputs and trigger, declared once on the function that does the work.

Dagster's dependencies and partition mappings, jobs, freshness, grants, backfills and the data dictionary are derived
from cards. Belongs here: the vocabulary and the registry. Does not belong here: Dagster (`orchestration.shell` builds
assets from cards), contracts of tables (`contracts`).
"""

from __future__ import annotations

import graphlib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

import crypto_assets.assets
from crypto_assets.contracts.model import Grain, Table
from crypto_assets.engine.base import Result

Work = Callable[..., Result]
MovedBy = Literal["refresh", "daily", "slot"]
"""`refresh`: the job after a poll; `daily`: the job after midnight UTC; `slot`: by itself, after its inputs were
updated, at most once per 5-minute slot."""
RoleName = Literal["ingest", "transform", "train", "serve"]


@dataclass(frozen=True)
class ModelAsset:
    """An asset that is not a table: a model in the registry.

    Args:
        schema: First part of the asset key.
        name: Second part of the asset key.
        description: Two or three sentences for people.
        owner: Team, as Dagster's `team:...`.
        group: Dagster group.
        kinds: Dagster kinds.
        grain: Dagster partition.
    """

    schema: str
    name: str
    description: str
    owner: str = "team:ml"
    group: str = "ml"
    kinds: tuple[str, ...] = ("scikitlearn", "mlflow")
    grain: Grain | None = "day"

    @property
    def full_name(self) -> str:
        """`schema.name`, as of a table."""
        return f"{self.schema}.{self.name}"

    @property
    def asset_key(self) -> tuple[str, str]:
        """The Dagster asset key path."""
        return (self.schema, self.name)


@dataclass(frozen=True)
class Reads:
    """An upstream asset, and the partitions of it that a partition of the reader needs.

    Args:
        asset: `schema/name`.
        back: Partitions of the reader (hours or days) before its own that are read too.
        day_before: An hour reads the day before the one that holds it: a model of day D serves from D + 1 00:00.
        if_there: A missing partition is no obstacle: the running day has no daily partition.
    """

    asset: str
    back: int = 0
    day_before: bool = False
    if_there: bool = False


def _undeclared(*_arguments: object, **_named: object) -> Result:
    raise TypeError("a step without work: decorate the function that does it with the step")


_REGISTERED: dict[str, Step] = {}


@dataclass(frozen=True)
class Step:
    """A launchable step and the assets that it materializes; decorates and registers its work.

    Args:
        name: Op name.
        makes: Tables or models of one grain.
        reads: Upstream assets of every asset of the step.
        moved_by: Trigger that keeps the assets fresh; None = materialized by hand.
        role: Role that runs it on Databricks; see `databricks.deploy.unity`.
        checks: Checks that the step evaluates beside the contract's: name to description.
        also_writes: Tables written beside the step's assets.
        log: Logical topic (`prices`, `polls`) whose bounds the step needs.
        subset: Whether `work` can materialize a subset of the assets.
        skippable: Whether the step may end without output (too little data): only red checks, no materialization.
        restated: Whether late records, and backfills from history, rebuild the partitions that read them.
        work: `work(engine, partition_keys, inputs)`, with `tables=` when `subset`; given by the decorated function.
    """

    name: str
    makes: Sequence[Table | ModelAsset]
    reads: Sequence[Reads] = ()
    moved_by: MovedBy | None = None
    role: RoleName = "transform"
    checks: Mapping[str, str] = field(default_factory=dict)
    also_writes: Sequence[Table] = ()
    log: str | None = None
    subset: bool = False
    skippable: bool = False
    restated: bool = False
    work: Work = field(default=_undeclared, repr=False)

    def __call__(self, work: Work) -> Work:
        """Register the step with its work; returns the function itself, which stays picklable."""
        _REGISTERED[self.name] = replace(self, work=work)
        return work

    @property
    def grain(self) -> Grain | None:
        """Partitions of the step's assets."""
        return self.makes[0].grain

    @property
    def assets(self) -> tuple[str, ...]:
        """Assets as `schema/name`."""
        return tuple("/".join(m.asset_key) for m in self.makes)


@cache
def steps() -> tuple[Step, ...]:
    """All steps of the modules in this folder, in dependency order, else by name."""
    for module in pkgutil.iter_modules(crypto_assets.assets.__path__, "crypto_assets.assets."):
        importlib.import_module(module.name)
    makers = {asset: s.name for s in _REGISTERED.values() for asset in s.assets}
    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter(
        {name: sorted(makers[r.asset] for r in s.reads if r.asset in makers) for name, s in sorted(_REGISTERED.items())}
    )
    return tuple(_REGISTERED[name] for name in order.static_order())


def assets_of(*moved_by: MovedBy) -> tuple[str, ...]:
    """Assets with these triggers, as `schema/name`, in dependency order."""
    return tuple(asset for s in steps() if s.moved_by in moved_by for asset in s.assets)


def step_of(asset: str) -> Step | None:
    """The step that materializes an asset (`schema/name`); None for topics, alerts and promotions."""
    return next((s for s in steps() if asset in s.assets), None)


def upstream(table: Table) -> tuple[str, ...]:
    """Assets from which a table is built, as `schema/name`."""
    made_by = step_of("/".join(table.asset_key))
    writers = [made_by] if made_by else [s for s in steps() if table in s.also_writes and s.role == "train"]
    return tuple(dict.fromkeys(r.asset for s in writers for r in s.reads))
