"""Model cards: what a version is, what it was trained on, how it did and what it cannot, as Markdown with pictures.

Written by each training beside its other artifacts in MLflow. Figures are those of the training; nothing is fitted for
a card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from crypto_assets.ml import faults
from crypto_assets.ml.panel import SLOTS_A_DAY, Panel
from crypto_assets.ml.pictures import svg

if TYPE_CHECKING:
    import numpy as np

    from crypto_assets.ml.detectors import Detector
    from crypto_assets.ml.price import Forecaster

CARD = "card.md"
RECALL_DAYS = 7
"""Newest days into which faults are injected for a card."""

ANOMALY_LIMITS = (
    "A flag says that a move is rare for the coin, not why it happened, and not that it will revert.",
    "Faults are injected into one coin at a time, but for market-wide moves, and into days that thresholds rest on.",
    "The thresholds follow the last 28 days. After a calm month a normal week has more flags than the budget.",
    "Runs of equal prices are judged against the coin's own: a quote that always stood still is not suspected.",
)
PRICE_LIMITS = (
    "`no skill` means: no change is the best forecast known. The median is no advice, the interval is the content.",
    "Intervals cover nine of ten outcomes over weeks; in the first minutes of a crash they cover far fewer.",
    "Horizons overlap: twelve forecasts an hour ahead share most of their outcome.",
)


def anomaly(
    version: str, detector: Detector, data: Panel, *, cutoff: datetime, budget: float, why: str
) -> dict[str, str]:
    """Card of an anomaly version.

    Args:
        version: Version text.
        detector: As trained.
        data: The features that it was trained on, up to the cut-off.
        cutoff: Cut-off (UTC).
        budget: Flags wanted per coin and day.
        why: Decision, with its figures.

    Returns:
        Texts by file name: the card and its pictures.
    """
    last = data.cut(data.slots - RECALL_DAYS * SLOTS_A_DAY, data.slots)
    found = {kind: _recall(detector, last, kind) for kind in faults.KINDS}
    calibrated = data.cut(data.slots - detector.calibration_days * SLOTS_A_DAY, data.slots)
    flags = detector.flags(calibrated)
    days = detector.calibration_days
    measured = flags.sum() / days / len(flags)
    rows = [
        {
            "coin": coin,
            "flags a day": f"{flags[i].sum() / days:.2f}",
            **{f"threshold of {name}": f"{detector.level(name, coin):.2f}" for name in detector.thresholds},
            "frozen from": f"{detector.frozen_after(coin)} equal prices",
        }
        for i, coin in enumerate(calibrated.coins)
    ]
    body = [
        *head("crypto_anomaly", version, detector.algorithm, cutoff, calibrated, provisional=detector.provisional),
        f"Budget: {budget:g} flags per coin and day; measured on the calibration days: {measured:.2f}.",
        "",
        "## Decision",
        "",
        why,
        "",
        "## Calibration",
        "",
        *table(rows),
        "",
        "![flags by day](flags.svg)",
        "",
        f"## Faults found, injected into the last {RECALL_DAYS} days",
        "",
        *table([{"fault": k, "flagged, %": _percent(f), "frozen, %": _percent(z)} for k, (f, z) in found.items()]),
        "",
        "![faults found](recall.svg)",
        *limits(ANOMALY_LIMITS),
    ]

    def by_day(figure: Any) -> None:
        axes = figure.subplots()
        counts = flags.reshape(len(flags), days, SLOTS_A_DAY).sum(axis=2)
        for coin, row in zip(calibrated.coins, counts, strict=True):
            axes.plot(range(1 - len(row), 1), row, label=coin)
        axes.axhline(budget, color="black", linestyle=":")
        axes.set(xlabel="days before the cut-off", ylabel="flags")
        axes.legend(fontsize="small", ncols=2)

    def recall(figure: Any) -> None:
        axes = figure.subplots()
        axes.barh(list(found), [100 * max(f if f == f else 0.0, z if z == z else 0.0) for f, z in found.values()])
        axes.set(xlabel="% found", xlim=(0, 100))
        axes.invert_yaxis()

    return {CARD: document(body), "flags.svg": svg(by_day), "recall.svg": svg(recall)}


def _recall(detector: Detector, last: Panel, kind: str) -> tuple[float, float]:
    """Shares of injected faults that are flagged, and that the frozen rule finds."""
    hurt = faults.inject(last, kind)
    return faults.recall(detector.flags(hurt.data), hurt), faults.recall(detector.frozen(hurt.data), hurt)


def price(
    version: str, horizon: str, forecaster: Forecaster, data: Panel, *, cutoff: datetime, why: str
) -> dict[str, str]:
    """Card of a price version.

    Args:
        version: Version text.
        horizon: `5m` or `1h`.
        forecaster: As trained.
        data: The features that it was trained on, up to the cut-off.
        cutoff: Cut-off (UTC).
        why: Decision, with its figures.

    Returns:
        Texts by file name: the card and its pictures.
    """
    scale = forecaster.scale
    unknown = (None, None)
    coverage = {c: both for c in data.coins if (both := scale.coverage.get(c, unknown)) != unknown}
    lower, _, upper = scale.quantiles
    body = [
        *head(f"crypto_price_{horizon}", version, forecaster.name, cutoff, data, provisional=not forecaster.candidates),
        f"Point forecast: {forecaster.verdict}.",
        "",
        f"Interval: `{scale.name}` times {lower:.2f} to {upper:.2f}, quantiles of {forecaster.errors:,} outcomes.",
        "",
        "## Decision",
        "",
        why,
        "",
        *_coverage(coverage),
        *_trials(forecaster),
        *limits(PRICE_LIMITS),
    ]

    def shares(figure: Any) -> None:
        axes = figure.subplots()
        for place, label in enumerate(("7 days", "28 days")):
            known = {c: both[place] for c, both in coverage.items() if both[place] is not None}
            axes.plot([100 * (v or 0.0) for v in known.values()], list(known), "o", label=label)
        axes.axvline(90, color="black", linestyle=":")
        axes.set(xlabel="% covered")
        axes.legend()

    trials = forecaster.calibration.trials if forecaster.calibration else ()

    def gains(figure: Any) -> None:
        axes = figure.subplots()
        for t in trials:
            low, high = t.gain.value - t.gain.lower, t.gain.upper - t.gain.value
            axes.errorbar(t.gain.value * 1e4, t.name, xerr=[[low * 1e4], [high * 1e4]], fmt="o", capsize=4)
        axes.axvline(0, color="black", linestyle=":")
        axes.set(
            xlabel="Winkler score won over the scale in force, bp, with 95 % bounds", ylim=(-0.5, len(trials) - 0.5)
        )

    pictures = ({"coverage.svg": svg(shares)} if coverage else {}) | ({"gain.svg": svg(gains)} if trials else {})
    return {CARD: document(body), **pictures}


def _coverage(coverage: Mapping[str, tuple[float | None, float | None]]) -> list[str]:
    """Coverage by coin over the last 7 and 28 days, where it is known."""
    title = "## Coverage of 90 % intervals that had not seen the outcomes"
    if not coverage:
        return [title, "", "Not known yet."]
    rows = [
        {"coin": c, "7 days, %": _percent(week), "28 days, %": _percent(month)} for c, (week, month) in coverage.items()
    ]
    return [title, "", *table(rows), "", "![coverage](coverage.svg)"]


def _trials(forecaster: Forecaster) -> list[str]:
    """Scales that were compared, by their Winkler scores."""
    calibration = forecaster.calibration
    if calibration is None or not calibration.trials:
        return []
    rows = [
        {
            "scale": t.name,
            "Winkler, bp": f"{t.winkler * 1e4:.1f}",
            f"better than {calibration.present}, bp": f"{t.gain.value * 1e4:.1f} [{t.gain.lower * 1e4:.1f}, "
            f"{t.gain.upper * 1e4:.1f}]",
            "passes": "yes" if t.passes else "no",
        }
        for t in calibration.trials
    ]
    return ["", f"## Scales compared on {calibration.days} days", "", *table(rows), "", "![gain](gain.svg)"]


def head(name: str, version: str, algorithm: str, cutoff: datetime, data: Panel, *, provisional: bool) -> list[str]:
    """Title, and what the version was trained on."""
    start = cutoff - timedelta(days=data.slots // SLOTS_A_DAY)
    return [
        f"# {name} {version}",
        "",
        f"- Algorithm: {algorithm}" + (" (provisional: fewer days than wanted)" if provisional else ""),
        f"- Data: {data.slots // SLOTS_A_DAY} days from {start:%Y-%m-%d} to the cut-off {cutoff:%Y-%m-%d %H:%M} UTC",
        f"- Coins: {', '.join(data.coins)}",
        "- Serves from its cut-off on, if promoted; never scores a slot that it has seen",
        "",
    ]


def limits(texts: Sequence[str]) -> list[str]:
    """The section on what a version cannot do."""
    return ["", "## Limits", "", *(f"- {text}" for text in texts)]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of a Markdown table."""
    if not rows:
        return ["None."]
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return lines + ["| " + " | ".join(str(v) for v in row.values()) + " |" for row in rows]


def _percent(share: float | np.floating | None) -> str:
    return "" if share is None or share != share else f"{100 * float(share):.1f}"


def document(lines: Sequence[str]) -> str:
    """Text of a card."""
    return "\n".join(lines) + "\n"
