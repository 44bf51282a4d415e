"""Laws on volatility forecasts and their accuracy: recomputed from features and the weights of the versions.

Where the product adds up fixed slots in a fixed order, this uses a recursion for the exponential average and running
totals of extended precision for the others.
"""

# ruff: noqa: S608 - every name put into a query is a constant of this module

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crypto_assets.verify import model_files
from crypto_assets.verify.laws.anomalies import references
from crypto_assets.verify.laws.base import Evidence, Law, compared, differing, far, unequal

if TYPE_CHECKING:
    import numpy as np

TABLE, ACCURACY = "gold.volatility_forecasts", "gold.volatility_accuracy"
SLOTS = {"1h": 12, "24h": 288}
SPANS = {3: 2, 12: 6, 48: 24, 288: 144, 2016: 576}
"""Slots of an average of squared returns, and how many of them must be known."""

LEAST, SMALLEST = 1e-5, 0.02
"""Volatility of a slot at least: absolute, and in own sigmas."""

CUT, CUT_IN_AVERAGE = 4.0, 6.0
"""Own sigmas that a return counts for at most, in the regression and in the average."""

_HORIZON = "CASE p.horizon WHEN '1h' THEN 12 WHEN '24h' THEN 288 END"


def references_law() -> Law:
    """Law: forecasts refer to existing features and to versions that could not have seen the slot."""
    slot = "a.window_end - INTERVAL 5 MINUTES"
    return Law(
        "volatility_refers_rightly",
        "every forecast has its features, and a promoted version with cut-off and start of service before its slot",
        (TABLE,),
        f"""
        {references(f'"{TABLE}"', slot, "'volatility_' || a.horizon", ("a.horizon",))}
        UNION ALL
        SELECT 'no features', a.coin_id, a.window_end, a.horizon, a.model_version, NULL, NULL
        FROM "{TABLE}" a ANTI JOIN "features.price_features" f ON f.coin_id = a.coin_id AND f.window_end = a.window_end
        """,
        covers={TABLE: ("coin_id", "window_end", "model_version")},
        recomputed="references to features.price_features and ml.promotions",
    )


def _unlike(name: str, wanted: str) -> str:
    """Condition that a figure is not that recomputed, where no feature of its 7 days came after it was written."""
    return (
        f"o.newest <= p.predicted_at AND ((p.{name} IS NULL) <> ({wanted} IS NULL) "
        f"OR abs(p.{name} - {wanted}) > 1e-7 * {wanted})"
    )


_VALUES = {
    "horizon": "p.horizon = '24h' AND epoch(p.window_end)::BIGINT % 3600 <> 0",
    "target_at": f"p.target_at IS DISTINCT FROM p.window_end + ({_HORIZON}) * INTERVAL 5 MINUTES",
    "volatility_pct": _unlike("volatility_pct", "o.volatility"),
    "ewma_pct": _unlike("ewma_pct", "o.average"),
    "last_value_pct": _unlike("last_value_pct", "o.past"),
    "model_name": "p.model_name <> 'volatility_' || p.horizon",
    "mode": "p.mode <> CASE WHEN p.predicted_at < p.target_at THEN 'live' ELSE 'backfill' END",
    "day": "p.day <> (p.window_end - INTERVAL 5 MINUTES)::DATE",
    "hour": "p.hour <> date_trunc('hour', p.window_end - INTERVAL 5 MINUTES)",
}


def values_law() -> Law:
    """Law: forecasts follow from the features of their 7 days and the numbers of their version.

    Judged are those whose features are still what they were made from. In hours that have forecasts, every slot up to
    the newest has one where half of the last day's returns are known.
    """
    return Law(
        "volatility_follows_from_versions",
        "every figure of a volatility forecast follows from its features and its version's files, and none is missing",
        (TABLE, "features.price_features", "ml.promotions"),
        f"""
        WITH hours AS (SELECT hour, max(predicted_at) AS written_at FROM "{TABLE}" GROUP BY hour)
        SELECT 'differs' AS problem, coin_id, window_end, horizon, model_version, trim(differs) AS columns FROM (
            SELECT p.coin_id, p.window_end, p.horizon, p.model_version, {differing(_VALUES)} AS differs
            FROM "{TABLE}" p LEFT JOIN audit_volatility o USING (coin_id, window_end, horizon, model_version)
        ) WHERE differs <> ''
        UNION ALL
        SELECT 'missing', s.coin_id, s.window_end, s.horizon, NULL, ''
        FROM audit_volatility_slots s JOIN hours h ON h.hour = date_trunc('hour', s.window_end - INTERVAL 5 MINUTES)
        WHERE s.newest <= h.written_at AND s.window_end <= (SELECT max(window_end) FROM "{TABLE}")
          AND NOT EXISTS (FROM "{TABLE}" p WHERE p.coin_id = s.coin_id AND p.window_end = s.window_end
                          AND p.horizon = s.horizon)
        """,
        covers={TABLE: tuple(_VALUES)},
        recomputed="numpy from features.price_features and the versions' parameters",
        prepare=_recompute,
    )


