"""The card of a volatility version: what it is, what it was trained on, how it did and what it cannot."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crypto_assets.ml import card as cards
from crypto_assets.ml.intervals import HARMONICS
from crypto_assets.ml.panel import Panel
from crypto_assets.ml.pictures import svg
from crypto_assets.ml.volatility import LOG_HAR, MARKET_SPANS, SPANS
from crypto_assets.ml.volatility_training import Trained

LIMITS = (
    "No forecast announces a crash: it follows one, within the hour.",
    "QLIKE is of variances, and its mean rests on few wild days; a week says little.",
    "Forecasts are of mean variance: in most hours the outcome is below, in a few far above.",
    "24 h horizons overlap: 24 forecasts share most of their outcome.",
)
INPUTS = (
    "constant",
    *(f"variance of {5 * span} minutes" for span in SPANS),
    *(f"market, {5 * span} minutes" for span in MARKET_SPANS),
    *(f"{wave} of {24 // k} h" for k in HARMONICS for wave in ("sine", "cosine")),
    "full hour",
    "weekend",
)
"""Names of the weights."""


def card(version: str, horizon: str, trained: Trained, data: Panel, *, cutoff: datetime, why: str) -> dict[str, str]:
    """Card of a version.

    Args:
        version: Version text.
        horizon: `1h` or `24h`.
        trained: As trained.
        data: The features that it was trained on, up to the cut-off.
        cutoff: Cut-off (UTC).
        why: Decision, with its figures.

    Returns:
        Texts by file name: the card and its pictures.
    """
    made = trained.version
    losses = [
        {
            "forecast": name,
            "QLIKE": f"{loss:.3f}",
            "less by log_har, 95 % bounds": f"{gain.value:+.3f} [{gain.lower:+.3f}, {gain.upper:+.3f}]"
            if (gain := trained.gains.get(name))
            else "",
        }
        for name, loss in trained.loss.items()
    ]
    weights = [{"input": n, "weight": f"{w:+.3f}"} for n, w in zip(INPUTS, made.weights, strict=False)]
    fitted = [f"Fitted on {trained.outcomes:,} outcomes, logarithms of variances.", "", *cards.table(weights)]
    average = f"The exponential average halves its weights in {made.half_life / 12:g} h."
    body = [
        *cards.head(f"crypto_volatility_{horizon}", version, made.algorithm, cutoff, data, provisional=False),
        "## Decision",
        "",
        why,
        "",
        f"## Loss over {trained.days} days that the compared regression had not seen",
        "",
        *cards.table(losses),
        "",
        "![gain](gain.svg)",
        "",
        "## What it knows",
        "",
        *(fitted if made.algorithm == LOG_HAR else [average]),
        *cards.limits(LIMITS),
    ]

    def gains(figure: Any) -> None:
        axes = figure.subplots()
        for name, gain in trained.gains.items():
            low, high = gain.value - gain.lower, gain.upper - gain.value
            axes.errorbar(gain.value, name, xerr=[[low], [high]], fmt="o", capsize=4)
        axes.axvline(0, color="black", linestyle=":")
        axes.set(
            xlabel="QLIKE of the baseline less that of log_har, with 95 % bounds", ylim=(-0.5, len(trained.gains) - 0.5)
        )

    return {cards.CARD: cards.document(body), "gain.svg": svg(gains)}
