"""`models`: versions in service, and putting one into service by hand.

Belongs here: the command's text. Does not belong here: which version serves when (`ml.promotions`), the table
(`assets.training`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from crypto_assets.assets import training
from crypto_assets.cli import output
from crypto_assets.contracts.slices import DAY, floor_day
from crypto_assets.contracts.tables import PROMOTIONS
from crypto_assets.engine.base import Engine
from crypto_assets.engine.engines import make_engine
from crypto_assets.engine.inputs import model_store
from crypto_assets.errors import SUCCESS, UsageError
from crypto_assets.home import existing_home
from crypto_assets.ml import registry
from crypto_assets.ml.baselines import REGISTERED
from crypto_assets.ml.promotions import ByHand, Undecidable, by_hand, effective, hold, recency
from crypto_assets.settings import Settings

SHOWN = 3
"""Newest decisions of a model that are shown."""


def show(settings: Settings, *, now: datetime, as_json: bool) -> int:
    """Print the versions in service and the newest decisions; always 0.

    Raises:
        HomeError: There is no home.
        UsageError: Nothing was decided yet, or decisions are in a workspace.
    """
    _home(settings)
    decided = _decided(make_engine(settings))
    there = {p["model"] for p in decided}
    known = [model for model in REGISTERED if model in there]
    serving = {model: effective(decided, model, now) for model in known}
    newest = {model: sorted((p for p in decided if p["model"] == model), key=recency)[::-1][:SHOWN] for model in known}
    if as_json:
        output.as_json(
            [{"model": m, "serves": serving[m]["version"], "held": bool(hold(decided, m, now)), "decisions": newest[m]}
             for m in known]
        )  # fmt: skip
        return SUCCESS
    for model in known:
        holding = hold(decided, model, now)
        text = f"{model}: {serving[model]['version']} ({serving[model]['algorithm']}) serves"
        output.say(text + (f"; held: {holding['why']}" if holding else ""), style="bold")
        output.table("Newest decisions", [_row(p) for p in newest[model]])
    return SUCCESS


def decide(settings: Settings, name: str, version: str | None, decision: ByHand, why: str, *, now: datetime) -> int:
    """Put a version into service from the next hour, record it, and move the registry's alias; 0 when done.

    Args:
        settings: Settings of the home.
        name: Model.
        version: Version; None for the newest older one that has served.
        decision: `promoted_by_hand`, or `rolled_back`.
        why: Reason, recorded.
        now: Present time (UTC).

    Raises:
        HomeError: There is no home.
        UsageError: There is no such model or version, it serves already, no reason is given, or decisions are in a
            workspace.
        ArtifactRefused: The version's files are not those that were registered.
    """
    home = _home(settings)
    model, engine = _model(name), make_engine(settings)
    if not why.strip():
        raise UsageError('--why is empty: say why, for those who read it later: --why "flags tripled since Tuesday"')
    decided = _decided(engine)
    try:
        row = by_hand(decided, model, version, decision, why.strip(), now)
    except Undecidable as error:
        raise UsageError(f"{error}; all of them: crypto-assets models") from error
    registry.load(row, home)  # refuses files that are not the registered ones
    before = effective(decided, model, now)
    training.record(engine, [row])
    registry.render_alias(registry.Store.of(model_store(settings, settings.home)), _decided(engine), model)
    begins = f"{row['effective_from']:%Y-%m-%d %H:%M}Z"
    output.say(f"{model} {row['version']} ({row['algorithm']}) serves from {begins}, in place of {before['version']}")
    if decision == "rolled_back":
        ends = f"crypto-assets models promote {model} VERSION --why ..."
        output.say(f"later trainings are recorded and do not serve, until: {ends}")
    else:
        soonest = floor_day(row["effective_from"]) + DAY
        output.say(
            f"it serves until a training promotes a later version, at the earliest from {soonest:%Y-%m-%d %H:%M}Z; "
            f"to keep it whatever trainings find: crypto-assets models rollback {model} {row['version']} --why ..."
        )
    return SUCCESS


def _home(settings: Settings) -> str | None:
    """The home whose model files are used; None in a workspace, where they are on a volume.

    Raises:
        HomeError: There is no home.
        UsageError: Decisions are in a workspace, and this is not there.
    """
    if settings.is_remote:
        return None
    home = existing_home(settings)
    if settings.on_databricks:
        raise UsageError(
            f"decisions on models are in table ml.promotions of catalog {settings.catalog}, in the workspace: run the "
            "bundle's job `decide_model` there: databricks bundle run decide_model --params "
            "decision=rollback,model=...,version=...,why=..."
        )
    return str(home.path)


def _decided(engine: Engine) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = engine.store.read_arrow(PROMOTIONS.full_name).to_pylist()
    if not rows:
        raise UsageError("no version has been decided on yet: the first run of gold/anomalies writes the baselines")
    return rows


def _model(name: str) -> str:
    by_name = {**{m: m for m in REGISTERED}, **{registered: m for m, registered in REGISTERED.items()}}
    if name not in by_name:
        raise UsageError(f"there is no model {name}: choose {', '.join(REGISTERED)}")
    return by_name[name]


def _row(promotion: Mapping[str, Any]) -> dict[str, str]:
    return {
        "decided": f"{promotion['decided_at']:%Y-%m-%d %H:%M}Z",
        "version": promotion["version"],
        "decision": promotion["decision"],
        "serves from": f"{promotion['effective_from']:%Y-%m-%d %H:%M}Z",
        "why": promotion["why"],
    }
