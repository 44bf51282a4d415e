"""Cards: what a step makes, reads and is moved by, declared once on the function that does the work.

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
    """An asset that is no table: a model in the registry.

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
    owner: str
    group: str
    kinds: tuple[str, ...]
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
    """An upstream asset, and which of its partitions a partition of the reader needs.

    Args:
        asset: `schema/name`.
        back: Partitions of the reader (hours or days) before its own that are read too.
        day_before: An hour reads the day before the one that holds it: a model of day D serves from D + 1 00:00.
        if_there: A partition that does not exist (yet) is no obstacle: the running day has no daily partition.
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
    """One launchable step and the assets that it materializes; used as the decorator of its work, it is registered.

    Args:
        name: Op name.
        makes: Tables or models of one grain.
        reads: Upstream assets of every asset of the step.
        moved_by: What keeps the assets fresh; None = a person materializes them.
        role: Role that runs it on Databricks; see `databricks.deploy.unity`.
        checks: Checks that the step evaluates beside the contract's: name to description.
        also_writes: Tables that are no asset of the step and that it writes.
        log: Logical topic (`prices`, `polls`) whose bounds the step needs.
        subset: Whether `work` can materialize some of the assets alone.
        skippable: Whether the step may end without output (too little data): only red checks, no materialization.
        restated: Whether a late record makes the partitions that read it again, and a backfill from history too.
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
        """Register the step with its work; the function itself is returned, so that it is pickled as any other."""
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
    """All steps of the modules in this folder, each after those whose assets it reads, else by name."""
    for module in pkgutil.iter_modules(crypto_assets.assets.__path__, "crypto_assets.assets."):
        importlib.import_module(module.name)
    makers = {asset: s.name for s in _REGISTERED.values() for asset in s.assets}
    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter(
        {name: sorted(makers[r.asset] for r in s.reads if r.asset in makers) for name, s in sorted(_REGISTERED.items())}
    )
    return tuple(_REGISTERED[name] for name in order.static_order())


def assets_of(*moved_by: MovedBy) -> tuple[str, ...]:
    """Assets that these move, as `schema/name`, each after what it reads."""
    return tuple(asset for s in steps() if s.moved_by in moved_by for asset in s.assets)


def step_of(asset: str) -> Step | None:
    """The step that makes an asset (`schema/name`); None for one that no step makes (topics, alerts, promotions)."""
    return next((s for s in steps() if asset in s.assets), None)


def upstream(table: Table) -> tuple[str, ...]:
    """Assets that a table is made from, as `schema/name`."""
    made_by = step_of("/".join(table.asset_key))
    writers = [made_by] if made_by else [s for s in steps() if table in s.also_writes and s.role == "train"]
    return tuple(dict.fromkeys(r.asset for s in writers for r in s.reads))
