"""Results of a walk-forward as tables: of rows for people and for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crypto_assets.evaluate.coverage import BASIS_POINTS, Coverage, coverage
from crypto_assets.evaluate.detection import FROZEN, MARKET, ROBUST_Z, UNION, Detection
from crypto_assets.evaluate.intervals import FIRST, PRODUCT, Forecasts
from crypto_assets.ml import faults
from crypto_assets.ml.bootstrap import Difference, difference
from crypto_assets.ml.evaluation import Skill, flag_statistics, skill
from crypto_assets.ml.intervals import winkler
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel

if TYPE_CHECKING:
    import numpy as np

BUDGETED = (ROBUST_Z, MARKET, UNION)
SERVED = "median of the product"


@dataclass(frozen=True)
class Table:
    """A titled table; shares are in percent, and None is printed as nothing."""

    title: str
    rows: Sequence[Mapping[str, Any]]


def budget_text(budget: float) -> str:
    """A budget in words: `1 a day`, `1 a week`, else flags a day."""
    if abs(budget * 7 - 1) < 1e-6:
        return "1 a week"
    return f"{budget:g} a day"


def of_detection(found: Sequence[Detection]) -> list[Table]:
    """Flags against the budget, by coin; faults found; the frozen rule; all by budget."""
    tables = []
    for one in found:
        text = budget_text(one.budget)
        tables.append(Table(f"Flags at {text}, by detector", [_flags(one, arm) for arm in BUDGETED]))
        tables.append(Table(f"Flags at {text}, by coin", _by_coin(one)))
        tables.append(Table(f"Faults found at {text}, %", _recall(one)))
    return [*tables, *(_frozen(one) for one in found[:1])]


def _flags(one: Detection, arm: str) -> dict[str, Any]:
    figures: dict[str, Any] = flag_statistics(_served(one, one.flags[arm]), one.data.coins)
    rate = figures["mean_per_coin_day"]
    return {
        "detector": arm,
        "flags per coin and day": rate,
        "measured / budget": rate / one.budget,
        "days": figures["days"],
        "flags": figures["flags"],
        "episodes": figures["episodes"],
        "market-wide episodes": figures["market_wide_episodes"],
        "99 % of days under": figures["p99_per_coin_day"],
    }


def _served(one: Detection, flags: np.ndarray) -> np.ndarray:
    """Flags of the days that count."""
    import numpy as np

    return flags[:, np.repeat(one.served, SLOTS_A_DAY)]


def _by_coin(one: Detection) -> list[dict[str, Any]]:
    days = int(one.served.sum())
    return [
        {
            "coin": coin,
            **{f"{arm} / budget": float(one.flags[arm][i].sum()) / days / one.budget for arm in BUDGETED},
        }
        for i, coin in enumerate(one.data.coins)
    ]


def _recall(one: Detection) -> list[dict[str, Any]]:
    rows = []
    for kind in faults.KINDS:
        better = difference(one.hits[UNION][kind], one.hits[ROBUST_Z][kind], one.fault_days[kind])
        rows.append(
            {
                "fault": kind,
                "injected": len(one.fault_days[kind]),
                **{arm: _percent(_mean(one.hits[arm][kind])) for arm in (*BUDGETED, FROZEN)},
                "union - robust z": _bounds(better, 100),
            }
        )
    return rows


def _frozen(one: Detection) -> Table:
    """The rule for frozen quotes: what it finds, and how often it fires on the data as they are."""
    false = _served(one, one.flags[FROZEN])
    days = int(one.served.sum()) * len(one.data.coins)
    kinds = ("freeze_12", "freeze_36")
    return Table(
        "Frozen quotes",
        [
            {
                **{f"{kind} found, %": _percent(_mean(one.hits[FROZEN][kind])) for kind in kinds},
                "false slots per coin and day": float(false.sum()) / days,
                "false runs per coin and day": sum(_runs(row) for row in false) / days,
            }
        ],
    )


def _runs(flags: np.ndarray) -> int:
    """Number of uninterrupted runs."""
    import numpy as np

    return int((np.diff(flags.astype(int), prepend=0) == 1).sum())


def measured(one: Forecasts) -> dict[str, Coverage]:
    """How the intervals of each arm held."""
    return {
        arm: coverage(one.outcomes, i.lower, i.upper, one.data.coins, one.data.first_slot)
        for arm, i in one.arms.items()
    }


def of_forecasts(found: Sequence[Forecasts]) -> list[Table]:
    """Intervals against the first version, their coverage by coin, week and hour of day, and skill; all horizons."""
    if not found:
        return []
    held = {one.horizon: measured(one) for one in found}
    columns = [(f"{horizon}, {arm}", c) for horizon, arms in held.items() for arm, c in arms.items()]
    weeks = max(len(c.by_week) for _, c in columns)
    return [
        Table("90 % intervals: coverage", [row for h, arms in held.items() for row in _calibration(h, arms)]),
        Table("90 % intervals: sharpness", [row for one in found for row in _sharpness(one, held[one.horizon])]),
        Table(
            "Coverage by coin, %",
            [{"coin": coin, **{n: _percent(c.by_coin[coin]) for n, c in columns}} for coin in found[0].data.coins],
        ),
        Table(
            "Coverage by week, %",
            [{"week": w + 1, **{n: _percent(c.by_week[w]) for n, c in columns}} for w in range(weeks)],
        ),
        Table(
            "Coverage by UTC hour, %",
            [{"hour": f"{h:02d}", **{n: _percent(c.by_hour[h]) for n, c in columns}} for h in range(24)],
        ),
        Table("Skill of the point forecast over no change", [row for one in found for row in _skill(one)]),
    ]


def _calibration(horizon: str, held: Mapping[str, Coverage]) -> list[dict[str, Any]]:
    return [
        {
            "horizon": horizon,
            "version": arm,
            "coverage, %": _percent(c.covered),
            "mean weekly error, points": _percent(c.weekly_error),
            "coin-weeks": c.coin_weeks,
            "within 2 points, %": _percent(c.weeks_within),
            "by hour from, %": min(c.by_hour) * 100,
            "to, %": max(c.by_hour) * 100,
        }
        for arm, c in held.items()
    ]


def _sharpness(one: Forecasts, held: Mapping[str, Coverage]) -> list[dict[str, Any]]:
    scores = {arm: winkler(i.lower, i.upper, one.outcomes) * BASIS_POINTS for arm, i in one.arms.items()}
    gain = difference(scores[PRODUCT], scores[FIRST], days_of(one.data))
    return [
        {
            "horizon": one.horizon,
            "version": arm,
            "forecasts": c.samples,
            "width, bp": c.width,
            "Winkler, bp": c.winkler,
            "Winkler / first": c.winkler / held[FIRST].winkler,
            "Winkler - first, bp": _bounds(gain) if arm == PRODUCT else None,
        }
        for arm, c in held.items()
    ]


def days_of(data: Panel) -> np.ndarray:
    """UTC day of each slot, as a number of days since 1970."""
    import numpy as np

    return (data.first_slot + np.arange(data.slots) - 1) // SLOTS_A_DAY


def _skill(one: Forecasts) -> list[dict[str, Any]]:
    """The served median over all days, and every candidate over the 14 days before each training."""
    import numpy as np

    median = one.arms[PRODUCT].median
    known = np.isfinite(one.outcomes) & np.isfinite(median)
    day = np.broadcast_to(days_of(one.data), known.shape)[known]
    served = skill((one.outcomes - median)[known], one.outcomes[known], median[known], day)
    rows = [_skill_row(one, SERVED, [served])]
    return rows + [_skill_row(one, algorithm, skills) for algorithm, skills in one.candidates.items()]


def _skill_row(one: Forecasts, name: str, skills: Sequence[Skill]) -> dict[str, Any]:
    """Mean skill and bounds of evaluations, and how many are above zero with 95 % confidence."""
    import numpy as np

    value, lower, upper, hit = (
        float(np.mean([getattr(s, n) for s in skills])) for n in ("value", "lower", "upper", "direction_hit")
    )
    above = sum(s.lower > 0 for s in skills)
    days = [str(s) for s in one.served if s]
    return {
        "horizon": one.horizon,
        "forecast": name,
        "evaluations": len(skills),
        "skill, %": value * 100,
        "95 % bounds": f"{lower * 100:+.2f} to {upper * 100:+.2f}",
        "direction right, %": _percent(hit),
        "above zero": above,
        "days served": len(days) if name == SERVED else sum(s.startswith(f"{name}+") for s in days),
        "verdict": "skill" if above == len(skills) else "no skill",
    }


def _percent(share: float) -> float | None:
    return None if share != share else share * 100


def _bounds(found: Difference, unit: float = 1.0) -> str:
    return f"{found.value * unit:+.1f} [{found.lower * unit:+.1f}, {found.upper * unit:+.1f}]"


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
