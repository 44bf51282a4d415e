"""Volatility forecasts with the version effective at the time, as rows of `gold.volatility_forecasts`.

Belongs here: from features and a loaded version to rows. Does not belong here: choice of the version
(`ml.promotions.effective`), reading or writing tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from crypto_assets.ml.baselines import VOLATILITY_HORIZONS
from crypto_assets.ml.forecasts import stamped
from crypto_assets.ml.panel import Panel, slot_of
from crypto_assets.ml.scoring import Version
from crypto_assets.ml.volatility import EWMA, Volatility, ewma, half_life, realised


def forecasts(
    rows: Sequence[Mapping[str, Any]], data: Panel, version: Version, horizon: str, now: datetime
) -> list[dict[str, Any]]:
    """Forecast rows of `gold.volatility_forecasts` for feature rows whose inputs are known.

    Args:
        rows: Feature rows to forecast from.
        data: Panel that holds these rows and the 7 days before them.
        version: Version of the horizon's model.
        horizon: `1h` or `24h`.
        now: Time of writing: live when before the target.
    """
    import numpy as np

    slots = VOLATILITY_HORIZONS[horizon]
    made_by, usual = Volatility.of(version.parameters, slots), ewma(data, slots, half_life(slots))
    is_usual = made_by.algorithm == EWMA and made_by.half_life == half_life(slots)
    variances = (usual if is_usual else made_by.variance(data), usual, realised(data, slots))
    served, average, last = (100 * np.sqrt(variance) for variance in variances)
    index = {c: i for i, c in enumerate(data.coins)}
    made = []
    for row in rows:
        place = index[row["coin_id"]], slot_of(row["window_end"]) - data.first_slot
        volatility, past = float(served[place]), float(last[place])
        if not math.isfinite(volatility):
            continue
        made.append(
            {
                **stamped(row, version, horizon, slots, now),
                "volatility_pct": volatility,
                "ewma_pct": float(average[place]),
                "last_value_pct": past if math.isfinite(past) else None,
            }
        )
    return made