@dataclass(frozen=True)
class _Grid:
    """Features of coins by slot, C x T: returns, own sigma, last values; NaN where unknown."""

    coins: list[str]
    first: int
    r5: np.ndarray
    s: np.ndarray
    past: Mapping[str, np.ndarray]

    def place(self, coins: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of rows."""
        import numpy as np

        index = {c: i for i, c in enumerate(self.coins)}
        return np.array([index[c] for c in coins], dtype=int), slots - self.first


def _grid(rows: Mapping[str, np.ndarray]) -> _Grid:
    import numpy as np

    coins, slots = sorted(set(rows["coin_id"])), rows["slot"] if len(rows["slot"]) else np.zeros(1, dtype=int)
    first = int(slots.min())
    shape = (len(coins), int(slots.max()) - first + 1)
    index = {c: i for i, c in enumerate(coins)}
    at = (np.array([index[c] for c in rows["coin_id"]], dtype=int), rows["slot"] - first)

    def spread(name: str) -> np.ndarray:
        values = np.full(shape, np.nan)
        values[at] = np.ma.filled(rows[name].astype(float), np.nan)
        return values

    past = {"1h": spread("rv1h"), "24h": spread("rv24h")}
    return _Grid(coins, first, spread("r5"), spread("s"), past)


def _average(grid: _Grid, half_life: float) -> np.ndarray:
    """Mean of the last 2016 squared returns with weights that halve, by recursion; NaN under half a day of returns."""
    import numpy as np

    known = np.isfinite(grid.r5)
    squares = np.where(known, _cut(grid, CUT_IN_AVERAGE), 0.0) ** 2
    longest, decay = 2016, 0.5 ** (1 / half_life)
    found, total, weight = np.empty_like(squares), np.zeros(len(squares)), np.zeros(len(squares))
    for t in range(squares.shape[1]):
        total, weight = total * decay + squares[:, t], weight * decay + known[:, t]
        if t >= longest:
            total = total - decay**longest * squares[:, t - longest]
            weight = weight - decay**longest * known[:, t - longest]
        with np.errstate(divide="ignore", invalid="ignore"):
            found[:, t] = total / weight
    return np.where(_running(known, 288) >= 144, np.maximum(found, LEAST**2), np.nan)


def _cut(grid: _Grid, most: float) -> np.ndarray:
    """Returns within so many own sigmas; as they are where no own sigma is known."""
    import numpy as np

    return np.where(np.isfinite(grid.s), np.clip(grid.r5, -most * grid.s, most * grid.s), grid.r5)


def _running(values: np.ndarray, slots: int) -> np.ndarray:
    """Sums over the last slots, as differences of running totals in extended precision."""
    import numpy as np

    totals = np.cumsum(np.pad(values.astype(np.longdouble), ((0, 0), (slots, 0))), axis=1)
    return (totals - np.pad(totals, ((0, 0), (slots, 0)))[:, :-slots])[:, slots:].astype(float)


def _inputs(grid: _Grid) -> list[np.ndarray]:
    """Inputs of the regression, C x T or T."""
    import numpy as np

    squares, known = _cut(grid, CUT) ** 2, np.isfinite(grid.r5)
    logs = []
    for slots, least in SPANS.items():
        count = _running(known, slots)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = _running(np.where(known, squares, 0.0), slots) / count
        mean = np.where(count >= least, mean, np.nan)
        logs.append(np.log(np.maximum(mean, (SMALLEST * grid.s) ** 2)))
    of_any = [np.isfinite(part).any(axis=0) for part in (logs[1], logs[3])]
    market = [
        np.where(there, np.nanmean(np.where(there, part, 0.0), axis=0), np.nan)
        for part, there in zip((logs[1], logs[3]), of_any, strict=True)
    ]
    seconds = (grid.first + np.arange(grid.r5.shape[1])) * 300
    angles = [2 * np.pi * k * (seconds % 86_400) / 86_400 for k in (1, 2, 3, 4)]
    clock = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    weekday = ((seconds - 1) // 86_400 + 4) % 7  # 0 = Sunday
    return [*logs, *market, *clock, seconds % 3600 == 0, (weekday == 0) | (weekday == 6)]


def _recompute(evidence: Evidence) -> str | None:
    """Create `audit_volatility`, the figures by forecast, and `audit_volatility_slots`, where one is due.

    Returns:
        A note on versions without files.
    """
    import numpy as np
    import pyarrow as pa

    connection = evidence.connection
    rows = connection.execute("""
        SELECT coin_id, epoch(window_end)::BIGINT // 300 AS slot, r5, s, rv1h, rv24h, max(available_at) OVER (
            ORDER BY epoch(window_end)::BIGINT // 300 RANGE BETWEEN 2015 PRECEDING AND CURRENT ROW) AS newest
        FROM "features.price_features"
    """).to_arrow_table()
    made = connection.execute(
        f'SELECT coin_id, window_end, horizon, model_name, model_version FROM "{TABLE}"'
    ).to_arrow_table()
    columns = {n: rows.column(n).to_numpy() for n in rows.column_names if n != "newest"}
    grid = _grid(columns)
    newest = pa.table({"coin_id": rows["coin_id"], "slot": rows["slot"], "newest": rows["newest"]})
    known = {2.0 * slots: _average(grid, 2.0 * slots) for slots in SLOTS.values()}
    at = grid.place(columns["coin_id"], columns["slot"])
    slots = [
        newest.append_column("horizon", pa.array([h] * len(newest))).filter(
            pa.array(np.isfinite(known[2.0 * ahead][at]) & ((h == "1h") | (columns["slot"] % 12 == 0)))
        )
        for h, ahead in SLOTS.items()
    ]
    connection.register("volatility_slots", pa.concat_tables(slots))
    connection.execute("""
        CREATE OR REPLACE TABLE audit_volatility_slots AS
        SELECT coin_id, make_timestamptz(slot * 300000000) AS window_end, horizon, newest FROM volatility_slots
    """)
    figures, unread = _figures(evidence, grid, known, made)
    connection.register("volatility_figures", figures)
    connection.register("volatility_newest", newest)
    connection.execute("""
        CREATE OR REPLACE TABLE audit_volatility AS
        SELECT f.*, n.newest FROM volatility_figures f JOIN volatility_newest n
          ON n.coin_id = f.coin_id AND n.slot = epoch(f.window_end)::BIGINT // 300
    """)
    for name in ("volatility_slots", "volatility_figures", "volatility_newest"):
        connection.unregister(name)
    return f"files of {', '.join(unread)} are not there: their forecasts were not recomputed" if unread else None


def _figures(evidence: Evidence, grid: _Grid, known: dict[float, np.ndarray], made: Any) -> tuple[Any, list[str]]:
    """Figures of the forecasts whose slot has features, in percent, and versions without files.

    Args:
        evidence: Loaded evidence.
        grid: Features.
        known: Averages by half-life; completed.
        made: The ledger's keys.
    """
    import numpy as np
    import pyarrow as pa

    ends = made.column("window_end").cast("int64").to_numpy() // 300_000_000
    names = np.array(made.column("model_name").to_pylist(), dtype=object)
    versions = np.array(made.column("model_version").to_pylist(), dtype=object)
    coins = np.array(made.column("coin_id").to_pylist(), dtype=object)
    there = (ends >= grid.first) & (ends < grid.first + grid.r5.shape[1]) & np.isin(coins, np.array(grid.coins, object))
    figures = {n: np.full(len(ends), np.nan) for n in ("volatility", "average", "past")}
    read, unread, inputs = np.zeros(len(ends), dtype=bool), [], None
    for model, version in sorted(set(zip(names[there], versions[there], strict=True))):
        mine = there & (names == model) & (versions == version)
        horizon = model.removeprefix("volatility_")
        learnt = _parameters(evidence, model, version)
        if horizon not in SLOTS or learnt is None:
            unread.append(f"{model} {version}")
            continue
        at = grid.place(coins[mine], ends[mine])
        if not learnt.get("weights"):
            half_life = learnt["half_life_slots"]
            if half_life not in known:
                known[half_life] = _average(grid, half_life)
            variance = known[half_life][at]
        else:
            inputs = inputs or _inputs(grid)
            weights = learnt["weights"]
            log = weights[0] + sum(w * np.broadcast_to(x, grid.r5.shape)[at] for w, x in zip(weights[1:], inputs))  # noqa: B905
            variance = np.exp(np.clip(log, 2 * np.log(LEAST), 0.0))
        read |= mine
        slots = SLOTS[horizon]
        figures["volatility"][mine] = 100 * np.sqrt(slots * variance)
        figures["average"][mine] = 100 * np.sqrt(slots * known[2.0 * slots][at])
        figures["past"][mine] = 100 * np.maximum(grid.past[horizon][at], np.sqrt(slots) * LEAST)
    table = made.select(["coin_id", "window_end", "horizon", "model_version"])
    for name, values in figures.items():
        table = table.append_column(name, pa.array(values, from_pandas=True))
    return table.filter(pa.array(read)), unread


def _parameters(evidence: Evidence, model: str, version: str) -> Mapping[str, Any] | None:
    """Numbers of a version; None if it is unknown or its files are not there."""
    found = evidence.connection.execute(
        'SELECT artifact_uri, metrics FROM "ml.promotions" WHERE model = ? AND version = ? LIMIT 1', [model, version]
    ).fetchone()
    if found is None:
        return None
    if found[0] == model_files.BUILT_IN:
        return json.loads(found[1])
    folder = model_files.folder_of(evidence.home, model, version, found[0])
    return None if folder is None or not folder.is_dir() else model_files.parameters(folder)


def accuracy_law() -> Law:
    """Law: accuracy equals the forecasts of a day compared with the realised volatility at their targets."""
    key = ("day", "coin_id", "horizon", "model_version", "mode")
    losses = ("qlike", "qlike_ewma", "qlike_last_value", "qlike_ratio")
    differs = {
        **unequal(("day_start", "model_name", "forecasts", "without_outcome")),
        **{name: far(name, "1e-9") for name in (*losses, "volatility_pct", "outcome_pct")},
    }
    by_arm = {"qlike": "volatility_pct", "qlike_ewma": "ewma_pct", "qlike_last_value": "last_value_pct"}
    means = ", ".join(
        f"avg(greatest(0, (came / {arm}) ^ 2 - 2 * ln(came / {arm}) - 1)) "
        f"FILTER (came IS NOT NULL AND {arm} IS NOT NULL) AS {loss}"
        for loss, arm in by_arm.items()
    )
    return Law(
        "volatility_accuracy_is_forecasts_scored",
        "every figure of volatility accuracy follows from the forecasts and the features at their targets",
        (ACCURACY,),
        f"""
        WITH realised AS (
            SELECT coin_id, window_end, '1h' AS horizon, 100 * greatest(rv1h, sqrt(12) * {LEAST}) AS came
            FROM "features.price_features" WHERE rv1h IS NOT NULL
            UNION ALL
            SELECT coin_id, window_end, '24h', 100 * greatest(rv24h, sqrt(288) * {LEAST})
            FROM "features.price_features" WHERE rv24h IS NOT NULL
        ), outcomes AS (
            SELECT (p.target_at - INTERVAL 1 MICROSECOND)::DATE AS day, p.* EXCLUDE (day), r.came
            FROM "{TABLE}" p LEFT JOIN realised r
              ON r.coin_id = p.coin_id AND r.window_end = p.target_at AND r.horizon = p.horizon
        ), means AS (
            SELECT day, day::TIMESTAMP AT TIME ZONE 'UTC' AS day_start, coin_id, horizon, model_name, model_version,
                   mode, count(came) AS forecasts, count(*) - count(came) AS without_outcome, {means},
                   avg(volatility_pct) FILTER (came IS NOT NULL) AS volatility_pct, avg(came) AS outcome_pct
            FROM outcomes GROUP BY ALL
        ), recomputed AS (
            SELECT *, qlike / nullif(least(qlike_ewma, qlike_last_value), 0) AS qlike_ratio FROM means
        ), days AS (
            SELECT day FROM "{ACCURACY}" UNION SELECT day FROM "gold.bars_1d"
        )
        {compared(ACCURACY, key, differs, "no such forecasts", judged="coalesce(a.day, r.day) IN (FROM days)")}
        """,
        covers={ACCURACY: (*key, *differs)},
        recomputed=f"SQL from {TABLE} and features.price_features",
    )
