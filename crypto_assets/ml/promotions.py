"""Decisions on model versions: which one serves at a time, and what a person decided by hand.

A training decides by its gate: `promoted` or `rejected`, effective from the day after. A person puts a version into
service with `promoted_by_hand`, until a training promotes a later version, or with `rolled_back`, which holds:
trainings record their versions as rejected until a version is promoted by hand. Rows are never rewritten; that of a
training says what a person decided before it, and what becomes of that.

Belongs here: reading decisions and making rows of them. Does not belong here: the table (`assets.training`), the gate
(`assets.anomaly_model`, `assets.price_model`), the registry's alias (`ml.registry`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from crypto_assets.contracts.model import CHAIN_COLUMNS
from crypto_assets.contracts.slices import HOUR, floor_hour

REJECTED, PROMOTED_BY_HAND, ROLLED_BACK = "rejected", "promoted_by_hand", "rolled_back"
ByHand = Literal["promoted_by_hand", "rolled_back"]


class Undecidable(ValueError):
    """A version cannot be put into service by hand; the message names why and what can."""


def effective(promotions: Sequence[Mapping[str, Any]], model: str, at: datetime) -> dict[str, Any]:
    """Decision in force for a model at a time: the newest that put a version into service with effective_from <= at.

    Raises:
        LookupError: There is none, not even the baseline.
    """
    serving = [p for p in promotions if p["model"] == model and p["decision"] != REJECTED and p["effective_from"] <= at]
    if not serving:
        raise LookupError(f"no version of {model} was effective at {at.isoformat()}")
    return dict(max(serving, key=_precedence))


def _precedence(promotion: Mapping[str, Any]) -> tuple[datetime, bool, datetime, datetime]:
    """Order of decisions: a later start, then a person's before a training's, then newer data, then the later one."""
    by_person = promotion["decision"] in (PROMOTED_BY_HAND, ROLLED_BACK)
    newest = promotion["decided_at" if by_person else "cutoff"]
    return promotion["effective_from"], by_person, newest, promotion["decided_at"]


def recency(promotion: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """Order in which decisions were made: one run decides on many days at the same time."""
    return promotion["decided_at"], promotion["effective_from"]


def hold(promotions: Sequence[Mapping[str, Any]], model: str, at: datetime) -> Mapping[str, Any] | None:
    """The rollback that holds a model at a time (UTC); None if trainings decide."""
    decided = [
        p
        for p in promotions
        if p["model"] == model and p["decision"] in (PROMOTED_BY_HAND, ROLLED_BACK) and p["decided_at"] <= at
    ]
    newest = max(decided, key=recency, default=None)
    return newest if newest is not None and newest["decision"] == ROLLED_BACK else None


def beside(
    rows: Sequence[dict[str, Any]], promotions: Sequence[Mapping[str, Any]], at: datetime
) -> list[dict[str, Any]]:
    """Rows of a training as they are recorded beside what a person decided.

    While a rollback holds their model they are rejected. Else a promoted version replaces one that was promoted by
    hand, or does not serve if both would begin at the same time; its reason says which.

    Args:
        rows: New rows of `ml.promotions`.
        promotions: All decisions so far.
        at: Time of the decision (UTC).
    """

    def recorded(row: dict[str, Any]) -> dict[str, Any]:
        if row["decision"] == REJECTED:
            return row
        if (holding := hold(promotions, row["model"], at)) is not None:
            why = f"held by the rollback to {holding['version']}; by the gate: {row['why']}"
            return {**row, "decision": REJECTED, "why": why}
        before = effective(promotions, row["model"], row["effective_from"])
        if before["decision"] != PROMOTED_BY_HAND:
            return row
        does = "replaces" if before["effective_from"] < row["effective_from"] else "does not serve in place of"
        return {**row, "why": f"{row['why']}; {does} {before['version']}, promoted by hand: {before['why']}"}

    return [recorded(row) for row in rows]


def by_hand(
    promotions: Sequence[Mapping[str, Any]],
    model: str,
    version: str | None,
    decision: ByHand,
    why: str,
    now: datetime,
) -> dict[str, Any]:
    """Row of `ml.promotions` that puts a version into service from the next hour.

    Args:
        promotions: All decisions so far.
        model: One of `REGISTERED`.
        version: The version; None for the newest older one that has served.
        decision: `promoted_by_hand`, which the next version that a training promotes replaces, or `rolled_back`, which
            none does.
        why: Reason, as a person gives it.
        now: Present time (UTC).

    Raises:
        Undecidable: There is no such version, it serves already, or it was trained on data after the next hour's start.
    """
    mine = [p for p in promotions if p["model"] == model]
    if not mine:
        raise Undecidable(f"{model} has no version yet: the first refresh writes its baseline")
    begins = floor_hour(now) + HOUR
    coming = effective(mine, model, begins)
    known = {p["version"]: p for p in sorted(mine, key=recency)}
    if version is None:
        served = [p for p in mine if p["decision"] != REJECTED and p["effective_from"] <= begins]
        earlier = [p for p in served if p["cutoff"] < coming["cutoff"]]
        if not earlier:
            raise Undecidable(f"{model} has had no version in service that is older than {coming['version']}")
        version = max(earlier, key=lambda p: p["cutoff"])["version"]
    if version not in known:
        newest = ", ".join(list(known)[::-1][:5])
        raise Undecidable(f"{model} has no version {version}; the newest are: {newest}")
    if version == coming["version"] and (decision == PROMOTED_BY_HAND or coming["decision"] == decision):
        raise Undecidable(f"{model} {version} serves from {begins:%Y-%m-%d %H:%M}Z already ({coming['decision']})")
    if known[version]["cutoff"] > begins:
        raise Undecidable(f"{model} {version} was trained on data up to {known[version]['cutoff']:%Y-%m-%d %H:%M}Z")
    if any((p["version"], p["effective_from"], p["decision"]) == (version, begins, decision) for p in mine):
        # The table's key, which would hide the second decision.
        raise Undecidable(f"{model} {version} was {decision} for {begins:%H:%M}Z before: try again after that")
    return {
        **{name: value for name, value in known[version].items() if name not in CHAIN_COLUMNS},
        "effective_from": begins,
        "decision": decision,
        "why": why,
        "decided_at": now,
    }
