"""The weekly challenger: an IsolationForest on inputs in the coin's own sigma, and the gate that it has to pass.

The forest of a week scores the week after it, so the scores of past weeks are out of sample. Both detectors flag
equally often on the same days; faults injected into these days show what each finds, and a paired bootstrap of whole
days how much of the difference is chance. The rule is a function of the recorded figures alone (`wins`).

Belongs here: fitting, comparing, the rule. Does not belong here: scores (`ml.detectors`), recording a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crypto_assets.ml import faults
from crypto_assets.ml.bootstrap import difference
from crypto_assets.ml.detectors import FOREST, Detector, thresholds
from crypto_assets.ml.evaluation import flag_statistics
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel, anomaly_inputs, usable
from crypto_assets.ml.pictures import svg

if TYPE_CHECKING:
    import numpy as np

FIT_DAYS, WEEKS = 7, 4
TREES, SEED = 200, 42
LEAST_SHARE = 0.5
"""Share of usable slots from which a week can be fitted on."""

LEAST_RATE = 0.5
"""Flags per coin and day at which detectors are compared at least: a rarer flag rests on too few slots."""

INJECTED = ("spike_3", "spike_6", "spike_12", "drop")
EVERYWHERE = ("market_6", "market")
"""Faults of one coin, and moves of the whole market."""

ALL_INJECTED = "injected"
"""Name of the difference over all informative faults of one coin."""

LEAST_GAIN = 0.01
"""Recall that a challenger gains at least, by the lower bound of the difference: thresholds with equal numbers of flags
still lie anywhere between two values, and which of them is not a matter of days."""

MARGIN = 0.02
"""Recall on market-wide moves that a challenger may have lost, by the lower bound of the difference."""


@dataclass(frozen=True)
class Comparison:
    """A calibrated forest, the figures of its comparison, and what the rule makes of them."""

    challenger: Detector
    figures: dict[str, Any]

    @property
    def wins(self) -> bool:
        """Whether the forest serves for the week that follows."""
        return wins(self.figures)

    @property
    def why(self) -> str:
        """The figures compared, in one line."""
        return reason(self.figures)


def fit_forest(data: Panel) -> Any:
    """Fit an IsolationForest (Liu, Ting and Zhou 2008) on all usable slots of a panel."""
    from sklearn.ensemble import IsolationForest

    inputs = anomaly_inputs(data)
    return IsolationForest(n_estimators=TREES, random_state=SEED, n_jobs=1).fit(inputs[usable(inputs)])


def ends_week(data: Panel) -> bool:
    """Whether the last slot ends with a UTC week, on Monday at 00:00."""
    day, rest = divmod(data.first_slot + data.slots - 1, SLOTS_A_DAY)
    return rest == 0 and (day + 3) % 7 == 0  # day 0 was a Thursday


def missing(data: Panel) -> str | None:
    """What the data lack for a comparison; None if nothing."""
    if not _fits(data.cut(data.slots - FIT_DAYS * SLOTS_A_DAY, data.slots)):
        return "the inputs of the last 7 days are mostly unknown"
    if not _weeks(data):
        return f"needs 14 days of features ({FIT_DAYS} to fit and 7 to calibrate), and there are {len(data.days())}"
    return None


def _fits(part: Panel) -> bool:
    return part.slots == FIT_DAYS * SLOTS_A_DAY and bool(usable(anomaly_inputs(part)).mean() > LEAST_SHARE)


def _weeks(data: Panel) -> list[tuple[int, int]]:
    """Index spans of the last weeks, at most four, each with a week before it that a forest can be fitted on."""
    week, spans = FIT_DAYS * SLOTS_A_DAY, []
    for end in range(data.slots, max(0, data.slots - WEEKS * week), -week):
        if end - 2 * week < 0 or not _fits(data.cut(end - 2 * week, end - week)):
            break
        spans.insert(0, (end - week, end))
    return spans


def compare(data: Panel, equal: Detector, champion: Detector, budget: float) -> Comparison:
    """Fit and calibrate a forest, and compare it with the champion.

    Args:
        data: Everything known before the cut-off; see `missing`.
        equal: The champion, calibrated to at least half a flag a day, which is compared.
        champion: The champion as it would serve, whose limits of frozen quotes and strongest windows are kept.
        budget: Flags wanted per coin and day.
    """
    import numpy as np

    weeks = _weeks(data)
    start = weeks[0][0]
    forests = [fit_forest(data.cut(first - FIT_DAYS * SLOTS_A_DAY, first)) for first, _ in weeks]
    spans = [(first - start, end - start) for first, end in weeks]
    real = data.cut(start, data.slots)
    everything = np.ones(real["r5"].shape, dtype=bool)
    clean = _scores(forests, spans, real, everything)
    flags = equal.flags(real)
    limits = _limits(clean, flags)
    clean_flags = np.nan_to_num(clean, nan=-np.inf) > limits
    figures: dict[str, Any] = {
        "days": real.slots // SLOTS_A_DAY,
        "flag_rate": {"champion": _rate(flags), "challenger": _rate(clean_flags)},
        "recall": {"champion": {}, "challenger": {}, "chance": {}},
        "informative": {},
        "difference": {},
    }
    found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for kind in (*INJECTED, *EVERYWHERE):
        hurt = faults.inject(real, kind)
        within = np.zeros_like(everything)
        for c, t in hurt.starts:
            within[c, t : t + hurt.lasting] = True
        mine = np.nan_to_num(_scores(forests, spans, hurt.data, within), nan=-np.inf) > limits
        hits = {"champion": faults.hits(equal.flags(hurt.data), hurt), "challenger": faults.hits(mine, hurt)}
        chance = np.maximum(faults.hits(flags, hurt), faults.hits(clean_flags, hurt))
        for name, values in (*hits.items(), ("chance", chance)):
            figures["recall"][name][kind] = float(values.mean()) if len(values) else None
        figures["informative"][kind] = any(difference(h, chance, hurt.day).lower > 0 for h in hits.values())
        if figures["informative"][kind]:
            found[kind] = hits["challenger"], hits["champion"], hurt.day
            figures["difference"][kind] = _figures(*found[kind])
    mine_all = [found[k] for k in INJECTED if k in found]
    if mine_all:
        figures["difference"][ALL_INJECTED] = _figures(*(np.concatenate(part) for part in zip(*mine_all, strict=True)))
    levels = thresholds(clean, data.coins, budget, pooled=budget < 1)
    served = np.nan_to_num(clean, nan=-np.inf) > np.array([levels.get(c, levels["*"]) for c in data.coins])[:, None]
    forest = Detector(
        FOREST,
        {FOREST: levels},
        real.slots // SLOTS_A_DAY,
        champion.frozen_slots,
        champion.windows,
        fit_forest(data.cut(data.slots - FIT_DAYS * SLOTS_A_DAY, data.slots)),
        {**flag_statistics(served, data.coins), "gate": figures},
    )
    return Comparison(forest, figures)


def _scores(forests: list[Any], spans: list[tuple[int, int]], data: Panel, where: np.ndarray) -> np.ndarray:
    """Scores of chosen slots, C x T, each by the forest of the week before; NaN in the others."""
    import numpy as np

    inputs = anomaly_inputs(data)
    mask = usable(inputs) & where
    found = np.full(mask.shape, np.nan)
    for forest, (first, end) in zip(forests, spans, strict=True):
        week = mask.copy()
        week[:, :first] = week[:, end:] = False
        if week.any():
            found[week] = -forest.score_samples(inputs[week])
    return found


def _limits(found: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Thresholds by coin, C x 1, above which there are as many scores as another detector has flags."""
    import numpy as np

    limits = []
    for row, mine in zip(found, flags, strict=True):
        known = np.sort(row[np.isfinite(row)])
        wanted = int(mine.sum())
        if not wanted:
            limits.append(np.inf)
        elif wanted >= len(known):
            limits.append(-np.inf)
        else:
            limits.append((known[-wanted - 1] + known[-wanted]) / 2)
    return np.array(limits)[:, None]


def _rate(flags: np.ndarray) -> float:
    return float(flags.mean()) * SLOTS_A_DAY


def _figures(challenger: np.ndarray, champion: np.ndarray, day: np.ndarray) -> dict[str, float]:
    """Difference of recall with its 95 % bounds, as recorded."""
    found = difference(challenger, champion, day)
    return {"value": found.value, "lower": found.lower, "upper": found.upper}


def wins(figures: Mapping[str, Any]) -> bool:
    """The rule, from recorded figures: the forest finds more faults, in no kind of them fewer, and no fewer crashes.

    More: the lower bound of the difference over all informative faults of one coin is above 0.01. In no kind fewer: no
    upper bound is below 0. Market-wide moves: no lower bound is below -0.02.
    """
    found = figures["difference"]
    if ALL_INJECTED not in found or not found[ALL_INJECTED]["lower"] > LEAST_GAIN:
        return False
    if any(found[kind]["upper"] < 0 for kind in INJECTED if kind in found):
        return False
    return all(found[kind]["lower"] >= -MARGIN for kind in EVERYWHERE if kind in found)


def reason(figures: Mapping[str, Any]) -> str:
    """The compared figures in one line."""
    parts = []
    for kind, found in figures["difference"].items():
        recall = figures["recall"]
        shown = (
            f"{recall['challenger'][kind]:.0%} against {recall['champion'][kind]:.0%}, " if kind != ALL_INJECTED else ""
        )
        bounds = f"{found['lower']:+.1%} to {found['upper']:+.1%}"
        parts.append(f"{kind} {shown}{bounds}")
    rate = figures["flag_rate"]["champion"]
    verdict = "finds more" if wins(figures) else "does not find more"
    compared = "; ".join(parts) or "no fault was found by either"
    return f"the forest {verdict} at {rate:.2f} flags a coin and day over {figures['days']} days: {compared}"


def picture(figures: Mapping[str, Any]) -> str:
    """SVG of a comparison: recall of both by fault, and the difference with its 95 % bounds."""
    kinds, arms = list(figures["recall"]["champion"]), list(figures["difference"])

    def paint(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for shift, name in ((-0.2, "champion"), (0.2, "challenger")):
            recall = [figures["recall"][name][k] or 0.0 for k in kinds]
            left.bar([n + shift for n in range(len(kinds))], recall, 0.4, label=name)
        left.set_xticks(range(len(kinds)), kinds, rotation=45)
        left.set(title=f"recall at {figures['flag_rate']['champion']:.2f} flags a coin and day", ylim=(0, 1))
        left.legend()
        found = [figures["difference"][a] for a in arms]
        below = [d["value"] - d["lower"] for d in found]
        above = [d["upper"] - d["value"] for d in found]
        right.errorbar([d["value"] for d in found], range(len(arms)), xerr=[below, above], fmt="o", capsize=3)
        right.set_yticks(range(len(arms)), arms)
        right.axvline(0, color="grey")
        right.set(title=f"challenger - champion, {'promoted' if wins(figures) else 'rejected'}", xlim=(-1, 1))

    return svg(paint, (9.0, 4.0))
